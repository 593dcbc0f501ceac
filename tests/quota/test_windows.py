"""Days and months as people in a time zone count them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.quota.windows import Window, day_at, month_at

HOUR = 3600.0


def at(zone: str, *moment: int) -> float:
    return datetime(*moment, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[arg-type, misc]


def hours(window: Window) -> float:
    return (window.ends - window.starts) / HOUR


@pytest.mark.parametrize(
    ("zone", "moment", "name", "length"),
    [
        ("UTC", (2026, 11, 27), "2026-11-27", 24),
        ("UTC", (2026, 11, 27, 23, 59, 59, 999_999), "2026-11-27", 24),
        ("UTC", (2024, 2, 29, 12), "2024-02-29", 24),
        ("Europe/Berlin", (2026, 3, 29, 12), "2026-03-29", 23),
        ("Europe/Berlin", (2026, 10, 25, 12), "2026-10-25", 25),
        ("America/Sao_Paulo", (2018, 11, 4, 12), "2018-11-04", 23),  # its clocks skipped midnight
        ("America/Havana", (2026, 11, 1, 12), "2026-11-01", 25),  # its clocks strike midnight twice
        ("Asia/Shanghai", (2026, 1, 1), "2026-01-01", 24),
        ("Pacific/Apia", (2011, 12, 29, 12), "2011-12-29", 24),  # the day after was left out
    ],
)
def test_days(zone: str, moment: tuple[int, ...], name: str, length: float) -> None:
    window = day_at(at(zone, *moment), ZoneInfo(zone))
    assert window.name == name
    assert hours(window) == length


@pytest.mark.parametrize(
    ("zone", "moment", "name", "days"),
    [
        ("UTC", (2024, 2, 29, 23), "2024-02", 29),
        ("UTC", (2026, 2, 1), "2026-02", 28),
        ("UTC", (2026, 12, 31, 23, 59, 59), "2026-12", 31),
        ("Europe/Berlin", (2026, 3, 31), "2026-03", 31 - 1 / 24),
        ("Asia/Shanghai", (2026, 11, 30, 23), "2026-11", 30),
    ],
)
def test_months(zone: str, moment: tuple[int, ...], name: str, days: float) -> None:
    window = month_at(at(zone, *moment), ZoneInfo(zone))
    assert window.name == name
    assert hours(window) == pytest.approx(days * 24)


@given(
    st.floats(0, 4e9),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo", "America/Havana", "Pacific/Apia", "Asia/Kathmandu"]),
)
def test_windows_follow_each_other_without_gap_or_overlap(moment: float, name: str) -> None:
    zone = ZoneInfo(name)
    for window_at in (day_at, month_at):
        window = window_at(moment, zone)
        assert window.starts <= moment < window.ends
        assert window_at(window.starts, zone) == window
        following = window_at(window.ends, zone)
        assert following.starts == window.ends
        assert following.name > window.name
        assert window_at(window.ends - 0.001, zone).name == window.name


def test_a_day_of_one_zone_is_not_one_of_another() -> None:
    moment = datetime(2026, 11, 27, 23, tzinfo=UTC)
    assert day_at(moment.timestamp(), ZoneInfo("Asia/Shanghai")).name == "2026-11-28"
    assert day_at((moment + timedelta(hours=1)).timestamp(), ZoneInfo("America/New_York")).name == "2026-11-27"
