"""`sidecar run`, `sidecar config check|reference`, `sidecar doctor`, `sidecar gateway diff`, `sidecar audit tail`,
`sidecar usage report|backfill|reconcile`, `sidecar quota show|set|reset`.

Exit codes: 0 done, 1 it could not run or broke, 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sidecar import __version__
from sidecar.cli import audit, config, doctor, gateway, quota, run, usage
from sidecar.errors import ConfigurationError, SidecarError

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, `sys.argv` by default."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments, os.environ)
    except ConfigurationError as error:
        for problem in error.problems:
            print(f"sidecar: {problem}", file=sys.stderr)
        return 2
    except SidecarError as error:
        print(f"sidecar: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Ctrl-C before the app has taken over the signal: nothing runs yet.
        return _INTERRUPTED
    except BrokenPipeError:
        # `sidecar config reference | head` has seen enough; the flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar",
        description="Makes one unmodified OpenClaw gateway safe for many people.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser(
        "run",
        allow_abbrev=False,
        help="serve until SIGTERM or Ctrl-C",
        description="Serve until SIGTERM or Ctrl-C; then close all within `server.drain_seconds` and end.",
    )
    _add_config(command)
    command.set_defaults(command=run.run)

    _add_config_commands(commands)
    _add_config(doctor.add_command(commands))

    for name, what, add_commands in (
        ("gateway", "look at the gateways", gateway.add_commands),
        ("audit", "look at the audit log", audit.add_commands),
    ):
        group = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        _add_config(add_commands(group.add_subparsers(title="commands", metavar="COMMAND", required=True)))
    for name, what, add_several in (
        ("usage", "look at the ledger of usage", usage.add_commands),
        ("quota", "look at what users may, and change it", quota.add_commands),
    ):
        group = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        for command in add_several(group.add_subparsers(title="commands", metavar="COMMAND", required=True)):
            _add_config(command)
    return parser


def _add_config_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    group = commands.add_parser("config", help="look at the configuration", description="Look at the configuration.")
    subcommands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = subcommands.add_parser(
        "check",
        allow_abbrev=False,
        help="print everything that is wrong with it, or ok",
        description="Print every problem and warning; exit with 2 if there is a problem.",
    )
    _add_config(command)
    command.set_defaults(command=config.check)
    command = subcommands.add_parser(
        "reference",
        allow_abbrev=False,
        help="print all settings and metrics as Markdown",
        description="Print every setting with type, default, meaning and variable, and every metric.",
    )
    command.set_defaults(command=config.reference)


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file; else the one that SIDECAR_CONFIG names, else config/sidecar.toml if it is there",
    )


if __name__ == "__main__":
    sys.exit(main())
