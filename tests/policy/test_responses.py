"""What a filter lets through is the caller's; what it does not know stays behind."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.own import HOST_FIELDS, NOTHING, PLACE_FIELDS
from sidecar.policy.responses import (
    FILTERS,
    MAX_ERROR,
    changed_session,
    error_of_gateway,
    own_agent,
    own_session,
    session_rows,
)
from tests.policy.oracle import names_foreign
from tests.policy.people import ALICE, BOB, FOREIGN_KEYS
from tests.protocol.json_values import VALUES
from tests.protocol.samples import answer_of

FOREIGN_SCOPES: list[Any] = [*FOREIGN_KEYS, "global", "main", "", 7, True, ["agent:u-bob:main"], {"agentId": "u-bob"}]
SAID = {"content", "text", "message", "arguments"}
PLACES = dict.fromkeys(HOST_FIELDS | PLACE_FIELDS, "/home/alice")


def of(person: str, payload: Any) -> Any:
    """A real answer as it would be for `person`."""
    raw = orjson.dumps(payload).replace(b'"agent:main:', b'"agent:%b:' % person.encode())
    return orjson.loads(raw.replace(b'"agentId":"main"', b'"agentId":"%b"' % person.encode()))


def places(value: Any) -> set[str]:
    """The names of host fields, and the places, anywhere in `value` but in what a session said."""
    if isinstance(value, dict):
        inner = set[str]().union(*(places(member) for name, member in value.items() if name not in SAID))
        return inner | (HOST_FIELDS & value.keys())
    if isinstance(value, str):
        return {value} & {"/home/alice"}
    return set[str]().union(*map(places, value)) if isinstance(value, list) else set()


nested = st.recursive(
    st.one_of(VALUES, st.just(PLACES), st.just({"path": "/home/alice", "x": [dict(PLACES)]})),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "entry", "content", "path"]), inner, max_size=3)
    ),
    max_leaves=6,
)
own_rows = st.fixed_dictionaries(
    {"key": st.sampled_from(["agent:u-bob:main", "agent:u-bob:cron:1"])},
    optional={"label": st.text(max_size=5), "x": nested},
)
foreign_rows = st.one_of(
    st.fixed_dictionaries({"key": st.sampled_from(FOREIGN_SCOPES)}, optional={"secret": st.just("alice"), "x": nested}),
    st.fixed_dictionaries({"secret": st.just("alice")}),
    st.sampled_from([None, "alice", 7, ["alice"], []]),
)


@given(st.lists(st.one_of(own_rows, foreign_rows), max_size=8), st.sampled_from([None, 0, 7, 100, "x"]))
def test_the_own_rows_and_no_other(rows: list[Any], total: Any) -> None:
    before = copy.deepcopy(rows)
    out = session_rows({"sessions": rows, "totalCount": total, "path": "/home/alice", "owners": ["alice"]}, BOB)
    own = [
        row for row in rows if isinstance(row, dict) and row.get("key") in ("agent:u-bob:main", "agent:u-bob:cron:1")
    ]
    assert [row["key"] for row in out["sessions"]] == [row["key"] for row in own]
    assert out["count"] == len(own)
    assert out["totalCount"] == (max(len(own), total - (len(rows) - len(own))) if isinstance(total, int) else len(own))
    assert set(out) == {"sessions", "count", "totalCount"}
    assert not places(out)
    assert rows == before


def test_a_real_list() -> None:
    listed = of("u-bob", answer_of("sessions.list"))
    foreign = of("u-alice", answer_of("sessions.list"))["sessions"]
    mixed = {**listed, "sessions": foreign + listed["sessions"], "totalCount": 1000}
    out = session_rows(mixed, BOB)
    real = [row for row in listed["sessions"] if isinstance(row, dict)]
    assert len(real) > 0
    assert [row["key"] for row in out["sessions"]] == [row["key"] for row in real]
    assert out["hasMore"] is False
    assert "owners" not in out
    assert not names_foreign(out)
    assert "/srv" not in orjson.dumps(out).decode()


@pytest.mark.parametrize(
    "payload", [None, [], "x", 7, {}, {"sessions": None}, {"sessions": {"key": "agent:u-bob:main"}}]
)
def test_what_is_no_list_is_an_empty_one(payload: Any) -> None:
    assert session_rows(payload, BOB) == {"sessions": [], "count": 0, "totalCount": 0}


@given(
    st.sampled_from(["key", "sessionKey", "agentId"]),
    st.sampled_from(FOREIGN_SCOPES),
    nested,
    st.booleans(),
    st.booleans(),
)
def test_a_session_of_somebody_else_is_no_session(
    name: str, scope: Any, more: Any, inside: bool, own_too: bool
) -> None:
    holder: dict[str, Any] = {name: scope, "messages": more}
    payload = {"session": holder, "messages": more} if inside else holder
    if own_too:
        other = "sessionKey" if name == "key" else "key"
        holder[other] = "agent:u-bob:main"
    assert own_session(payload, BOB) == {"session": None}


@given(st.sampled_from(["key", "sessionKey"]), nested, st.booleans())
def test_a_session_of_ones_own_passes_without_places(name: str, more: Any, inside: bool) -> None:
    holder = {name: "agent:u-bob:main", "agentId": "u-bob", "x": more}
    payload = {"session": holder} if inside else holder
    out = own_session(payload, BOB)
    assert not places(out)
    assert (out["session"] if inside else out)[name] == "agent:u-bob:main"


@pytest.mark.parametrize("version", ["2026.9.6", "2026.8.2"])
def test_real_sessions(version: str) -> None:
    payload = of("u-bob", answer_of("chat.history", version))
    seen = own_session(payload, BOB)
    assert not places(seen)
    assert b"agent:u-bob:" in orjson.dumps(seen)
    assert own_session(payload, ALICE) == {"session": None}


@pytest.mark.parametrize("payload", [None, [], [{"key": "agent:u-bob:main"}], "x", 7, True])
def test_what_is_no_session(payload: Any) -> None:
    assert own_session(payload, BOB) is None


def test_a_session_that_is_not_there_is_one() -> None:
    assert own_session({"session": None}, BOB) == {"session": None}
    assert own_session({"key": None, "ok": True}, BOB) == {"key": None, "ok": True}


agent_rows = st.one_of(
    st.sampled_from(
        [None, "u-bob", 7, ["u-bob"], {}, {"id": "u-alice"}, {"id": "u-bobby"}, {"id": ["u-bob"]}, {"agentId": "u-bob"}]
    ),
    st.just({"id": "u-bob", "name": "Bob", "workspace": "/home/alice", "model": {"primary": "x"}}),
)


@given(st.lists(agent_rows, max_size=5), st.sampled_from(["agents", "agent", "x"]))
def test_a_gateway_with_one_agent(rows: list[Any], name: str) -> None:
    out = own_agent({name: rows, "defaultId": "u-alice", "mainKey": "alice", "owners": ["alice"]}, BOB)
    assert set(out) == {"defaultId", "mainKey", "scope", "agents"}
    assert out["agents"]
    assert {row["id"] for row in out["agents"]} == {"u-bob"}
    assert not names_foreign(out)
    listed = name == "agents" and any(isinstance(row, dict) and row.get("id") == "u-bob" for row in rows)
    assert ({"id": "u-bob"} in out["agents"]) != listed


@given(
    st.sampled_from(sorted(FILTERS)),
    st.one_of(nested, st.dictionaries(st.sampled_from(["sessions", "agents", "session", "key"]), nested)),
)
def test_no_shape_is_an_error_and_the_payload_is_left_alone(name: str, payload: Any) -> None:
    before = copy.deepcopy(payload)
    out = FILTERS[name](payload, BOB)
    assert payload == before
    assert out is NOTHING or orjson.dumps(out)
    assert out is NOTHING or not places(out)


@pytest.mark.parametrize(
    "payload", [None, [], "alice", {}, {"agents": [{"agentId": "u-alice"}], "channels": {"alice": 1}}]
)
def test_health(payload: Any) -> None:
    out = FILTERS["health"](payload, BOB)
    assert out["defaultAgentId"] == "u-bob"
    assert not names_foreign(out)


SECRETS = {
    "skillsSnapshot": {"prompt": "alice"},
    "spawnedBy": "agent:u-alice:main",
    "origin": {"from": "alice"},
    "later": "alice",
}


@given(
    st.dictionaries(st.sampled_from(["label", "updatedAt", "pinned", *SECRETS]), st.text(max_size=5) | st.integers()),
    st.sampled_from(FOREIGN_SCOPES),
)
def test_of_a_stored_entry_only_what_is_listed(entry: dict[str, Any], parent: Any) -> None:
    payload = {"ok": True, "key": "agent:u-bob:main", "entry": {**entry, **SECRETS, "parentSessionKey": parent}}
    out = changed_session(payload, BOB)
    assert set(out["entry"]) <= {"label", "updatedAt", "pinned", "parentSessionKey"}
    assert set(out["entry"]) >= {"label", "updatedAt", "pinned"} & set(entry)
    assert not names_foreign(out["entry"].get("parentSessionKey"))


def test_an_entry_says_which_own_session_it_comes_from() -> None:
    payload = {
        "key": "agent:u-bob:side",
        "entry": {"parentSessionKey": "agent:u-bob:main", "sessionFile": "/home/alice"},
    }
    assert changed_session(payload, BOB)["entry"] == {"parentSessionKey": "agent:u-bob:main"}


@pytest.mark.parametrize(
    "payload", [{"key": "agent:u-alice:main", "entry": {"label": "x"}}, {"key": 7, "entry": {"label": "x"}}]
)
def test_a_changed_session_of_somebody_else_is_none(payload: Any) -> None:
    assert changed_session(payload, BOB) == {"session": None}


def test_a_changed_session_without_an_entry() -> None:
    assert changed_session({"key": "agent:u-bob:main", "ok": True}, BOB) == {"key": "agent:u-bob:main", "ok": True}
    assert changed_session(None, BOB) is None


def test_an_error_of_the_gateway_keeps_what_clients_branch_on() -> None:
    error = {
        "code": "UNAVAILABLE",
        "message": "gateway starting",
        "details": {"code": "STARTING", "reason": "startup-sidecars", "configPath": "/srv/openclaw/openclaw.json"},
        "retryable": True,
        "retryAfterMs": 250,
        "stack": "at /srv/openclaw/dist/x.js",
    }
    assert error_of_gateway(error) == {
        "code": "UNAVAILABLE",
        "message": "gateway starting",
        "details": {"code": "STARTING", "reason": "startup-sidecars"},
        "retryable": True,
        "retryAfterMs": 250,
    }


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("ENOENT: no such file '/srv/openclaw/state/agents/main.json'", "ENOENT: no such file '…'"),
        ("cannot read /home/alice/x and /var/lib/y.z", "cannot read … and …"),
        ("and/or is no place, https://example.org/a/b is none", "and/or is no place, https://example.org/a/b is none"),
        ("x" * (MAX_ERROR + 1), "x" * MAX_ERROR),
    ],
)
def test_an_error_names_no_place_of_the_host(message: str, shown: str) -> None:
    assert error_of_gateway({"code": "X", "message": message})["message"] == shown


@given(
    st.one_of(
        VALUES, st.dictionaries(st.sampled_from(["code", "message", "details", "retryable", "retryAfterMs"]), VALUES)
    )
)
def test_any_error_is_one(error: Any) -> None:
    out = error_of_gateway(error)
    assert set(out) <= {"code", "message", "details", "retryable", "retryAfterMs"}
    assert isinstance(out["code"], str)
    assert isinstance(out["message"], str)
    assert len(out["message"]) <= MAX_ERROR
    assert out.get("retryable") in {None, True}
