"""The universal filter lets nothing of anybody else through, and nothing of the caller's get lost."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.policy.own import HOST_FIELDS, NOTHING, SAID, at_places, names_own, own, own_rows
from sidecar.policy.responses import filtered
from sidecar.policy.table import EventRow, MethodRow, Passage
from tests.policy.oracle import names_foreign
from tests.policy.people import ALICE, BOB
from tests.protocol.json_values import VALUES
from tests.protocol.samples import answer_of

FOREIGN = ["agent:u-alice:main", "AGENT:u-alice:main", "agent:main:main", "u-alice", "agent:u-bobby:x"]
OWN = [
    "agent:u-bob:main",
    "agent:u-bob:subagent:1",
    "u-bob",
    "notes",
    "/help",
    "and/or",
    "agent",
    "agent:",
    "u-",
    "a u-alice",
]
NAMES = ["sessionKey", "key", "agentId", "childSessionKey", "owner", "title", "agents", "x", "content", "path", "cwd"]


@pytest.mark.parametrize("name", ["sessionKey", "key", "agentId"])
@pytest.mark.parametrize("foreign", ["agent:u-alice:main", "agent:main:main"])
def test_an_object_of_somebody_else_is_taken_out(name: str, foreign: str) -> None:
    theirs = {name: foreign, "title": "secret"}
    assert own(theirs, BOB) is NOTHING
    assert own({"tasks": [theirs, {"n": 1}], "last": theirs, "n": 2}, BOB) == {"tasks": [{"n": 1}], "n": 2}


@pytest.mark.parametrize(
    "member", ["parentSessionKey", "spawnedBy", "childSessionKey", "requesterSessionKey", "owner", "x"]
)
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_foreign_name_in_an_own_object_is_taken_out(member: str, foreign: str) -> None:
    assert own({"sessionKey": "agent:u-bob:main", member: foreign, "n": 1}, BOB) == {
        "sessionKey": "agent:u-bob:main",
        "n": 1,
    }
    assert own({"list": ["agent:u-bob:x", foreign]}, BOB) == {"list": ["agent:u-bob:x"]}
    assert own({"by": {foreign: {"n": 1}, "u-bob": {"n": 2}}}, BOB) == {"by": {"u-bob": {"n": 2}}}


@pytest.mark.parametrize("member", ["defaultAgentId", "ownerAgentId", "agent", "agentIds"])
def test_members_that_hold_agents(member: str) -> None:
    assert own({member: "main"}, BOB) == {}
    assert own({member: ["main", "u-bob", 7]}, BOB) == {member: ["u-bob", 7]}
    assert own({member: "u-bob"}, BOB) == {member: "u-bob"}
    assert own({member: {"n": 1}}, BOB) == {member: {"n": 1}}


def test_an_agent_beside_a_key_is_the_keys() -> None:
    assert own({"sessionKey": "agent:u-bob:main", "agentId": "main"}, BOB) is NOTHING
    for scope in (
        {"sessionKey": "", "agentId": "main"},
        {"sessionKey": 7},
        {"agentId": 7},
        {"sessionKey": ["agent:u-bob:main"]},
        {"sessionKey": "global"},
    ):
        assert own(scope, BOB) is NOTHING


def test_an_empty_key_names_nobody() -> None:
    """Automations of an agent say so (2026.9.6)."""
    task = {"sessionKey": "", "ownerKey": "", "agentId": "u-bob"}
    assert own(task, BOB) == task
    assert names_own(task, BOB)
    assert not names_own({"sessionKey": "", "key": ""}, BOB)


def test_a_key_that_is_no_session_key_is_a_word() -> None:
    assert own({"key": "theme", "value": "dark"}, BOB) == {"key": "theme", "value": "dark"}
    assert own({"key": 7}, BOB) == {"key": 7}


@pytest.mark.parametrize("place", ["/srv/openclaw/state/x.json", "file:///srv/x", "/home/alice/", "C:\\Users\\alice"])
def test_places_on_the_host_are_taken_out(place: str) -> None:
    assert own({"a": place, "b": [place, "x"], "path": place, "n": 1}, BOB) == {"b": ["x"], "n": 1}
    assert own({"path": "/data/my users/x", "root": "~", "file": "\\\\host\\x", "dir": " /x"}, BOB) == {}
    assert own({"path": "notes/a.md", "file": "a", "root": ""}, BOB) == {"path": "notes/a.md", "file": "a", "root": ""}
    assert own(dict.fromkeys(HOST_FIELDS, 1), BOB) == {}


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("/home/alice", False), ("file:///home/alice/x", False), ("/home/Jo Doe/.openclaw/x", False), ("C:\\Users\\Jo Doe", False),
        ("/help", True), ("/help me", True), ("/etc/hosts is empty", True), ("on/off", True), ("a /home/x", True),
    ],
)  # fmt: skip
def test_a_place_is_taken_out_and_prose_stays(text: str, stays: bool) -> None:
    assert own({"x": text}, BOB) == ({"x": text} if stays else {})


def test_the_title_of_an_own_session_may_look_like_anything() -> None:
    row = {"key": "agent:u-bob:main", "label": "u-turn", "derivedTitle": "/home/x/y", "owner": "u-turn"}
    assert own({"sessions": [row]}, BOB) == {
        "sessions": [{name: row[name] for name in ("key", "label", "derivedTitle")}]
    }
    assert own({"people": [{"label": "u-alice", "displayName": "u-alice"}]}, BOB) == {"people": [{}]}


def test_what_was_said_stays_whole() -> None:
    said = {"content": [{"text": "agent:u-alice:main is in /etc/passwd"}], "message": {"agentId": "u-alice"}}
    assert own({"messages": [said]}, BOB) == {"messages": [said]}


objects = st.recursive(
    st.sampled_from([*FOREIGN, *OWN, 7, None, True, "/home/alice"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, *FOREIGN]), inner, max_size=4),
    max_leaves=12,
)


def unsaid(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: unsaid(member) for name, member in value.items() if name not in SAID}
    return [unsaid(member) for member in value] if isinstance(value, list) else value


@given(objects)
def test_whatever_the_shape(value: Any) -> None:
    before = copy.deepcopy(value)
    seen = own(value, BOB)
    assert value == before
    if seen is not NOTHING:
        text = orjson.dumps(unsaid(seen)).decode().lower().replace('"a u-alice"', "")
        assert not names_foreign(text)
        assert "agent:main:" not in text
        assert own(seen, BOB) == seen


@given(VALUES)
def test_what_names_nobody_passes_but_for_places(value: Any) -> None:
    text = orjson.dumps(value).decode().lower()
    telling = ("agent", "key", "session", "owner", "spawned", "u-", "/", "\\", *map(str.lower, HOST_FIELDS))
    assume(not any(word in text for word in telling))
    assert own({"x": value}, BOB) == {"x": value}


@pytest.mark.parametrize("method", ["sessions.list", "chat.history"])
def test_real_answers(method: str) -> None:
    def of(person: str) -> Any:
        raw = orjson.dumps(answer_of(method)).replace(b"agent:main:", b"agent:%b:" % person.encode())
        return orjson.loads(raw.replace(b'"agentId":"main"', b'"agentId":"%b"' % person.encode()))

    own_answer, foreign = own(of("u-bob"), BOB), own(of("u-bob"), ALICE)
    assert b"agent:u-bob:" in orjson.dumps(own_answer)
    assert foreign is NOTHING or b"u-bob" not in orjson.dumps(foreign)


# --- rows that must say whose they are ----------------------------------------------------------------------------------

ROWS = [
    {"sessionKey": "agent:u-bob:main"},
    {"agentId": "u-bob"},
    {"key": "agent:u-bob:x", "agentId": "u-bob"},
    {"sessionKey": "agent:u-alice:main"},
    {"agentId": "main"},
    {"key": "global"},
    {"title": "nobody's"},
    "agent:u-bob:main",
    None,
]


def test_only_rows_that_name_the_caller_stay() -> None:
    payload = {"tasks": ROWS, "total": 57, "count": 9, "hasMore": True}
    assert own_rows(payload, ("tasks",), BOB) == {"tasks": ROWS[:3], "total": 3, "count": 3, "hasMore": True}
    assert own_rows({"tasks": {"a": ROWS[0]}}, ("tasks",), BOB) == {"tasks": []}
    assert own_rows({"tasks": ROWS, "runs": ROWS, "total": 18}, ("tasks", "runs"), BOB) == {
        "tasks": ROWS[:3], "runs": ROWS[:3], "total": 3
    }  # fmt: skip
    assert own_rows(None, ("tasks",), BOB) is NOTHING
    assert own_rows(ROWS, (".",), BOB) == ROWS[:3]
    assert own_rows({"tasks": ROWS}, (".",), BOB) == []
    own_key = {"sessionKey": "agent:u-bob:main"}
    secret = [{**own_key, "questions": [{"store": "x"}]}, {**own_key, "questions": [{"store": None}, {}]}]
    assert own_rows({"tasks": secret}, ("tasks",), BOB, without=("questions.store",)) == {"tasks": secret[1:]}
    asked = [{"id": at, "request": row} for at, row in enumerate(ROWS)]
    assert own_rows([*asked, None, {"request": None}], (".",), BOB, "request") == asked[:3]
    assert own_rows({"total": "many", "tasks": []}, ("tasks",), BOB) == {"total": 0, "tasks": []}


def test_a_list_under_another_name_is_nobodys() -> None:
    """As a later gateway may call it."""
    renamed = {"entries": [{"title": "alice's"}], "byId": {"7": {"title": "alice's"}}, "total": 1, "nextCursor": "x"}
    assert own_rows(renamed, ("tasks",), BOB) == {"total": 0, "nextCursor": "x"}
    assert own_rows({**renamed, "tasks": ROWS}, ("tasks",), BOB) == {"tasks": ROWS[:3], "total": 3, "nextCursor": "x"}


@given(objects)
def test_a_row_names_its_owner_or_nobody(row: Any) -> None:
    if names_own(row, BOB):
        assert own(row, BOB) is not NOTHING
        named = [row.get(name) for name in ("sessionKey", "key", "agentId")]
        assert any(one in named for one in ("agent:u-bob:main", "agent:u-bob:subagent:1", "u-bob"))


# --- a row's whole filter -----------------------------------------------------------------------------------------------


def test_a_row_filters_in_order() -> None:
    row = MethodRow("x", response="own", rows=("tasks",), fields=frozenset({"tasks"}))
    payload = {"tasks": [{"agentId": "u-bob", "cwd": "/x"}, {"agentId": "u-alice"}, {"n": 1}], "host": "a"}
    assert filtered(row, payload, BOB) == {"tasks": [{"agentId": "u-bob"}]}
    assert filtered(row, {"agentId": "u-alice", "tasks": []}, BOB) is NOTHING
    assert filtered(row, [], BOB) is NOTHING
    assert filtered(MethodRow("x"), payload, BOB) is payload
    assert filtered(EventRow(Passage.FILTER), {"agentId": "u-alice"}, BOB) is NOTHING


def test_ids_at_places() -> None:
    payload = {"tasks": [{"id": "t1", "runs": [{"id": "r"}]}, {"id": 7}, "x"], "task": {"id": "t2"}, "ids": ["a", "b"]}
    assert at_places(payload, ("tasks.id", "task.id", "ids", "none.id", "tasks.runs.id")) == ["t1", "t2", "a", "b", "r"]
    assert at_places(None, ("id",)) == []
    assert at_places([{"id": "x"}], ("id",)) == ["x"]
