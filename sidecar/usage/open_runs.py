"""Runs that have begun, kept in PostgreSQL until what they took is in the ledger.

A run that somebody aborts before the first word of its answer, or whose gateway is killed, leaves no message with figures and none
without: only that it had begun, and what it was to answer. So begins are noted, and an end, or a gateway that no longer knows of
the run, makes it `over`: then its transcript is asked what it left. What is in PostgreSQL is taken up by whoever leads next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from sidecar.domain.namespace import Layout
from sidecar.domain.usage import OpenRun
from sidecar.errors import StorageAway
from sidecar.protocol.session_events import runs_named, session_named

MOST_OPEN = 10_000
MOST_OVER = 4096
LONGEST_SECONDS = 48 * 3600.0
"""After this a gateway ends a run by itself (`agents.defaults.timeoutSeconds`, 2026.9.6)."""

EARLIER_SECONDS = 5.0
"""So long before a run is said to begin its person may have spoken."""


class Book(Protocol):
    """All raise StorageAway."""

    async def open_runs(self, gateway_id: str) -> list[OpenRun]: ...

    async def note_runs(self, gateway_id: str, begun: Sequence[OpenRun], over: Sequence[str]) -> None: ...

    async def called_since(self, gateway_id: str, run_id: str, since: float) -> bool: ...


class OpenRuns:
    """Of one gateway."""

    def __init__(self, gateway_id: str, layout: Layout, book: Book, clock: Callable[[], float]) -> None:
        self._gateway_id = gateway_id
        self._layout = layout
        self._book = book
        self._clock = clock
        self._open: dict[str, OpenRun] = {}
        self._noted: set[str] = set()
        """Of those, what is in PostgreSQL."""

        self._over: dict[str, None] = {}
        """Ended, the latest last: a gateway may tell of their begin later."""

        self._gone: set[str] = set()
        """In PostgreSQL, and not to be there any more."""

    def all(self) -> list[OpenRun]:
        return list(self._open.values())

    def is_open(self, run_id: str) -> bool:
        return run_id in self._open

    async def known(self) -> list[OpenRun]:
        """Those that are open here, or where another leads, as far as one can tell."""
        there: dict[str, OpenRun] = {}
        with contextlib.suppress(StorageAway):
            there = {run.run_id: run for run in await self._book.open_runs(self._gateway_id)}
        return list((there | self._open).values())

    async def answered(self, run_id: str, since: float) -> bool:
        """Did a call of the run come into the ledger after that moment? Raises StorageAway."""
        return await self._book.called_since(self._gateway_id, run_id, since)

    @property
    def unwritten(self) -> bool:
        return bool(self._gone) or len(self._noted) < len(self._open)

    def hear(self, raw: bytes) -> list[OpenRun]:
        """Take note of an event: the runs that ended by it, and may have left no answer."""
        key = session_named(raw)
        slug = None if key is None else self._layout.slug_of(key, None)
        if key is None or slug is None:
            return []
        word = runs_named(raw, key)
        if word.starts and word.starts not in self._over and len(self._open) < MOST_OPEN:
            began = (word.at or self._clock()) - EARLIER_SECONDS
            self._open.setdefault(word.starts, OpenRun(word.starts, slug, key, began))
        ended = [self._open[run_id] for run_id in word.ends if run_id in self._open]
        if ended and not word.aborted:
            for run in ended:
                self.close(run.run_id)
            ended = []
        if word.idle:  # and of others no end is told
            ended += [run for run in self._open.values() if run.session_key == key and run not in ended]
        return ended

    def close(self, run_id: str) -> None:
        """What it took is known."""
        self._open.pop(run_id, None)
        self._over[run_id] = None
        if len(self._over) > MOST_OVER:
            del self._over[next(iter(self._over))]
        if run_id in self._noted:
            self._noted.discard(run_id)
            self._gone.add(run_id)

    async def load(self) -> None:
        """Take up what was open when somebody last led. Raises StorageAway."""
        for run in await self._book.open_runs(self._gateway_id):
            self._noted.add(run.run_id)
            self._open.setdefault(run.run_id, run)
            if self._clock() - run.began_at > LONGEST_SECONDS:
                self.close(run.run_id)

    async def write(self) -> None:
        """Have PostgreSQL know what is known here. Raises StorageAway."""
        begun = [run for run_id, run in self._open.items() if run_id not in self._noted]
        gone = tuple(self._gone)
        if not (begun or gone):
            return
        await self._book.note_runs(self._gateway_id, begun, gone)
        self._noted.update(run.run_id for run in begun)
        self._gone.difference_update(gone)
        for run in begun:  # it ended meanwhile
            if run.run_id not in self._open:
                self._noted.discard(run.run_id)
                self._gone.add(run.run_id)
