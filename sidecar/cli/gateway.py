"""`sidecar gateway diff`: what a live gateway has that the policy does not know, and the other way round.

Exit codes: 0 nothing differs, 1 something does, 2 a gateway or a file could not be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from sidecar import settings
from sidecar.cli.plain import plain

NOT_COMPARED = 2


def diff(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Compare each gateway, or the one that is named. Raises ConfigurationError."""
    loaded = settings.load(arguments.config, environ)
    from sidecar import app, options  # noqa: PLC0415 - so that other commands need not wait for it to be imported
    from sidecar.cli import gateway_diff  # noqa: PLC0415 - the same
    from sidecar.policy.coverage import read_reviewed  # noqa: PLC0415 - the same
    from sidecar.policy.schema import SchemaError, read_schema  # noqa: PLC0415 - the same

    wanted = [row for row in options.gateway_options(loaded) if arguments.gateway in {None, row.id}]
    if not wanted:
        print(f"sidecar: no gateway is called {plain(arguments.gateway)}; look at `gateways[].id`", file=sys.stderr)
        return NOT_COMPARED
    try:
        schema = read_schema(arguments.schema.read_bytes()) if arguments.schema else None
    except (OSError, SchemaError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        print(f"sidecar: --schema {plain(str(arguments.schema))}: {why}", file=sys.stderr)
        return NOT_COMPARED
    reviewed = read_reviewed((app.TABLES / "reviewed.toml").read_bytes())
    compared = gateway_diff.diff(wanted, app.shipped_tables(), schema, reviewed)
    print(
        gateway_diff.as_json(compared)
        if arguments.json
        else gateway_diff.as_text(compared, with_schema=schema is not None)
    )
    return max(one.code for one in compared)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add `diff` to the group `gateway`; the parser of `diff`, for the options that all commands share."""
    command = commands.add_parser(
        "diff",
        allow_abbrev=False,
        help="compare a live gateway with the policy tables",
        description="Say which methods, events, parameters and scopes of a live gateway are new, gone or changed. "
        "Exit with 0 if nothing differs, 1 if something does, 2 if it could not be compared.",
    )
    command.add_argument("--gateway", metavar="ID", help="this one of `gateways[].id` only")
    command.add_argument("--json", action="store_true", help="print one line of JSON")
    command.add_argument(
        "--schema",
        type=Path,
        metavar="FILE",
        help="protocol.schema.json of the npm package @openclaw/gateway-protocol, to compare parameters and scopes too",
    )
    command.set_defaults(command=diff)
    return command
