"""Paths that a client names: below its own workspace, or refused. The gateway's own check stands behind this one."""

from __future__ import annotations

import re

from sidecar.errors import ForeignKey, MalformedFrame

MAX_PATH = 1024
_DRIVE = re.compile(r"[A-Za-z]:")


def check_path(name: str, value: str) -> None:
    """Raise ForeignKey for a path that could lead out of a workspace, MalformedFrame for what is none.

    Relative, with `/` between its parts: no root, drive, home, `..`, backslash or control character; empty is the workspace.
    """
    if len(value) > MAX_PATH or not value.isprintable():
        raise MalformedFrame(f"'{name}' is a relative path of at most {MAX_PATH} printable characters")
    leads_out = value.startswith(("/", "~")) or "\\" in value or _DRIVE.match(value) or ".." in value.split("/")
    if leads_out or value != value.strip():
        raise ForeignKey("that path is not in your workspace")
