"""Model calls of one gateway, from its transcripts into the ledger, whoever is connected.

    sessions.subscribe ─► session.message ─► whose agent? ─► price ─► writer
    sessions.list, chat.history ─► the same, for what nobody heard: at the start, after each gap, every few minutes

One sidecar of several leads, by a lease in Redis, and only to save work: the ledger takes each call once, whoever saw it. So while
Redis is away everybody leads. Usage is collected here and from no user's socket: a run goes on, and costs, after its client has
left; jobs, heartbeats and sub-agents cost without any client.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.domain.usage import ModelCall
from sidecar.errors import GatewayAway, SidecarError, StorageAway
from sidecar.protocol import usage
from sidecar.protocol.usage import Reported, Unfinished
from sidecar.telemetry.facts import BackFilled, CollectorState, Report
from sidecar.usage.endings import Endings
from sidecar.usage.open_runs import OpenRuns
from sidecar.usage.transcripts import Transcripts

LEASE_MS = 6_000
"""A leader that died is replaced within this."""

METERED_MS = 30_000
"""So long a gateway counts as metered after its collector was last seen at work; then what starts runs would be settled late."""

ASK_SECONDS = 1.0
READ_SECONDS = 300.0
"""So often transcripts are read although nothing is known to be missing: a gateway may leave out events for who is slow."""

AGAIN_SECONDS = 2.0
OVERLAP_SECONDS = 120.0
"""What changed so long before the last reading began is read again: clocks, and rows that move while they are paged through."""


class Leases(Protocol):
    async def acquire(self, name: str, owner: str, ttl_ms: int) -> bool: ...

    async def release(self, name: str, owner: str) -> bool: ...

    async def is_held(self, name: str) -> bool: ...


class Watermarks(Protocol):
    async def read_until(self, gateway_id: str) -> float | None: ...

    async def set_read_until(self, gateway_id: str, until: float) -> None: ...


class CallWriter(Protocol):
    def add(self, calls: Sequence[ModelCall]) -> None: ...

    async def flushed(self) -> bool: ...


class Accounts(Protocol):
    """`settle` hears of calls as they happen or are read again, before they are in the ledger; it counts each once."""

    def settle(self, call: ModelCall) -> None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What a collector needs of other rooms."""

    leases: Leases
    watermarks: Watermarks
    writer: CallWriter
    accounts: Accounts
    transcripts: Transcripts
    open_runs: OpenRuns


class Collector:
    """`run()` in a task of the caller's; `hear` gets every event of the sidecar's own connection, in order."""

    def __init__(
        self,
        gateway_id: str,
        ports: Ports,
        report: Report,
        owner: str,
    ) -> None:
        self._gateway_id = gateway_id
        self._ports = ports
        self._report = report
        self._owner = owner
        self._lease = f"gw:{gateway_id}:collector"
        self._metered = f"gw:{gateway_id}:metered"
        self._metered_until = 0.0
        self._state = ""
        self._leads = False
        self._listening = False
        self._unread = asyncio.Event()
        """Something may have been said that nobody heard."""

        self._unfinished: asyncio.Queue[tuple[str, Unfinished | str]] = asyncio.Queue()
        """Answers without figures, and ids of messages that the gateway does not show."""

        self.endings = Endings(ports.transcripts, ports.open_runs, ports.writer, self._add)

    async def metered(self) -> bool:
        """Does somebody collect here, or did so `METERED_MS` ago? Raises StorageAway."""
        now = time.monotonic()
        if not (self._leads and self._listening) and now >= self._metered_until:
            if not await self._ports.leases.is_held(self._metered):
                return False
            self._metered_until = now + ASK_SECONDS
        return True

    def hear(self, raw: bytes) -> None:
        """Take note of an event."""
        if self._leads and (said := usage.heard(raw)) is not None:
            self._take(*said)
        else:
            if self._leads and (hidden := usage.unshown(raw)) is not None:
                self._unfinished.put_nowait(hidden)
            self.endings.hear(raw, leads=self._leads)

    def listens(self) -> None:
        """The connection hears of all sessions from now on; what was said before is to be read."""
        self._listening = True
        self._unread.set()
        self.endings.missed()

    def lost(self) -> None:
        """The connection is gone."""
        self._listening = False

    async def run(self) -> None:
        """Lead whenever nobody else does, until cancelled."""
        try:
            while True:
                self._leads = await self._may_lead()
                if not self._leads:
                    self._is("following")
                    await asyncio.sleep(LEASE_MS / 3000)
                    continue
                self._unread.set()
                self.endings.missed()
                await self._lead()
        finally:
            if self._leads:
                self._leads = False
                with contextlib.suppress(SidecarError, TimeoutError):
                    async with asyncio.timeout(1):
                        await self._ports.leases.release(self._lease, self._owner)

    @contextlib.asynccontextmanager
    async def emptying(self, key: str) -> AsyncIterator[None]:
        """A session is emptied, or deleted: have what its transcript tells in the ledger before, or in its spool.

        A call that is broken off by it leaves no trace afterwards, so it is estimated by what is there before. Raises GatewayAway;
        StorageAway where an estimate needs the ledger.
        """
        since = 0.0
        with contextlib.suppress(StorageAway):  # then all of it is read
            since = await self._ports.watermarks.read_until(self._gateway_id) or 0.0
        await self._read(key, since - OVERLAP_SECONDS)
        await self._ports.writer.flushed()
        async with self.endings.emptying(key):
            yield

    async def _say_metered(self) -> None:
        if self._listening:
            with contextlib.suppress(StorageAway):
                await self._ports.leases.acquire(self._metered, "collector", METERED_MS)

    async def _may_lead(self) -> bool:
        try:
            return await self._ports.leases.acquire(self._lease, self._owner, LEASE_MS)
        except StorageAway:
            return True

    async def _lead(self) -> None:
        """Until another leads."""
        works = (self._read_again_and_again, self._finish, *self.endings.works)
        tasks = {asyncio.create_task(work()) for work in works}
        try:
            while await self._may_lead():
                await self._say_metered()
                done, _ = await asyncio.wait(tasks, timeout=LEASE_MS / 3000, return_when=asyncio.FIRST_COMPLETED)
                for ended in done:
                    ended.result()
            self._leads = False
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_again_and_again(self) -> None:
        while True:
            if not self._listening:
                self._is("away")
                await self._unread.wait()
                self._unread.clear()
                continue
            self._unread.clear()
            self._is("reading")
            try:
                await self._read_all()
            except (GatewayAway, StorageAway):
                self._unread.set()
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self._is("leading")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_SECONDS):
                    await self._unread.wait()

    async def _read_all(self) -> None:
        """Read what changed since the last reading began, by the gateway's clock. Raises GatewayAway, StorageAway."""
        began = time.monotonic()
        last = await self._ports.watermarks.read_until(self._gateway_id)
        since = (last or 0.0) - OVERLAP_SECONDS
        keys, newest = await self._ports.transcripts.changed(since)
        for key in keys:
            await self._read(key, since)
        if await self._ports.writer.flushed() and newest:
            await self._ports.watermarks.set_read_until(self._gateway_id, newest)
        self._report(BackFilled(self._gateway_id, len(keys), time.monotonic() - began))

    async def _read(self, key: str, since: float) -> None:
        """What is new to the ledger counts when it is there; what is young may be in it already, and not have been counted."""
        async for calls in self._ports.transcripts.calls(key, since):
            self._ports.writer.add(calls)
            for call in calls:
                self._ports.accounts.settle(call)

    def _take(self, key: str, said: Reported | Unfinished) -> None:
        """What was heard as it happened counts at once; the ledger has it a moment later."""
        if isinstance(said, Unfinished):
            self._unfinished.put_nowait((key, said))
        elif (call := self._ports.transcripts.call(key, said)) is not None:
            self._ports.transcripts.estimates.saw(call)
            self._add(call)

    def _add(self, call: ModelCall) -> None:
        self._ports.writer.add([call])
        self._ports.accounts.settle(call)

    async def _finish(self) -> None:
        """Look up and estimate what was not heard whole, until cancelled."""
        transcripts = self._ports.transcripts
        while True:
            key, heard = await self._unfinished.get()
            try:
                said = await transcripts.unshown(key, heard) if isinstance(heard, str) else heard
                if isinstance(said, Reported):
                    self._take(key, said)
                elif said is not None and (call := await transcripts.estimated(key, said)) is not None:
                    self._add(call)
            except (GatewayAway, StorageAway):  # read again from the transcript, once they are back
                self._unread.set()

    def _is(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._report(CollectorState(self._gateway_id, state))
