"""When an agent that stands open is closed again: at once, unless somebody keeps opening it, or the gateway keeps refusing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.environments.openness import CALM_SECONDS, FIRST_PAUSE, LONGEST_PAUSE, Openness, Wanted

ALICE, BOB = "u-alice", "u-bob"


def knowing(*slugs: str) -> Openness:
    openness = Openness()
    openness.know({slug: f"/data/{slug}/workspace" for slug in slugs})
    return openness


def test_a_closed_roster_is_nothing_to_do() -> None:
    openness = knowing(ALICE)
    assert not openness.look({}, 0.0)
    assert openness.open == set()
    assert openness.due(0.0) == []
    assert openness.next_due(0.0) is None
    assert openness.members(ALICE) == ()
    openness.failed([ALICE], 0.0)
    openness.closed([ALICE], 0.0)
    assert openness.open == set()


def test_an_opened_agent_is_due_at_once_with_the_workspace_that_was_known_first() -> None:
    openness = knowing(ALICE, BOB)
    assert not openness.know({ALICE: "/data/u-bob/workspace"}), "a tampered place is no news"
    assert openness.know({"u-carol": "/data/u-carol/workspace"})
    assert openness.look({ALICE: ["tools.allow", "cwd"]}, 100.0)
    assert not openness.look({ALICE: ["cwd"]}, 101.0), "still the same agent"
    assert openness.open == {ALICE}
    assert openness.members(ALICE) == ("cwd",)
    assert openness.due(100.0) == [Wanted(ALICE, "/data/u-alice/workspace")]
    assert openness.next_due(100.0) == 0.0
    assert openness.look({}, 102.0), "somebody closed it"
    assert openness.due(102.0) == []


def test_who_opens_it_again_and_again_is_not_fought() -> None:
    openness, now, pauses = knowing(ALICE), 0.0, []
    for _ in range(12):
        openness.look({ALICE: ["tools"]}, now)
        pauses.append(openness.waits(ALICE, now))
        assert (openness.due(now) == []) == (pauses[-1] > 0)
        assert openness.next_due(now) == pauses[-1]
        now += pauses[-1]
        assert openness.due(now)
        openness.closed([ALICE], now)
        now += 1.0
    assert pauses[:4] == [0.0, FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert max(pauses) == LONGEST_PAUSE
    assert sorted(pauses) == pauses


def test_what_stayed_closed_for_long_is_closed_at_once_the_next_time() -> None:
    openness = knowing(ALICE)
    for now in (0.0, CALM_SECONDS + 1):
        openness.look({ALICE: ["tools"]}, now)
        assert openness.waits(ALICE, now) == 0.0
        openness.closed([ALICE], now)


def test_a_gateway_that_refuses_is_asked_less_and_less_often() -> None:
    openness, now = knowing(ALICE, BOB), 0.0
    openness.look({ALICE: ["tools"], BOB: ["tools"]}, now)
    openness.failed([ALICE], now)
    assert [one.slug for one in openness.due(now)] == [BOB]
    assert openness.next_due(now) == 0.0
    waits = []
    for _ in range(10):
        waits.append(openness.waits(ALICE, now))
        now += waits[-1]
        openness.failed([ALICE], now)
    assert waits[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert waits[-1] == LONGEST_PAUSE
    assert ALICE in openness.open, "and all the while it counts as open"


looks = st.lists(st.tuples(st.sets(st.sampled_from([ALICE, BOB])), st.floats(0, 2000)), max_size=30)


@given(looks)
def test_it_is_open_exactly_while_the_last_look_said_so_and_writes_stay_few(seen: list[tuple[set[str], float]]) -> None:
    openness, now, written = knowing(ALICE, BOB), 0.0, []
    for opened, passes in seen:
        now += passes
        before = openness.open
        news = openness.look({slug: ["tools"] for slug in opened}, now)
        assert openness.open == opened
        assert news == (opened != before)
        due = openness.due(now)
        assert {one.slug for one in due} <= opened
        if due:
            written.append(now)
            openness.closed([one.slug for one in due], now)
    for slug in (ALICE, BOB):
        assert openness.waits(slug, now) <= LONGEST_PAUSE
    assert len(written) <= len(seen)
