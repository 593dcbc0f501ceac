"""Which users' agents stand open in a gateway's configuration, and when to close them again. No I/O; the clock is an argument.

    closed ──somebody changes the entry──► open, due at once ──written──► closed
                                             │    ▲
                            opened again soon, or the gateway refuses: due later, up to `LONGEST_PAUSE`

While an agent is open none of its runs starts. Who keeps opening it is not fought: the pauses grow, and the refusals stay.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 600.0
CALM_SECONDS = 900.0
"""An agent that stayed closed for so long has no history: the next time it is closed at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One user's agent."""

    slug: str
    workspace: str


@dataclass(slots=True)
class _Case:
    """What happened to one agent."""

    members: tuple[str, ...] = ()
    """What of its entry differs; empty while it is closed."""

    attempts: int = 0
    due: float = -math.inf
    closed_at: float = -math.inf


@dataclass(slots=True)
class Openness:
    """Of one gateway. Times are seconds of one clock."""

    known: dict[str, str] = field(default_factory=dict)
    """Every user's agent that was ever seen or asked for: slug → its right workspace."""

    _cases: dict[str, _Case] = field(default_factory=dict)

    def know(self, wanted: Mapping[str, str]) -> bool:
        """These are users' agents; True where one of them is news. What was known of one stays."""
        before = len(self.known)
        self.known = {**wanted, **self.known}
        return len(self.known) != before

    def look(self, opened: Mapping[str, Iterable[str]], now: float) -> bool:
        """Take in what stands open now, of those that are known: slug → members. True where that is news."""
        before = self.open
        for slug in before - set(opened):
            self.closed([slug], now)
        for slug, members in opened.items():
            case = self._cases.setdefault(slug, _Case())
            if not case.members:
                case.attempts = case.attempts + 1 if now - case.closed_at < CALM_SECONDS else 0
                case.due = now + _pause(case.attempts)
            case.members = tuple(members)
        return self.open != before

    def closed(self, slugs: Iterable[str], now: float) -> None:
        """They were written as they should be, or found so."""
        for slug in slugs:
            case = self._cases.get(slug)
            if case is not None and case.members:
                case.members, case.closed_at = (), now

    def failed(self, slugs: Iterable[str], now: float) -> None:
        """They could not be written."""
        for slug in slugs:
            case = self._cases.get(slug)
            if case is not None:
                case.attempts += 1
                case.due = now + _pause(case.attempts)

    @property
    def open(self) -> set[str]:
        return {slug for slug, case in self._cases.items() if case.members}

    def members(self, slug: str) -> Collection[str]:
        """What of an open agent's entry differs; empty for a closed one."""
        case = self._cases.get(slug)
        return case.members if case else ()

    def waits(self, slug: str, now: float) -> float:
        """Seconds until an open agent is due; 0 where it is, or is closed."""
        case = self._cases.get(slug)
        return max(0.0, case.due - now) if case and case.members else 0.0

    def due(self, now: float) -> list[Wanted]:
        """The open agents that may be written now."""
        return [Wanted(slug, self.known[slug]) for slug in sorted(self.open) if not self.waits(slug, now)]

    def next_due(self, now: float) -> float | None:
        """Seconds until the next open agent is due; None where there is none."""
        return min((self.waits(slug, now) for slug in self.open), default=None)


def _pause(attempts: int) -> float:
    return min(FIRST_PAUSE * 2.0 ** min(attempts - 1, 16), LONGEST_PAUSE) if attempts else 0.0
