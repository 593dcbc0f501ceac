"""Facts that an auditor asks for → rows of the audit log, in batches, beside the way of the frames.

Rows wait in memory while the database is away; when there are too many, the oldest go, and that is counted. A
batch may be written twice when its answer was lost, never silently left out.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.domain.audit import AuditRow
from sidecar.errors import Outage, SidecarError
from sidecar.telemetry.facts import (
    ActedAsAdmin,
    AuditDropped,
    AuditWritten,
    Denied,
    Fact,
    Report,
    SocketRefused,
    TokenRejected,
    Unexpected,
)
from sidecar.telemetry.strangers import Strangers


class AuditWriter(Protocol):
    """Where rows end up."""

    async def append_audit(self, rows: Sequence[AuditRow]) -> None:
        """Write all rows or none. Raises StorageAway while that cannot be, another SidecarError if never."""


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """`max_rows` wait at most; a batch fills for `gather_seconds`, an outage is given `retry_seconds`."""

    max_rows: int = 10_000
    batch_rows: int = 500
    gather_seconds: float = 0.5
    retry_seconds: float = 2.0
    strangers: int = 100
    strangers_seconds: float = 60.0
    """Rows about nobody who is known: so many of one action and code are kept in this time, further ones are only counted."""


def _denied(fact: Denied, at: float) -> AuditRow:
    return AuditRow(at, "denied", fact.connection_id, fact.user_id, fact.method, fact.code, fact.request_id)


def _acted_as_admin(fact: ActedAsAdmin, at: float) -> AuditRow:
    return AuditRow(at, "as_admin", fact.connection_id, fact.user_id, fact.method, fact.outcome, fact.request_id)


def _token_rejected(fact: TokenRejected, at: float) -> AuditRow:
    details = {name: word for name, word in (("issuer", fact.issuer), ("address", fact.address)) if word}
    return AuditRow(at, "token_rejected", fact.connection_id, code=fact.reason, details=details)


def _socket_refused(fact: SocketRefused, at: float) -> AuditRow | None:
    return AuditRow(at, "socket_refused", code=fact.reason, details={"address": fact.address}) if fact.denied else None


ROWS: Mapping[type[Fact], Callable[[Any, float], AuditRow | None]] = {
    Denied: _denied,
    ActedAsAdmin: _acted_as_admin,
    TokenRejected: _token_rejected,
    SocketRefused: _socket_refused,
}
"""The facts that are audited, and what becomes of each; None for one that is no denial."""


class AuditTrail:
    """A bounded queue and the one task that empties it. Rows may be added before `start` and are kept."""

    def __init__(self, report: Report, clock: Callable[[], float], options: AuditOptions | None = None) -> None:
        self._report = report
        self._clock = clock
        self._options = options or AuditOptions()
        self._strangers = Strangers(self._options.strangers, self._options.strangers_seconds)
        self._rows: deque[AuditRow] = deque()
        self._lost = 0
        self._more = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Rows that wait."""
        return len(self._rows)

    def add(self, fact: Fact) -> None:
        """Take the fact if it is one for the audit log."""
        make = ROWS.get(type(fact))
        row = make(fact, self._clock()) if make is not None else None
        if row is not None:
            if row.user_id or self._strangers.keeps(row):
                self._rows.append(row)
                self._make_room()
            self._more.set()

    def start(self, writer: AuditWriter) -> None:
        """Begin to write. Once; the task is this object's own."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(writer), name="audit")

    async def stop(self, seconds: float = 5.0) -> None:
        """Write what waits, for `seconds` at most; what is left then is counted as lost."""
        self._rows.extend(self._strangers.ended(math.inf))
        self._stopping.set()
        self._more.set()
        if self._task is not None:
            _done, late = await asyncio.wait({self._task}, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._rows:
            self._report(AuditDropped(len(self._rows), "stop"))
            self._rows.clear()

    async def _run(self, writer: AuditWriter) -> None:
        while True:
            await self._some_or_late()
            await self._pause(self._options.gather_seconds)
            self._rows.extend(self._strangers.ended(self._clock()))
            written = await self._write_batch(writer)
            self._report_lost()
            if self._stopping.is_set() and not (written and self._rows):
                return
            if not written:
                await self._pause(self._options.retry_seconds)
            elif not self._rows:
                self._more.clear()

    async def _some_or_late(self) -> None:
        """Until there is a row, or a flood has to be told of although it has ended."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._more.wait(), self._options.strangers_seconds if self._strangers else None)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not into a stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _write_batch(self, writer: AuditWriter) -> bool:
        """Write some rows; False if the database is away, and the rows wait on."""
        rows = [self._rows.popleft() for _ in range(min(len(self._rows), self._options.batch_rows))]
        if not rows:
            return True
        try:
            await writer.append_audit(rows)
        except (Outage, asyncio.CancelledError) as error:
            self._rows.extendleft(reversed(rows))
            self._make_room()
            if isinstance(error, asyncio.CancelledError):
                raise
            return False
        except SidecarError:
            self._report(AuditDropped(len(rows), "refused"))
        except Exception as error:  # noqa: BLE001 - a defect in a writer must not end the audit log for good
            self._report(Unexpected("audit", type(error).__name__))
            self._report(AuditDropped(len(rows), "refused"))
        else:
            self._report(AuditWritten(len(rows)))
        return True

    def _make_room(self) -> None:
        while len(self._rows) > self._options.max_rows:
            self._rows.popleft()
            self._lost += 1

    def _report_lost(self) -> None:
        """Once per batch, not per row: a flood of denials must not become a flood of lines."""
        if self._lost:
            self._report(AuditDropped(self._lost, "full"))
            self._lost = 0
