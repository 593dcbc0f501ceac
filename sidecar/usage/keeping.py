"""Partitions of the ledger: made ahead of their month, and dropped when they are older than an operator wants to keep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Protocol

from sidecar.errors import StorageAway
from sidecar.telemetry.facts import Report, UsageDropped

EVERY_SECONDS = 6 * 3600.0
AGAIN_SECONDS = 30.0


class Partitions(Protocol):
    """All raise StorageAway."""

    async def make_partitions(self, moments: Iterable[float]) -> None: ...

    async def drop_partitions(self, before: float) -> Sequence[date]: ...


async def keep_partitions(
    ledger: Partitions, ahead: Callable[[float], list[float]], months: int, clock: Callable[[], float], report: Report
) -> None:
    """Until cancelled. `months`: how many whole ones stay besides the present one; 0: all."""
    while True:
        try:
            now = clock()
            await ledger.make_partitions(ahead(now))
            if months:
                for first in await ledger.drop_partitions(months_before(now, months)):
                    report(UsageDropped(f"{first:%Y-%m}"))
        except StorageAway:
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            await asyncio.sleep(EVERY_SECONDS)


def months_before(now: float, months: int) -> float:
    """The beginning of the month, in UTC, that lies so many before the present one."""
    moment = datetime.fromtimestamp(now, UTC)
    count = moment.year * 12 + moment.month - 1 - months
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC).timestamp()
