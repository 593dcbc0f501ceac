"""`sidecar usage report|backfill|reconcile`: the ledger in the database that the sidecar writes to, embedded or not."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from sidecar import settings
from sidecar.domain.usage import GROUPS, UsageQuery


def report(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Raises ConfigurationError, and what `usage_report.report` raises."""
    storage = settings.load(arguments.config, environ).storage
    from sidecar.cli import usage_report  # noqa: PLC0415 - so that other commands need not wait for it to be imported

    today = datetime.fromtimestamp(time.time(), UTC).date()
    since = arguments.since or today.replace(day=1)
    until = (arguments.until or today) + timedelta(days=1)
    query = UsageQuery(_midnight(since), _midnight(until), arguments.by, arguments.user)
    asyncio.run(usage_report.report(storage, query, usage_report.SHOWS[arguments.form]))
    return 0


def compare(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Raises ConfigurationError, and what `usage_compare.compare` raises."""
    loaded = settings.load(arguments.config, environ)
    from sidecar.cli import usage_compare  # noqa: PLC0415 - so that other commands need not wait for it to be imported

    return asyncio.run(usage_compare.compare(loaded, write=arguments.write))


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("write a day as 2026-11-27") from None


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """Add `report`, `backfill` and `reconcile` to the group `usage`; their parsers, for the options that all commands share."""
    command = commands.add_parser(
        "report",
        allow_abbrev=False,
        help="show how many model calls and tokens were used, and what they cost",
        description="Add up the ledger, by default this month's by day (UTC). Works beside a running sidecar.",
    )
    command.add_argument("--from", dest="since", type=_day, metavar="DAY", help="the first day; else the month's first")
    command.add_argument("--to", dest="until", type=_day, metavar="DAY", help="the last day, all of it; else today")
    command.add_argument("--by", choices=GROUPS, default="day", help="what to add up by (day)")
    command.add_argument("--user", default="", metavar="ID", help="of this user id only, as in `example|alice`")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="as CSV, with a head")
    form.add_argument("--json", dest="form", action="store_const", const="json", help="one JSON object a line")
    command.set_defaults(command=report, form="lines")
    backfill = commands.add_parser(
        "backfill",
        allow_abbrev=False,
        help="write what the gateways' transcripts tell and the ledger lacks",
        description="Read all transcripts of all gateways and write each model call that the ledger has not.",
    )
    backfill.set_defaults(command=compare, write=True)
    reconcile = commands.add_parser(
        "reconcile",
        allow_abbrev=False,
        help="compare the ledger with the gateways' transcripts and with Redis",
        description="Read all transcripts of all gateways, compare, and write nothing. Exit code 1 where they differ.",
    )
    reconcile.set_defaults(command=compare, write=False)
    return [command, backfill, reconcile]
