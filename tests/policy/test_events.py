"""An event passes only where it names the caller's own session or agent, and nobody else's."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.events import Verdict, claimed, judge, rewrite
from sidecar.policy.own import NOTHING
from sidecar.policy.table import Passage, read_table
from sidecar.protocol.frames import Event, read_event
from tests.policy.oracle import names_foreign
from tests.policy.people import ALICE, BOB, FOREIGN_KEYS, SOURCE, TABLE
from tests.protocol.json_values import VALUES
from tests.protocol.samples import EVENTS, Sample

OWN = sorted(name for name, row in TABLE.events.items() if row.passage is Passage.OWN)
PASS = sorted(name for name, row in TABLE.events.items() if row.passage is Passage.PASS)
KEYS = [
    "agent:u-bob:main",
    "agent:u-bob:cron:7:run:1",
    "agent:u-bob:subagent:9",
    "agent:u-alice:main",
    "agent:main:main",
    "global",
    "",
    None,
]
AGENTS = ["u-bob", "u-alice", "u-bobby", "main", "U-BOB", "u-bob ", "", None]


def verdict(name: str, payload: Any) -> Verdict:
    event = read_event(orjson.dumps({"type": "event", "event": name, "payload": payload}))
    assert event is not None
    return judge(event, BOB, TABLE)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("agent", AGENTS)
def test_own(name: str, key: str | None, agent: str | None) -> None:
    payload = {name: value for name, value in (("sessionKey", key), ("agentId", agent)) if value is not None}
    theirs = (key is None or key.startswith("agent:u-bob:")) and (agent is None or agent == "u-bob")
    expected = Verdict.PASS if theirs and payload else Verdict.FOREIGN
    assert verdict(name, payload) is expected
    assert judge(Event(name, key, agent, payload), BOB, TABLE) is expected


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "agent:u-bob:main",
        7,
        {},
        {"key": "agent:u-bob:main"},
        {"data": {"sessionKey": "agent:u-bob:main"}},
        {"sessionKey": ["agent:u-bob:main"]},
        {"sessionKey": {"key": "agent:u-bob:main"}},
        {"sessionKey": "agent:u-bob:main", "agentId": 7},
        {"sessionKey": 7, "agentId": "u-bob"},
    ],
)
def test_what_does_not_say_whose_it_is_is_nobodys(name: str, payload: Any) -> None:
    assert verdict(name, payload) is Verdict.FOREIGN


@pytest.mark.parametrize("key", FOREIGN_KEYS)
def test_somebody_elses(key: str) -> None:
    for name in OWN:
        assert verdict(name, {"sessionKey": key, "agentId": "u-bob"}) is Verdict.FOREIGN


@pytest.mark.parametrize(
    "name", ["presence", "heartbeat", "portal.changed", "config.changed", "", "CHAT", "chat ", "connect.challenge"]
)
@pytest.mark.parametrize("payload", [{}, {"sessionKey": "agent:u-bob:main", "agentId": "u-bob"}])
def test_no_row_no_passage(name: str, payload: Any) -> None:
    assert verdict(name, payload) is Verdict.UNLISTED


@pytest.mark.parametrize("name", PASS)
def test_what_names_nobody_passes(name: str) -> None:
    assert verdict(name, {"ts": 1}) is Verdict.PASS


@given(VALUES)
def test_health_is_said_again(payload: Any) -> None:
    assert verdict("health", payload) is Verdict.REWRITE
    said = rewrite("health", payload, BOB, TABLE)
    assert said["defaultAgentId"] == "u-bob"
    assert said["agents"] == [{"agentId": "u-bob", "isDefault": True}]


def test_health_has_the_own_agent_alone() -> None:
    payload = {
        "ok": True,
        "ts": 1,
        "channels": {"alice": {}},
        "defaultAgentId": "u-alice",
        "agents": [
            {"agentId": "u-alice", "isDefault": True},
            {"agentId": "u-bob", "sessions": {"path": "/home/alice"}},
        ],
        "sessions": {"path": "/home/alice", "recent": [{"key": "agent:u-alice:main"}]},
    }
    said = rewrite("health", payload, BOB, TABLE)
    assert not names_foreign(said)
    assert said["agents"] == [{"agentId": "u-bob", "isDefault": True}]


@pytest.mark.parametrize("sample", [sample for sample in EVENTS if sample.frame["event"] in OWN], ids=str)
def test_real_events_reach_their_owner_alone(sample: Sample) -> None:
    raw = sample.raw.replace(b'"agent:main:', b'"agent:u-alice:').replace(b'"agentId":"main"', b'"agentId":"u-alice"')
    assert raw != sample.raw
    event = read_event(raw)
    assert event is not None
    assert judge(event, ALICE, TABLE) is Verdict.PASS
    assert judge(event, BOB, TABLE) is Verdict.FOREIGN


scopes = st.one_of(st.sampled_from([*KEYS, *AGENTS, *FOREIGN_KEYS]), VALUES)


@given(
    st.sampled_from([*OWN, "task", "x"]),
    st.dictionaries(st.sampled_from(["sessionKey", "agentId", "key", "data"]), scopes),
)
def test_a_passing_event_names_nobody_else(name: str, payload: dict[str, Any]) -> None:
    if verdict(name, payload) is not Verdict.PASS:
        return
    key, agent = payload.get("sessionKey"), payload.get("agentId")
    assert name in OWN
    assert key is None or key.startswith("agent:u-bob:")
    assert agent in {None, "u-bob"}
    assert (key, agent) != (None, None)


NESTED = read_table(
    SOURCE.replace(
        b"[events]",
        b"""[events]
"x.requested" = { own = "request", fields = ["id", "request"], learns = { approval = "id" } }
"x.changed" = { filter = "own" }
""",
        1,
    )
)
REQUESTED = {"id": "a1", "request": {"sessionKey": "agent:u-bob:main", "cwd": "/home/alice"}, "host": "alice"}


def test_an_event_whose_owner_stands_in_a_member_is_read_whole() -> None:
    event = Event("x.requested", None, None, REQUESTED)
    assert judge(event, BOB, NESTED) is Verdict.REWRITE
    assert rewrite("x.requested", REQUESTED, BOB, NESTED) == {
        "id": "a1",
        "request": {"sessionKey": "agent:u-bob:main"},
    }
    assert rewrite("x.requested", REQUESTED, ALICE, NESTED) is NOTHING
    assert NESTED.events["x.requested"].learns == {"approval": ("id",)}


@pytest.mark.parametrize(
    "payload", [None, 7, [], {}, {"request": None}, {"request": [{"agentId": "u-bob"}]}, {"id": "a"}]
)
def test_an_event_that_names_nobody_in_that_member_is_nobodys(payload: Any) -> None:
    assert rewrite("x.requested", payload, BOB, NESTED) is NOTHING


def test_an_event_is_filtered_by_its_top() -> None:
    payload = {"agentId": "u-bob", "parentSessionKey": "agent:u-alice:main", "n": 1}
    assert rewrite("x.changed", payload, BOB, NESTED) == {"agentId": "u-bob", "n": 1}
    assert rewrite("x.changed", {**payload, "sessionKey": "agent:u-alice:x"}, BOB, NESTED) is NOTHING


def test_an_event_that_names_nobody_may_be_known_by_its_id() -> None:
    payload = {"id": "q1", "status": "answered", "answers": {"q": ["yes"]}}
    assert claimed("question.resolved", payload, TABLE) == ("question", "q1")
    assert claimed("question.resolved", {"id": 7}, TABLE) is None
    assert claimed("question.resolved", None, TABLE) is None
    assert claimed("cron", payload, TABLE) is None
    assert rewrite("question.resolved", payload, BOB, TABLE) is NOTHING
    assert rewrite("question.resolved", payload, BOB, TABLE, known=True) == payload
    assert rewrite("question.resolved", {**payload, "agentId": "u-alice"}, BOB, TABLE, known=True) is NOTHING


def test_an_event_with_something_that_is_not_a_users_does_not_pass() -> None:
    asked = {"id": "q1", "sessionKey": "agent:u-bob:main", "questions": [{"id": "q"}]}
    assert rewrite("question.requested", asked, BOB, TABLE) == asked
    secret = {**asked, "questions": [{"id": "q", "secretStore": {"name": "KEY"}}]}
    assert rewrite("question.requested", secret, BOB, TABLE) is NOTHING
