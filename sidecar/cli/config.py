"""`sidecar config check` and `sidecar config reference`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from sidecar import settings
from sidecar.telemetry.metrics import metrics_reference

_METRICS_HEAD = """\
# Metrics

Served at `/metrics` on `server.metrics_port`, with those of the process (`process_…`).
"""


def check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Warnings to stderr, `ok` to stdout. Problems are raised as ConfigurationError, for `main` to print."""
    loaded = settings.load(arguments.config, environ)
    for warning in settings.warnings(loaded):
        print(f"sidecar: warning: {warning}", file=sys.stderr)
    print("ok")
    return 0


def reference(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    """Settings and metrics as Markdown on stdout; config/reference.md holds the same."""
    sys.stdout.write(reference_text())
    sys.stdout.flush()
    return 0


def reference_text() -> str:
    return f"{settings.reference()}\n{_METRICS_HEAD}\n{metrics_reference()}"
