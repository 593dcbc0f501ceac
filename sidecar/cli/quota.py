"""`sidecar quota show|set|reset`: what one user may and has used, in the databases that the sidecar works with, embedded or not."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from sidecar import settings
from sidecar.domain.quota import QuotaType

MOST = Decimal(10) ** 15
COUNTED = frozenset({QuotaType.API_CALLS, QuotaType.CONCURRENT_RUNS, QuotaType.MESSAGES_PER_MINUTE})


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Raises ConfigurationError, and what `quota_book.show` raises."""
    loaded = settings.load(arguments.config, environ)
    from sidecar.cli import quota_book  # noqa: PLC0415 - so that other commands need not wait for it to be imported

    return asyncio.run(quota_book.show(loaded, arguments.user, as_json=arguments.json))


def change(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """As `show`."""
    if arguments.limit is not None and QuotaType(arguments.quota) in COUNTED and arguments.limit % 1:
        print(f"{arguments.quota} is a whole number; 0: unlimited", file=sys.stderr)
        return 2
    loaded = settings.load(arguments.config, environ)
    from sidecar.cli import quota_book  # noqa: PLC0415 - so that other commands need not wait for it to be imported

    return asyncio.run(quota_book.change(loaded, arguments.user, QuotaType(arguments.quota), arguments.limit))


def _limit(text: str) -> Decimal:
    try:
        limit = Decimal(text)
    except InvalidOperation:
        limit = Decimal(-1)
    if not (limit.is_finite() and 0 <= limit <= MOST):
        raise argparse.ArgumentTypeError("write a number from 0; 0: unlimited")
    return limit


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """Add `show`, `set` and `reset` to the group `quota`; their parsers, for the options that all commands share."""
    kinds = [kind.value for kind in QuotaType]
    shown = commands.add_parser(
        "show",
        allow_abbrev=False,
        help="show what a user may, and has used",
        description="Limits of one user, what is used and what running turns reserve. Works beside a running sidecar.",
    )
    shown.add_argument("user", metavar="USER", help="a user id, as in `example|alice`")
    shown.add_argument("--json", action="store_true", help="one JSON object")
    shown.set_defaults(command=show)
    given = commands.add_parser(
        "set",
        allow_abbrev=False,
        help="give a user a limit of their own",
        description="In force within seconds, on every replica.",
    )
    taken = commands.add_parser(
        "reset",
        allow_abbrev=False,
        help="limit a user as the settings say again",
        description="In force within seconds, on every replica. What was used stays used.",
    )
    for parser in (given, taken):
        parser.add_argument("user", metavar="USER", help="a user id, as in `example|alice`")
        parser.add_argument("quota", choices=kinds, metavar="QUOTA", help=f"one of {', '.join(kinds)}")
        parser.set_defaults(command=change, limit=None)
    given.add_argument("limit", type=_limit, metavar="LIMIT", help="tokens, USD or turns; 0: unlimited")
    return [shown, given, taken]
