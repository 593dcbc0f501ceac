"""The days and months in which quotas are counted, in the operator's time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Window:
    """From `starts` up to, but not with, `ends`: Unix seconds. Its name is unique among days and months."""

    name: str
    """`2026-11-27` or `2026-11`, as people in the time zone write it."""

    starts: float
    ends: float


def day_at(at: float, zone: ZoneInfo) -> Window:
    """The day that holds the moment `at`. Where clocks change it has 23 or 25 hours."""
    day = datetime.fromtimestamp(at, zone).date()
    return Window(day.isoformat(), _start(day, zone), _start(day + timedelta(days=1), zone))


def month_at(at: float, zone: ZoneInfo) -> Window:
    """The month that holds the moment `at`."""
    first = datetime.fromtimestamp(at, zone).date().replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return Window(f"{first:%Y-%m}", _start(first, zone), _start(following, zone))


def _start(day: date, zone: ZoneInfo) -> float:
    """The first moment of a day. Where clocks skip midnight, as some do, the moment at which they do so."""
    return datetime.combine(day, time(), zone).timestamp()
