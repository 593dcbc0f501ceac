"""`sidecar audit tail`: the audit log, from the database that the sidecar writes it to, embedded or not."""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from sidecar import settings
from sidecar.domain.audit import ACTIONS, AuditQuery

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def tail(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Raises ConfigurationError, and what `audit_tail.tail` raises."""
    storage = settings.load(arguments.config, environ).storage
    from sidecar.cli import audit_tail  # noqa: PLC0415 - so that other commands need not wait for it to be imported

    query = AuditQuery(arguments.user, arguments.action, arguments.since)
    show = audit_tail.show_json if arguments.json else audit_tail.show_lines
    asyncio.run(audit_tail.tail(storage, query, arguments.number, show, follow=arguments.follow))
    return 0


def _moment(text: str) -> float:
    """`90s`, `30m`, `1h` or `7d` ago, or a time as ISO 8601 writes it, UTC where it does not say."""
    if ago := re.fullmatch(r"(\d{1,9})([smhd])", text):
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("write 30m, 1h, 7d or 2026-11-25T19:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text):
        raise argparse.ArgumentTypeError("write a number of rows, up to 999999")
    return int(text)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add `tail` to the group `audit`; the parser of `tail`, for the options that all commands share."""
    command = commands.add_parser(
        "tail",
        allow_abbrev=False,
        help="show who was refused what, and who acted as admin",
        description="Show the last rows of the audit log: time (UTC), user, action, method, code. Works beside a running sidecar.",
    )
    command.add_argument("--follow", action="store_true", help="go on with the rows that come, until Ctrl-C")
    command.add_argument(
        "--since", type=_moment, metavar="WHEN", help="not before: 30m, 1h, 7d ago, or 2026-11-25T19:00"
    )
    command.add_argument("--user", default="", metavar="ID", help="of this user id only, as in `example|alice`")
    command.add_argument("--action", default="", choices=ACTIONS, metavar="ACTION", help=f"one of {', '.join(ACTIONS)}")
    command.add_argument("--json", action="store_true", help="one JSON object a line, with all that was kept")
    command.add_argument("-n", dest="number", type=_count, default=50, metavar="ROWS", help="how many at most (50)")
    command.set_defaults(command=tail)
    return command
