"""Says when a server goes away and when it is back, once each."""

from __future__ import annotations

from collections.abc import Callable

ReportState = Callable[[str, str, str], None]
"""Takes (engine, state, why) and returns at once: `postgres` or `redis`; `up`, `away` or `restarted`; a short
reason.

The shape of the fact `EngineState`, which belongs to a sibling room.
"""


def silent(engine: str, state: str, why: str) -> None:
    """For callers that want no reports."""


class Availability:
    """Turns the outcome of every call into reports of the changes only."""

    def __init__(self, engine: str, report: ReportState) -> None:
        self._engine = engine
        self._report = report
        self._up: bool | None = None

    @property
    def up(self) -> bool:
        """Whether the last call was answered; False before the first."""
        return self._up is True

    def answered(self) -> None:
        if self._up is not True:
            self._up = True
            self._report(self._engine, "up", "")

    def away(self, why: str) -> None:
        """`why` is the type of an exception or a few fixed words, never a text that a server wrote."""
        if self._up is not False:
            self._up = False
            self._report(self._engine, "away", why)
