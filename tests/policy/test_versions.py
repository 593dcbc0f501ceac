"""Which table a version gets, and what may happen under it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.table import Table
from sidecar.policy.versions import Choice, choose, span

Month = tuple[int, int]


def table(since: Month, until: Month) -> Table:
    return Table(since, until, {}, {}, frozenset(), frozenset())


OLD, NEW = table((2026, 5), (2026, 8)), table((2026, 9), (2026, 11))
TABLES = [NEW, OLD]


@pytest.mark.parametrize(
    ("version", "chosen"),
    [
        ("2026.5.0", Choice(OLD, covered=True)),
        ("2026.7.31-2", Choice(OLD, covered=True)),
        ("2026.8.1", Choice(OLD, covered=False)),
        ("2026.9.6", Choice(NEW, covered=True)),
        ("2026.11.1", Choice(NEW, covered=False)),
        ("2027.1.1", Choice(NEW, covered=False)),
        ("2026.4.9", None),
        ("2025.12.1", None),
        ("", None),
        ("2026.9", None),
        ("dev", None),
    ],
)
def test_the_table_of_a_version(version: str, chosen: Choice | None) -> None:
    assert choose(TABLES, version) == choose(TABLES[::-1], version) == chosen


def test_without_tables_nobody_is_served() -> None:
    assert choose([], "2026.9.6") is None


def test_runs_need_a_table_or_the_operators_word_for_this_very_version() -> None:
    trusted = ["2026.11.1", "2026.4.9"]
    for version, runs in (
        ("2026.9.6", True),
        ("2026.11.1", True),
        ("2026.11.2", False),
        ("2026.11.1-1", False),
        ("2026.11.10", False),
        ("2026.8.1", False),
    ):
        chosen = choose(TABLES, version, trusted)
        assert chosen is not None
        assert chosen.runs is runs, version
    assert choose(TABLES, "2026.4.9", trusted) is None, "no word of the operator's makes a table"


MONTHS = st.tuples(st.integers(2026, 2028), st.integers(1, 12))


@given(st.lists(st.tuples(MONTHS, MONTHS).filter(lambda one: one[0] < one[1]), max_size=4), MONTHS)
def test_no_table_from_after_a_version_is_used(ranges: list[tuple[Month, Month]], month: Month) -> None:
    chosen = choose([table(*one) for one in ranges], f"{month[0]}.{month[1]}.0")
    if chosen is None:
        assert all(month < since for since, _ in ranges)
    else:
        assert chosen.table.since <= month
        assert chosen.runs is chosen.covered is (month < chosen.table.until)


def test_the_range_for_people() -> None:
    assert span(NEW) == "2026.9 up to, not including, 2026.11"
