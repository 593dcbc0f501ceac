"""Turns at once against users, and calls of a model that nobody counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.doctor.load import load
from tests.doctor.looks import EXPECTED, by_id, look, mended, under

LANE = "agents.defaults.maxConcurrent"


def test_few_users_fit_and_many_wait() -> None:
    assert by_id(load(replace(EXPECTED, concurrent_runs=2), look()), "load.lane").severity == "ok"
    waiting = by_id(load(EXPECTED, look()), "load.lane")
    assert waiting.severity == "note"
    assert "8 turns" in waiting.says
    assert "3 users" in waiting.says


@pytest.mark.parametrize(("each", "lane"), [(0, 8), (8, 8), (40, 32)])
def test_one_user_who_can_fill_the_gateway_is_a_warning(each: int, lane: int) -> None:
    expected, seen = replace(EXPECTED, concurrent_runs=each), look(change=under(LANE, lane))
    finding = by_id(load(expected, seen), "load.lane")
    assert finding.severity == "warning"
    ours, theirs = finding.mends
    assert f"concurrent_runs = {max(1, lane // 4)}" in ours.lines
    if each:
        assert by_id(load(expected, mended(seen, replace(finding, mends=(theirs,)))), "load.lane").severity != "warning"


def test_a_lane_that_was_made_narrow_is_told() -> None:
    narrow = by_id(load(EXPECTED, look(change=under(LANE, 4), cpus=8)), "load.lane")
    assert "32" in narrow.says
    assert narrow.mends


@pytest.mark.parametrize("lane", [None, "many", {}])
def test_a_lane_that_is_not_told(lane: object) -> None:
    assert "does not say" in by_id(load(EXPECTED, look(change=under(LANE, lane))), "load.lane").says


def test_calls_that_no_transcript_shows_are_named() -> None:
    seen = look()
    usual = by_id(load(EXPECTED, seen), "load.unmetered")
    assert usual.severity == "note"
    for what in ("compactions", "recaps", "speech", "dreaming"):
        assert what in usual.says
    rest = by_id(load(EXPECTED, mended(seen, usual)), "load.unmetered")
    assert rest.says.endswith("count them: compactions of long sessions, titles of sessions.")
    assert not rest.mends
