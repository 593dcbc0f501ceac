"""Runs that end without a word: the call that they were in is estimated by what it was to answer (`usage.open_runs`).

aborted ──────────────────────────────────┐
gateway or leader away, lives no more ────┼─► transcript: what was left unanswered? ─► estimate
session emptied under it ─────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from sidecar.domain.usage import ModelCall, OpenRun
from sidecar.errors import GatewayAway, StorageAway
from sidecar.protocol.session_events import OF_A_JOB
from sidecar.usage.open_runs import OpenRuns
from sidecar.usage.transcripts import Transcripts

LAST_WORDS_SECONDS = 3.0
"""After an abort a gateway has written down the answer's words by then; its end is told before."""

SETTLE_SECONDS = 10.0
"""A run that is heard of lives, though its gateway does not list it before this."""

FOLLOWED_SECONDS = 60.0
"""Whoever leads has dealt with the end of a run by then."""

AGAIN_SECONDS = 2.0


class Flushed(Protocol):
    async def flushed(self) -> bool: ...


class Endings:
    """Of one gateway. `works` run in tasks of the leader's."""

    def __init__(
        self, transcripts: Transcripts, runs: OpenRuns, writer: Flushed, add: Callable[[ModelCall], None]
    ) -> None:
        self.on_dead: list[Callable[[str, str], None]] = []
        """Hear of slug and run id where a run ended and nobody was there to hear it."""

        self.works = (self._close_aborted, self._close_dead, self._note_runs)
        self._transcripts = transcripts
        self._runs = runs
        self._writer = writer
        self._add = add
        self._aborted: asyncio.Queue[tuple[OpenRun, float]] = asyncio.Queue()
        self._gap = asyncio.Event()
        self._later: set[asyncio.Task[None]] = set()
        self._unnoted = asyncio.Event()
        """PostgreSQL does not know what is known here of open runs."""

    def hear(self, raw: bytes, *, leads: bool) -> None:
        """Take note of an event. Who follows does so too, to know what runs if the leader dies."""
        for run in self._runs.hear(raw):
            if leads:
                self._aborted.put_nowait((run, time.monotonic()))
            else:
                asyncio.get_running_loop().call_later(FOLLOWED_SECONDS, self._runs.close, run.run_id)
        if self._runs.unwritten:
            self._unnoted.set()

    def missed(self) -> None:
        """Ends of runs may have been told while nobody heard."""
        self._gap.set()

    @contextlib.asynccontextmanager
    async def emptying(self, key: str) -> AsyncIterator[None]:
        """A session is emptied, or deleted: what breaks off by it leaves no trace, so it is estimated by what is there before."""
        runs = await self._open_in(key)
        calls = [(run, call) for run in runs if (call := await self._unanswered(run)) is not None]
        yield
        for run, call in calls:
            task = asyncio.create_task(self._add_unless_answered(run, call))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    async def _open_in(self, key: str) -> list[OpenRun]:
        return [run for run in await self._runs.known() if run.session_key == key]

    async def _add_unless_answered(self, run: OpenRun, call: ModelCall) -> None:
        await asyncio.sleep(LAST_WORDS_SECONDS)
        with contextlib.suppress(GatewayAway, StorageAway):
            over, _ = await self._transcripts.dead(run.slug, [run])
            if not over:  # it went on, and its answer comes with figures
                return
            await self._writer.flushed()
            if await self._runs.answered(call.run_id, call.at):
                return
        self._add(call)

    async def _close_aborted(self) -> None:
        """Runs that somebody aborted, once the gateway has written down what there was of an answer; until cancelled."""
        while True:
            run, since = await self._aborted.get()
            await asyncio.sleep(max(0.0, since + LAST_WORDS_SECONDS - time.monotonic()))
            try:
                await self._close(run)
            except (GatewayAway, StorageAway):  # it is still open, and dead
                self._gap.set()

    async def _close_dead(self) -> None:
        """Runs that were open when the gateway or the last leader went away, and that live no more; until cancelled."""
        while True:
            await self._gap.wait()
            self._gap.clear()
            try:
                await self._runs.load()
                suspects = [run for run in self._runs.all() if OF_A_JOB not in run.session_key]
                await asyncio.sleep(SETTLE_SECONDS if suspects else 0)
                for slug in {run.slug for run in suspects}:
                    mine = [run for run in suspects if run.slug == slug and self._runs.is_open(run.run_id)]
                    dead, certain = await self._transcripts.dead(slug, mine)
                    for run in dead:
                        await self._close(run)
                        for told in self.on_dead:
                            told(run.slug, run.run_id)
                    if not certain:
                        self._gap.set()
            except (GatewayAway, StorageAway):
                await asyncio.sleep(AGAIN_SECONDS)
                self._gap.set()

    async def _close(self, run: OpenRun) -> None:
        """Write down what it was doing, if it is not done. Raises GatewayAway, StorageAway."""
        if not self._runs.is_open(run.run_id):
            return
        if (call := await self._unanswered(run)) is not None:
            self._add(call)
            await self._writer.flushed()
        self._runs.close(run.run_id)
        self._unnoted.set()

    async def _unanswered(self, run: OpenRun) -> ModelCall | None:
        said = await self._transcripts.left_by(run)
        return None if said is None else await self._transcripts.estimated(run.session_key, said)

    async def _note_runs(self) -> None:
        """Until cancelled."""
        while True:
            await self._unnoted.wait()
            self._unnoted.clear()
            try:
                await self._runs.write()
            except StorageAway:
                await asyncio.sleep(AGAIN_SECONDS)
                self._unnoted.set()
