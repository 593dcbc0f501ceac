"""The three sinks behind one `report`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sidecar.telemetry.audit import AuditOptions, AuditTrail, AuditWriter
from sidecar.telemetry.facts import Fact, Unexpected
from sidecar.telemetry.logs import FactLog
from sidecar.telemetry.metrics import Metrics


class Telemetry:
    """Made first and stopped last; what is reported before `start` or after `stop` is logged and counted too.

    Belongs to the event loop that it is made in. `clock` gives Unix seconds.
    """

    def __init__(self, clock: Callable[[], float], audit: AuditOptions | None = None) -> None:
        self.metrics = Metrics()
        self._log = FactLog()
        self._audit = AuditTrail(self.report, clock, audit)
        self.metrics.watch_audit(self._audit.__len__)
        self._sinks: tuple[tuple[str, Callable[[Fact], None]], ...] = (
            ("metrics", self.metrics.observe),
            ("logs", self._log),
            ("audit", self._audit.add),
        )

    def report(self, fact: Fact) -> None:
        """Tell all sinks. Returns at once and never raises: telemetry must not break what it watches."""
        for name, sink in self._sinks:
            try:
                sink(fact)
            except Exception:  # noqa: BLE001 - whatever a sink fails on, the caller goes on and the others hear of it
                self.metrics.failures.labels(name).inc()

    def on_loop_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """For `loop.set_exception_handler`: asyncio's own handler would log the text of the exception."""
        exception = context.get("exception")
        self.report(Unexpected("loop", type(exception).__name__ if exception else "unknown"))

    def start(self, writer: AuditWriter) -> None:
        """Begin to write the audit log, with what was reported so far."""
        self._audit.start(writer)

    async def stop(self, seconds: float = 5.0) -> None:
        """Write the rest of the audit log, for `seconds` at most."""
        await self._audit.stop(seconds)
