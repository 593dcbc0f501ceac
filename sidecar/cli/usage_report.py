"""What `sidecar usage report` does: sums over the ledger as a table, as CSV or as JSON.

Names of sessions and models are what clients and operators wrote: none reaches the terminal as it is.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from sidecar import settings
from sidecar.cli.plain import json_line, plain
from sidecar.domain.usage import SUM_COLUMNS, Tokens, UsageQuery, UsageSum, spreadsheet
from sidecar.storage.engines.running import running_database_url
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database, DatabaseOptions

Show = Callable[[str, Sequence[UsageSum]], None]


async def report(storage: settings.Storage, query: UsageQuery, show: Show) -> None:
    """Raises EngineError where no database is found, StorageAway where it does not answer."""
    url = storage.database_url.get_secret_value() or running_database_url(storage.data_dir)
    async with Database(DatabaseOptions(url, statement_timeout=60.0)) as database:
        show(query.by, await Ledger(database).summed(query))


def show_lines(by: str, sums: Sequence[UsageSum]) -> None:
    """A table with a last line for all."""
    width = max([len(by), len("all"), *(len(plain(one.group)) for one in sums)])
    print(f"{by:<{width}}" + "".join(f"{name:>13}" for name in SUM_COLUMNS))
    for name, one in [*((plain(one.group), one) for one in sums), ("all", _all(sums))]:
        calls = f"{one.calls:>13,}{one.estimated:>13,}"
        print(f"{name:<{width}}{calls}" + "".join(f"{count:>13,}" for count in _counts(one)) + f"{one.cost_usd:>13.6f}")
    sys.stdout.flush()


def show_csv(by: str, sums: Sequence[UsageSum]) -> None:
    csv.writer(sys.stdout, lineterminator="\n").writerows(spreadsheet(by, sums))
    sys.stdout.flush()


def show_json(by: str, sums: Sequence[UsageSum]) -> None:
    for one in sums:
        counts = dict(zip(SUM_COLUMNS[2:7], _counts(one), strict=True))
        print(
            json_line(
                {
                    by: one.group,
                    "calls": one.calls,
                    "estimated": one.estimated,
                    **counts,
                    "cost_usd": f"{one.cost_usd:f}",
                }
            )
        )
    sys.stdout.flush()


SHOWS: Mapping[str, Show] = {"lines": show_lines, "csv": show_csv, "json": show_json}


def _counts(one: UsageSum) -> tuple[int, ...]:
    tokens = one.tokens
    return tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, tokens.total


def _all(sums: Sequence[UsageSum]) -> UsageSum:
    kinds = ("input", "output", "cache_read", "cache_write")
    return UsageSum(
        group="all",
        calls=sum(one.calls for one in sums),
        estimated=sum(one.estimated for one in sums),
        tokens=Tokens(*(sum(getattr(one.tokens, kind) for one in sums) for kind in kinds)),
        cost_usd=sum((one.cost_usd for one in sums), Decimal(0)),
    )
