"""Where one agent is everybody's: what acts on it is closed, what is left out is set, and nothing counts over others' sessions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.namespace import Layout
from sidecar.errors import ForeignKey, MalformedFrame, MethodRefused
from sidecar.policy.events import Verdict, judge
from sidecar.policy.own import NOTHING, own
from sidecar.policy.requests import Forward, Patched, decide
from sidecar.policy.responses import FILTERS
from sidecar.policy.rules import Rule
from sidecar.policy.shared import closed_in_shared_agent, is_open
from sidecar.policy.table import MethodRow, PolicyError, read_table
from sidecar.protocol.frames import UNREAD, Event
from sidecar.protocol.handshake import own_health
from tests.policy.people import FOREIGN_KEYS, ODD_KEYS, OWN_KEYS, TABLE

SHARED = Layout("shared")
BOB = SHARED.namespace("example|bob", "u-bob", frozenset({"bob", "example|bob", "u-bob"}))
HERS = "agent:shared:user:u-alice:main"
ROWS = """
[gateway]
since = "2026.8"
until = "2026.10"
[commands]
allowed = []
closed = []
[events]
chat = "own"
[methods."agents.files.set"]
force = { agentId = "agent" }
params = { name = "path", content = "pass" }
[methods."nested.files"]
params = { target = { agentId = "agent" } }
[methods."nested.sessions"]

[methods."nested.sessions".params]
targets = [{ key = "existing-key", agentId = "agent" }]
within = { deep = { key = "existing-key", agentId = "agent" } }
[methods."models.list"]
force = { agentId = "agent" }
params = { sessionKey = "existing-key" }
[methods."sessions.search"]
force = { agentId = "agent" }
params = { sessionKeys = "existing-keys", query = "pass" }
[methods."sessions.create"]
force = { agentId = "agent" }
params = { key = "key", parentSessionKey = "existing-key", label = "pass" }
[methods."sessions.list"]
response = "session-rows"
force = { agentId = "agent" }
params = { search = "pass", limit = "pass", spawnedBy = "existing-key", label = "pass" }
[methods."agents.list"]
response = "own-agent"
[methods."agents.one"]
response = "own-agent"
force = { agentId = "agent" }
[methods."cron.add"]
scope = "agent"
params = { sessionKey = "existing-key", agentId = "agent" }
[methods."commands.list"]
scope = "settings"
force = { agentId = "agent" }
params = { sessionKey = "existing-key" }
[methods."sessions.resolve"]
force = { agentId = "agent" }
params = { key = "existing-key", spawnedBy = "existing-key", sessionId = "pass", label = "pass" }
[methods."sessions.abort"]
params = { key = "existing-key", agentId = "agent", runId = "pass" }
[methods."sessions.patchMany"]
params = { targets = [{ key = "existing-key" }], patch = { label = "pass", pinned = "pass" } }
[methods."cron.list"]
answer = { jobs = [] }
params = { agentId = "agent" }
[methods."sessions.history"]
params = { key = "existing-key" }
[methods.health]
"""
SMALL = read_table(ROWS.encode())


def asked(method: str, **params: Any) -> dict[str, Any]:
    decided = decide(method, params, BOB, SMALL, new_id=lambda: "new")
    assert isinstance(decided, Forward)
    return decided.params


def test_what_acts_on_an_agent_alone_is_closed() -> None:
    closed = {name for name, row in SMALL.methods.items() if closed_in_shared_agent(row)}
    assert closed == {"agents.files.set", "nested.files", "cron.add"}
    bobs = Layout().namespace("example|bob", "u-bob")
    for name, row in SMALL.methods.items():
        assert is_open(row, BOB) is (name not in closed)
        assert is_open(row, bobs), "with an agent each nothing is closed by this"


@pytest.mark.parametrize("method", ["agents.files.set", "nested.files", "cron.add"])
def test_and_refused_by_a_name_of_its_own(method: str) -> None:
    with pytest.raises(MethodRefused) as refused:
        asked(method)
    assert refused.value.detail_code == "AGENT_SHARED"
    assert method in refused.value.message


@pytest.mark.parametrize(
    ("method", "params", "sent"),
    [
        ("models.list", {}, {"agentId": "shared", "sessionKey": BOB.main}),
        ("models.list", {"sessionKey": "notes"}, {"agentId": "shared", "sessionKey": BOB.prefix + "notes"}),
        ("sessions.search", {"query": "x"}, {"agentId": "shared", "query": "x", "sessionKeys": [BOB.main]}),
        ("sessions.search", {"sessionKeys": ["a"]}, {"agentId": "shared", "sessionKeys": [BOB.prefix + "a"]}),
        ("sessions.create", {}, {"agentId": "shared", "key": BOB.prefix + "dashboard:new"}),
        (
            "sessions.create",
            {"parentSessionKey": "main"},
            {"agentId": "shared", "key": BOB.prefix + "dashboard:new", "parentSessionKey": BOB.main},
        ),
        ("sessions.create", {"key": "x", "label": ""}, {"agentId": "shared", "key": BOB.prefix + "x", "label": ""}),
        ("sessions.list", {"limit": 2}, {"agentId": "shared", "limit": 2, "search": BOB.prefix}),
        ("sessions.list", {"search": "", "label": "own"}, {"agentId": "shared", "search": BOB.prefix, "label": "own"}),
        ("sessions.history", {}, {}),
        ("agents.list", {}, {}),
        ("agents.one", {}, {"agentId": "shared"}),
        ("commands.list", {}, {"agentId": "shared"}),
        ("sessions.resolve", {"sessionId": "x"}, {"agentId": "shared", "sessionId": "x", "key": BOB.main}),
        ("sessions.resolve", {"spawnedBy": "a"}, {"agentId": "shared", "spawnedBy": BOB.prefix + "a", "key": BOB.main}),
        ("sessions.abort", {"runId": "x"}, {"runId": "x"}),
        ("sessions.abort", {"agentId": "shared"}, {"agentId": "shared", "key": BOB.main}),
        ("sessions.search", {"sessionKeys": []}, {"agentId": "shared", "sessionKeys": [BOB.main]}),
        (
            "sessions.patchMany",
            {"targets": [{"key": "a"}], "patch": {"pinned": True}},
            {"targets": [{"key": BOB.prefix + "a"}], "patch": {"pinned": True}},
        ),
        ("health", {}, {}),
        ("nested.sessions", {"targets": [{"key": "a"}]}, {"targets": [{"key": BOB.prefix + "a"}]}),
        (
            "nested.sessions",
            {"within": {"deep": {"key": "a", "agentId": ""}}},
            {"within": {"deep": {"key": BOB.prefix + "a", "agentId": "shared"}}},
        ),
    ],
)
def test_what_is_left_out_is_set(method: str, params: dict[str, Any], sent: dict[str, Any]) -> None:
    assert asked(method, **params) == sent


@pytest.mark.parametrize(
    "params", [{"targets": [{"key": "a"}, {"agentId": "shared"}]}, {"within": {"deep": {"agentId": "main"}}}]
)
def test_an_agent_alone_within_an_object_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(MethodRefused) as refused:
        asked("nested.sessions", **params)
    assert refused.value.detail_code == "AGENT_SHARED"


@pytest.mark.parametrize("named", ["shared", "main", "", " SHARED "])
def test_the_shared_agent_may_be_named(named: str) -> None:
    assert asked("models.list", agentId=named)["agentId"] == "shared"


@pytest.mark.parametrize("named", ["u-bob", "u-alice", "other", "shared\u200b"])
def test_no_other_agent_may(named: str) -> None:
    with pytest.raises(ForeignKey):
        asked("models.list", agentId=named)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sessions.list", {"search": "secret"}),
        ("sessions.create", {"label": "taken?"}),
        ("sessions.resolve", {"key": "main", "label": "taken?"}),
        ("sessions.patchMany", {"targets": [{"key": "main"}], "patch": {"label": "taken?"}}),
    ],
)
def test_what_would_tell_of_others_sessions_is_refused(method: str, params: dict[str, Any]) -> None:
    with pytest.raises(MethodRefused) as refused:
        asked(method, **params)
    assert refused.value.detail_code == "AGENT_SHARED"


def test_a_scope_is_one_of_two_words() -> None:
    with pytest.raises(PolicyError, match="scope"):
        read_table(ROWS.replace('scope = "agent"', 'scope = "everybody"').encode())


keys = st.sampled_from(
    [*OWN_KEYS, *FOREIGN_KEYS, *ODD_KEYS, HERS, "agent:shared:cron:1", "agent:shared:subagent:x", BOB.main]
)


@given(st.sampled_from(sorted(TABLE.methods)), st.data())
def test_whatever_goes_on_names_the_users_own_corner(method: str, data: st.DataObject) -> None:
    row = TABLE.methods[method]
    values = {
        Rule.KEY: keys,
        Rule.EXISTING_KEY: keys,
        Rule.EXISTING_KEYS: st.lists(keys, max_size=3),
        Rule.AGENT: st.sampled_from(["shared", "main", "u-bob", "u-alice", ""]),
    }
    named = {name: rule for name, rule in row.params.items() if isinstance(rule, Rule) and rule in values}
    chosen = data.draw(st.lists(st.sampled_from(sorted(named)), unique=True)) if named else []
    params = {name: data.draw(values[Rule(named[name])]) for name in chosen}
    try:
        decided = decide(method, params, BOB, TABLE, new_id=lambda: "new")
    except (ForeignKey, MalformedFrame, MethodRefused):
        return
    if not isinstance(decided, Forward):
        return
    for name, rule in named.items():
        sent = decided.params.get(name)
        for one in sent if isinstance(sent, list) else [sent]:
            assert one is None or (one == "shared" if rule is Rule.AGENT else BOB.owns(one))
    if "agentId" in decided.params and row.response not in {"session-rows", "own-agent"} and row.scope != "settings":
        assert any(rule is not Rule.AGENT and decided.params.get(name) for name, rule in named.items())


def test_every_run_works_where_the_patched_gateway_is_told() -> None:
    patched = Patched("/data/u-bob/workspace", "user-bob-anthropic")
    starting = [name for name, row in TABLE.methods.items() if row.starts_run]
    assert {"agent", "chat.send"} <= set(starting)
    for name in starting:
        given = {"workspaceDir": "/data/u-alice/workspace", **dict.fromkeys(TABLE.methods[name].starts_when[:1], "hi")}
        decided = decide(name, given, BOB, TABLE, new_id=lambda: "new", patched=patched)
        assert isinstance(decided, Forward)
        assert (decided.params["workspaceDir"], decided.params["authProfileId"]) == (
            "/data/u-bob/workspace",
            "user-bob-anthropic",
        )


def event(key: str | None, agent_id: str | None) -> Event:
    return Event("chat", key, agent_id, UNREAD)


@pytest.mark.parametrize(
    ("key", "agent_id", "verdict"),
    [
        (BOB.main, "shared", Verdict.PASS),
        (BOB.main, None, Verdict.PASS),
        (BOB.main, "u-bob", Verdict.FOREIGN),
        (HERS, "shared", Verdict.FOREIGN),
        ("agent:shared:main", "shared", Verdict.FOREIGN),
        ("agent:shared:subagent:3f2b", "shared", Verdict.FOREIGN),
        (None, "shared", Verdict.FOREIGN),
        (None, "u-bob", Verdict.FOREIGN),
        ("", "shared", Verdict.FOREIGN),
    ],
)
def test_events_are_their_sessions(key: str | None, agent_id: str | None, verdict: Verdict) -> None:
    assert judge(event(key, agent_id), BOB, TABLE) is verdict


def test_rows_that_name_only_the_agent_are_nobodys() -> None:
    rows = [
        {"key": BOB.main, "agentId": "shared", "n": 1},
        {"sessionKey": BOB.main, "n": 2},
        {"key": HERS, "agentId": "shared", "n": 3},
        {"agentId": "shared", "n": 4},
        {"sessionKey": "agent:shared:cron:1", "agentId": "shared", "n": 5},
    ]
    assert [row["n"] for row in own(rows, BOB)] == [1, 2]
    assert own(rows, BOB)[0]["agentId"] == "shared", "beside an own key it says no more than the key"
    assert own({"agentId": "shared"}, BOB) is NOTHING
    listed = FILTERS["session-rows"]({"sessions": rows, "totalCount": 5}, BOB)
    assert [row["n"] for row in listed["sessions"]] == [1]


def test_the_shared_agent_is_shown_as_the_own_one() -> None:
    payload = {"agents": [{"id": "shared", "name": "Help"}, {"id": "main"}], "defaultId": "main"}
    assert FILTERS["own-agent"](payload, BOB) == {
        "agents": [{"id": "shared", "name": "Help"}],
        "defaultId": "shared",
        "mainKey": "main",
        "scope": "per-sender",
    }
    health = own_health({"agents": [{"agentId": "shared", "sessions": {"count": 9}}, {"agentId": "main"}]}, BOB)
    assert health["agents"] == [{"agentId": "shared", "isDefault": True}]
    assert health["sessions"] == {"count": 0, "recent": []}


def test_a_row_without_words_is_open() -> None:
    assert not closed_in_shared_agent(MethodRow("x"))
