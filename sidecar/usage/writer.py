"""Model calls on their way into the ledger: in batches, through a spool on disk while PostgreSQL is away.

    add ─► queue ─► ledger
               │ away
               └──► spool (fsync) ─► ledger, once it is back, before anything newer

A call may be written twice, by us or by another replica: the ledger takes each once. A call is forgotten only when it is in the
ledger or in the spool; what was in the queue at a `kill -9` is read again from the gateway's transcript (`usage.collector`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import ParamSpec, Protocol, TypeVar

from sidecar.domain.usage import ModelCall
from sidecar.errors import Outage, SidecarError
from sidecar.telemetry.facts import Report, UsageLost, UsageSpooled, UsageWritten
from sidecar.usage.lines import from_line, to_line

P = ParamSpec("P")
T = TypeVar("T")

BATCH = 500
GATHER_SECONDS = 0.05
AGAIN_SECONDS = 1.0
LAST_SECONDS = 5.0
"""For the queue at the end, before it goes to the spool."""


class LedgerStore(Protocol):
    async def append(self, calls: Sequence[ModelCall]) -> set[tuple[str, str]]:
        """Write those that are new: their keys. Raises StorageAway while that cannot be, another SidecarError if never."""


class SpoolStore(Protocol):
    """Blocks; `append` raises OverflowError where there is no room."""

    @property
    def size(self) -> int: ...

    def append(self, lines: Sequence[bytes]) -> None: ...

    def batches(self, most: int) -> Iterator[list[bytes]]: ...

    def settle(self) -> None: ...


class Writer:
    """`run()` in a task of the caller's."""

    def __init__(self, ledger: LedgerStore, spool: SpoolStore, report: Report) -> None:
        self._ledger = ledger
        self._spool = spool
        self._report = report
        self._queue: deque[ModelCall] = deque()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.on_recorded: list[Callable[[Sequence[ModelCall]], None]] = []
        """Hear of calls that are in the ledger now, and were not before."""

        self._lost = 0
        self._dirty = spool.size > 0
        """Something waits in the spool."""

    def add(self, calls: Sequence[ModelCall]) -> None:
        self._queue.extend(calls)
        if self._queue:
            self._idle.clear()
            self._more.set()

    async def flushed(self) -> bool:
        """Wait until all that was added is in the ledger, or in the spool: True where it is in the ledger, and nothing was lost."""
        lost = self._lost
        await self._idle.wait()
        return not self._dirty and self._lost == lost

    async def run(self) -> None:
        """Until cancelled; then what is left goes to the ledger or to the spool."""
        try:
            while True:
                await self._turn()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    while self._queue and not self._dirty:
                        await self._batch()
            while self._queue:
                await self._to_spool()

    async def _turn(self) -> None:
        if self._dirty and not await self._drained():
            while self._queue:
                await self._to_spool()
            self._idle.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._more.wait()
            self._more.clear()
            return
        if not self._queue:
            self._idle.set()
            await self._more.wait()
            await asyncio.sleep(GATHER_SECONDS)
        self._more.clear()
        await self._batch()

    async def _batch(self) -> None:
        """Some of the queue into the ledger; where that is away, into the spool."""
        batch = [self._queue[at] for at in range(min(BATCH, len(self._queue)))]
        if await self._appended(batch):
            for _ in batch:
                self._queue.popleft()
        else:
            await self._to_spool()

    async def _drained(self) -> bool:
        """All of the spool into the ledger; False while that is away."""
        batches, unreadable = self._spool.batches(BATCH), 0
        while lines := await _whole(next, batches, None):
            calls = []
            for line in lines:
                try:
                    calls.append(from_line(line))
                except ValueError:
                    unreadable += 1
            if not await self._appended(calls):
                return False
        await _whole(self._spool.settle)
        if unreadable:
            self._report(UsageLost(unreadable, "unreadable"))
        self._dirty = False
        self._report(UsageSpooled(0, 0))
        return True

    async def _appended(self, calls: Sequence[ModelCall]) -> bool:
        """False where the ledger is away. A call that it refuses for good is dropped, and told."""
        try:
            new = await self._ledger.append(calls)
        except Outage:
            return False
        except SidecarError:
            if len(calls) == 1:
                self._report(UsageLost(1, "refused"))
                return True
            return all([await self._appended(half) for half in (calls[: len(calls) // 2], calls[len(calls) // 2 :])])
        fresh = {key: call for call in calls if (key := (call.gateway_id, call.call_id)) in new}
        for call in fresh.values():
            self._report(UsageWritten(call.gateway_id, call.source.value, call.tokens.total))
        for recorded in self.on_recorded:
            recorded(list(fresh.values()))
        return True

    async def _to_spool(self) -> None:
        batch = [self._queue[at] for at in range(min(BATCH, len(self._queue)))]
        if not batch:
            return
        try:
            await _whole(self._spool.append, [to_line(call) for call in batch])
        except OverflowError:
            self._lost += len(batch)
            self._report(UsageLost(len(batch), "full"))
        else:
            self._dirty = True
            self._report(UsageSpooled(len(batch), self._spool.size))
        for _ in batch:
            self._queue.popleft()


async def _whole(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """`work` in a thread, waited for also by who is cancelled: one call at a time is on the disk."""
    task = asyncio.create_task(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
