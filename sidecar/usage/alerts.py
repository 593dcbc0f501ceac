"""Users are told once a period when they come near a limit, and when they are there; whichever replica sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Protocol, TypeVar

from sidecar.domain.alerts import Crossing, crossings
from sidecar.domain.quota import Figures, Limits, QuotaType
from sidecar.errors import StorageAway
from sidecar.quota.options import QuotaOptions
from sidecar.quota.windows import day_at, month_at
from sidecar.telemetry.facts import AlertRaised, Report

K = TypeVar("K")
V = TypeVar("V")
MOST_REMEMBERED = 50_000
NOTE_SECONDS = 30.0
"""What a user has used is noted for reports so often at most."""

AGAIN_SECONDS = 2.0
LOOK_SECONDS = 2.0
"""So soon a user's clients hear of what another replica saw."""

OVERLAP = 1000
"""Alerts with lower numbers than the last may come into the table after it; so many are looked at again."""


class Book(Protocol):
    """All raise StorageAway."""

    async def raise_alert(self, gateway_id: str, slug: str, crossing: Crossing, now: float) -> bool: ...

    async def last_alert(self) -> int: ...

    async def alerts_since(self, gateway_id: str, alert_id: int) -> list[tuple[int, str, Crossing]]: ...

    async def note_standing(
        self, gateway_id: str, slug: str, values: Mapping[QuotaType, tuple[Decimal, float]], now: float
    ) -> None: ...


class Alerts:
    """Of one gateway. `run()` in a task of the caller's."""

    def __init__(
        self, gateway_id: str, book: Book, options: QuotaOptions, report: Report, clock: Callable[[], float]
    ) -> None:
        self.on_alert: list[Callable[[str, Crossing], None]] = []
        """Hear (slug, crossing) of what nobody was told of before, whichever replica saw it."""

        self._gateway_id = gateway_id
        self._book = book
        self._options = options
        self._report = report
        self._clock = clock
        self._raised: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        """(slug, type, period) of what was told, to spare the database."""

        self._noted: OrderedDict[str, float] = OrderedDict()
        self._standing: OrderedDict[str, tuple[Figures, Limits]] = OrderedDict()
        self._news = asyncio.Event()
        self._raised_one = asyncio.Event()

    def stands(self, slug: str, figures: Figures, limits: Limits) -> None:
        """Hears where a user stands after each model call."""
        self._standing[slug] = figures, limits
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        since = await self._newest()
        async with asyncio.TaskGroup() as works:
            works.create_task(self._raise())
            works.create_task(self._tell(since))

    async def _newest(self) -> int:
        while True:
            with contextlib.suppress(StorageAway):
                return await self._book.last_alert()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _tell(self, since: int) -> None:
        """What comes into the table; that is how replicas tell each other."""
        told: OrderedDict[int, None] = OrderedDict()
        while True:
            try:
                for alert_id, slug, crossing in await self._book.alerts_since(self._gateway_id, since):
                    if alert_id not in told:
                        _remember(told, alert_id, None)
                        for hears in self.on_alert:
                            hears(slug, crossing)
            except StorageAway:
                pass  # later
            else:
                since = max(since, next(reversed(told), 0) - OVERLAP)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._raised_one.wait()
            self._raised_one.clear()

    async def _raise(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._standing:
                slug, (figures, limits) = next(iter(self._standing.items()))
                try:
                    await self._told(slug, figures, limits)
                except StorageAway:
                    await asyncio.sleep(AGAIN_SECONDS)  # it is told late rather than never
                    continue
                if self._standing.get(slug) == (figures, limits):
                    del self._standing[slug]

    async def _told(self, slug: str, figures: Figures, limits: Limits) -> None:
        now = self._clock()
        for crossing in crossings(figures, limits):
            key = (slug, crossing.alert_type, crossing.period)
            if key in self._raised:
                continue
            new = await self._book.raise_alert(self._gateway_id, slug, crossing, now)
            _remember(self._raised, key, None)
            if new:
                self._report(AlertRaised(self._gateway_id, crossing.alert_type))
                self._raised_one.set()
        if not 0 <= now - self._noted.get(slug, 0.0) < NOTE_SECONDS:
            day, month = day_at(now, self._options.zone).ends, month_at(now, self._options.zone).ends
            values = {
                QuotaType.DAILY_TOKENS: (figures.used.tokens, day),
                QuotaType.MONTHLY_COST: (figures.used.cost_usd, month),
                QuotaType.API_CALLS: (Decimal(figures.calls), day),
            }
            await self._book.note_standing(self._gateway_id, slug, values, now)
            _remember(self._noted, slug, now)


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MOST_REMEMBERED:
        memory.popitem(last=False)
