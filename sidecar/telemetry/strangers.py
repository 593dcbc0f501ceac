"""Audit rows about nobody who is known: anyone can cause them, so a flood of them is counted rather than kept."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.domain.audit import AuditRow


@dataclass(slots=True)
class _Window:
    until: float
    last: float = 0.0
    """When the last row came."""

    rows: int = 0


class Strangers:
    """Of one action and code, `limit` rows in `seconds` stay as they are; of those beyond, one row says how many they were.

    Actions and codes are words of ours, so there are few windows at a time.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._windows: dict[tuple[str, str], _Window] = {}

    def __bool__(self) -> bool:
        """Does any row wait to be told of?"""
        return any(window.rows > self._limit for window in self._windows.values())

    def keeps(self, row: AuditRow) -> bool:
        """Does this row stay? It counts either way."""
        window = self._windows.setdefault((row.action, row.code), _Window(row.at + self._seconds))
        window.rows, window.last = window.rows + 1, row.at
        return window.rows <= self._limit

    def ended(self, now: float) -> list[AuditRow]:
        """A row for each flood whose window is over; `now` of infinity ends all."""
        over = {key: window for key, window in self._windows.items() if window.until <= now}
        for key in over:
            del self._windows[key]
        return [
            AuditRow(
                window.last, action, code=code, details={"more": window.rows - self._limit, "seconds": self._seconds}
            )
            for (action, code), window in over.items()
            if window.rows > self._limit
        ]
