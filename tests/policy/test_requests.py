"""Whatever a client asks for, what goes on to the gateway names the caller's own things and nothing else."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ForeignKey, MalformedFrame, MethodRefused
from sidecar.policy.requests import MAX_RUN_ID, Answer, Claimed, Forward, Patched, decide, replaced
from sidecar.policy.rules import Only, Own, ParamRule, Rule, Shape
from sidecar.policy.table import read_table
from tests.policy.oracle import is_bobs, obeys
from tests.policy.people import BOB, FOREIGN_KEYS, ODD_KEYS, OWN_KEYS, SOURCE, TABLE
from tests.protocol.json_values import VALUES

PATCHED = Patched("/srv/openclaw/users/u-bob", "u-bob")
KEY_RULES = {Rule.KEY, Rule.EXISTING_KEY}
NAMES = sorted({name for row in TABLE.methods.values() for name in row.params})
UNKNOWN = [
    "workspaceDir",
    "authProfileId",
    "parentSessionKey",
    "fork",
    "cwd",
    "provider",
    "model",
    "SessionKey",
    "sessionKey ",
    "x",
    "",
]
FILE = {"type": "image", "mimeType": "image/png", "fileName": "a.png", "content": "aGk="}

keys = st.sampled_from([*OWN_KEYS, *FOREIGN_KEYS, *ODD_KEYS]) | st.text(max_size=20)
agents = st.sampled_from(["u-bob", "main", "", " U-BOB ", "u-alice", "MAIN\t", "u-bobby", "u-bob\u200b", "U-ALICE"])
texts = st.sampled_from(["hello", "/help", "/model x", "and/or", "x /reset"]) | st.text(max_size=12)
files = st.sampled_from([[], [FILE], [FILE, FILE], [{**FILE, "path": "/etc/passwd"}], ["media://inbound/1"], {}])
runs = st.sampled_from(["r1", "0f8e6a52-5d5c-4d0f-9f11-2c0c3a4f9f50", " r1", "", "r\n", "é", "x" * 129]) | st.text(
    max_size=8
)
values = st.one_of(keys, agents, texts, files, runs, VALUES, st.lists(keys, max_size=3))
BY_RULE: dict[Rule, st.SearchStrategy[Any]] = {
    Rule.KEY: keys,
    Rule.EXISTING_KEY: keys,
    Rule.EXISTING_KEYS: st.lists(keys, max_size=3),
    Rule.AGENT: agents,
    Rule.TEXT: texts,
    Rule.ATTACHMENTS: files,
    Rule.NEW_RUN: runs,
    Rule.OWN_ID: runs,
    Rule.MODEL: st.sampled_from(["fake/fake-1", None, "fake/fake-1@alice", "a b", ""]) | st.text(max_size=8),
    Rule.PATH: st.sampled_from(["notes.md", "a/b", "", "..", "a/../b", "/etc/passwd", "C:x", "a\\b", " a"])
    | st.text(max_size=8),
}


def fitting(rule: ParamRule) -> st.SearchStrategy[Any]:
    match rule:
        case Own(_, many):
            return st.lists(runs, max_size=3) if many else runs
        case Only(words):
            return st.sampled_from([*sorted(words, key=str), "x"])
        case Shape(members, many):
            one = st.fixed_dictionaries({}, optional={name: fitting(inner) for name, inner in members.items()})
            return st.lists(one, max_size=2) if many else one
        case Rule():
            return BY_RULE.get(rule, VALUES)


@st.composite
def params_of(draw: st.DrawFn, method: str) -> dict[str, Any]:
    """Mostly what the method takes, with values that fit; sometimes anything."""
    rules = TABLE.methods[method].params if method in TABLE.methods else {}
    params: dict[str, Any] = draw(
        st.fixed_dictionaries({}, optional={name: fitting(rule) for name, rule in rules.items()})
    )
    if draw(st.integers(0, 3)) == 0:
        params |= draw(st.dictionaries(st.sampled_from([*NAMES, *UNKNOWN]), values, max_size=3))
    return params


def ids() -> Any:
    numbers = itertools.count()
    return lambda: f"ours-{next(numbers)}"


def ask(method: str, params: dict[str, Any], patched: Patched | None = None) -> Forward | Answer:
    return decide(method, params, BOB, TABLE, new_id=ids(), patched=patched)


def forwarded(method: str, **params: Any) -> dict[str, Any]:
    decision = ask(method, params)
    assert isinstance(decision, Forward)
    return decision.params


@given(st.data(), st.sampled_from([*TABLE.methods, "config.patch", "", "\ud800"]), st.sampled_from([None, PATCHED]))
def test_whatever_is_asked(data: st.DataObject, method: str, patched: Patched | None) -> None:
    params = data.draw(params_of(method))
    before = copy.deepcopy(params)
    try:
        decision = ask(method, params, patched)
    except (MethodRefused, ForeignKey, MalformedFrame):
        assert params == before
        return
    row = TABLE.methods[method]
    assert params == before
    assert isinstance(decision, Answer) == (row.answer is not None)
    if isinstance(decision, Answer):
        assert decision.payload == row.answer
        return
    injected = (
        {"workspaceDir": PATCHED.workspace_dir, "authProfileId": PATCHED.auth_profile_id}
        if patched
        and row.starts_run
        and (not row.starts_when or any(decision.params.get(one) is not None for one in row.starts_when))
        else {}
    )
    assert {name: decision.params.get(name) for name in injected} == injected
    own = {name: value for name, value in decision.params.items() if name not in injected}
    forced = {name for name in row.force if not any(own.get(other) for other in row.unless.get(name, ()))}
    assert forced | set(row.fixed) <= set(own) <= set(row.params) | set(row.fixed)
    assert {name: own[name] for name in row.fixed} == row.fixed
    assert all(obeys(row.params[name], value) for name, value in own.items() if name not in row.fixed), own
    assert {name for name, rule in row.params.items() if rule is not Rule.DROP} & set(params) <= set(own)
    assert decision.changed == (decision.params != before)
    assert decision.row is row


@pytest.mark.parametrize("method", sorted(set(TABLE.methods)))
def test_every_row_can_be_called_bare_but_what_is_done_as_admin(method: str) -> None:
    if TABLE.methods[method].as_admin and not TABLE.methods[method].force:
        with pytest.raises(MalformedFrame, match="of yours"):
            ask(method, {})
        return
    decision = ask(method, {})
    if isinstance(decision, Forward):
        row = TABLE.methods[method]
        assert set(decision.params) == set(row.force) | set(row.fixed)
        assert all(obeys(row.params[name], decision.params[name]) for name in row.force)


KEYED = [(row.name, name) for row in TABLE.methods.values() for name, rule in row.params.items() if rule in KEY_RULES]


@pytest.mark.parametrize(("method", "name"), KEYED)
@pytest.mark.parametrize("key", FOREIGN_KEYS)
def test_somebody_elses_key(method: str, name: str, key: str) -> None:
    with pytest.raises(ForeignKey) as caught:
        ask(method, {name: key})
    assert "alice" not in caught.value.message


@pytest.mark.parametrize(("method", "name"), KEYED)
@pytest.mark.parametrize("value", [None, 7, True, ["main"], {"key": "main"}])
def test_a_key_is_text(method: str, name: str, value: Any) -> None:
    with pytest.raises(MalformedFrame, match=f"'{name}' is text"):
        ask(method, {name: value})


AGENTS = [(row.name, name) for row in TABLE.methods.values() for name, rule in row.params.items() if rule is Rule.AGENT]


@pytest.mark.parametrize(("method", "name"), AGENTS)
def test_agents(method: str, name: str) -> None:
    for own in ("u-bob", "U-BOB", " u-bob\t", "main", "MAIN", "", " "):
        assert forwarded(method, **{name: own})[name] == "u-bob"
    for foreign in ("u-alice", "u-bobby", "u-bo", "u-bob:x", "u-bob\u200b", "agent:u-bob"):
        with pytest.raises(ForeignKey):
            ask(method, {name: foreign})
    with pytest.raises(MalformedFrame):
        ask(method, {name: None})


def test_a_run_is_claimed_under_the_clients_id_or_one_of_ours() -> None:
    decision = ask("chat.send", {"message": "hi", "idempotencyKey": "r1"})
    assert isinstance(decision, Forward)
    assert (decision.new_run, decision.new_run_param, decision.claims) == ("r1", "idempotencyKey", ())
    decision = ask("chat.send", {"message": "hi"})
    assert isinstance(decision, Forward)
    assert (decision.new_run, decision.params["idempotencyKey"]) == ("ours-0", "ours-0")


def test_a_run_that_is_read_or_ended_is_named() -> None:
    decision = ask("chat.abort", {"sessionKey": "main", "runId": "r1"})
    assert isinstance(decision, Forward)
    assert (decision.claims, decision.new_run, decision.new_run_param) == (
        (Claimed("run", "r1", ("runId",)),),
        None,
        "",
    )
    decision = ask("chat.abort", {"sessionKey": "main"})
    assert isinstance(decision, Forward)
    assert decision.claims == ()


@pytest.mark.parametrize(("method", "name"), [("chat.send", "idempotencyKey"), ("agent.wait", "runId")])
@pytest.mark.parametrize("run_id", ["", " ", " r1", "r1 ", "r\n1", "é", "x" * (MAX_RUN_ID + 1), "\u200b", "\x7f"])
def test_run_ids_are_plain(method: str, name: str, run_id: str) -> None:
    with pytest.raises(MalformedFrame, match="printable ASCII"):
        ask(method, {name: run_id})
    assert forwarded(method, **{name: "x" * MAX_RUN_ID})[name] == "x" * MAX_RUN_ID


def test_what_needs_no_change_is_not_changed() -> None:
    unchanged: list[tuple[str, dict[str, Any]]] = [
        ("chat.send", {"sessionKey": "agent:u-bob:main", "message": "hi", "idempotencyKey": "r1", "thinking": "low"}),
        ("chat.history", {"sessionKey": "agent:u-bob:main", "limit": 50}),
        ("sessions.list", {"agentId": "u-bob", "limit": 10, "spawnedBy": "agent:u-bob:main"}),
        ("sessions.subscribe", {}),
        ("health", {}),
    ]
    for method, params in unchanged:
        decision = ask(method, params)
        assert isinstance(decision, Forward)
        assert not decision.changed
        assert decision.params == params


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("chat.send", {"sessionKey": "main", "message": "hi", "idempotencyKey": "r1"}),
        ("chat.send", {"sessionKey": "agent:u-bob:main", "message": "hi"}),
        ("chat.send", {"sessionKey": "agent:u-bob:main", "message": "hi", "idempotencyKey": "r1", "deliver": True}),
        ("chat.history", {}),
        ("health", {"probe": True}),
        ("sessions.list", {"agentId": "main"}),
    ],
)
def test_what_changes(method: str, params: dict[str, Any]) -> None:
    decision = ask(method, params)
    assert isinstance(decision, Forward)
    assert decision.changed


@pytest.mark.parametrize("method", ["config.patch", "chat.send ", "CHAT.SEND", "", "chat", "x" * 500, "\u202e", "a\nb"])
def test_methods_without_a_row(method: str) -> None:
    with pytest.raises(MethodRefused) as caught:
        ask(method, {})
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 120


@pytest.mark.parametrize(
    ("method", "name"),
    [(row.name, name) for row in TABLE.methods.values() if row.answer is None for name in UNKNOWN
     if name not in row.params and not (row.starts_run and name in {"workspaceDir", "authProfileId"})],
)  # fmt: skip
def test_parameters_without_a_rule(method: str, name: str) -> None:
    with pytest.raises(MethodRefused) as caught:
        ask(method, {name: "x"})
    assert caught.value.detail_code == "PARAM_NOT_ALLOWED"


def test_what_patched_gateways_take_is_the_users_own() -> None:
    asked = {"message": "hi", "workspaceDir": "/srv/openclaw/users/u-alice", "authProfileId": "u-alice"}
    assert "u-alice" not in repr(forwarded("chat.send", **asked))
    assert "workspaceDir" not in forwarded("chat.send", **asked)
    decision = ask("chat.send", asked, PATCHED)
    assert isinstance(decision, Forward)
    assert decision.changed
    assert decision.params["workspaceDir"] == PATCHED.workspace_dir
    assert decision.params["authProfileId"] == "u-bob"
    history = ask("chat.history", {}, PATCHED)
    assert isinstance(history, Forward)
    assert set(history.params) == {"sessionKey"}


@pytest.mark.parametrize("text", ["/model x", "hello /exec ls", "\u200b/bash"])
def test_commands_in_a_persons_text(text: str) -> None:
    for method in ("chat.send", "agent"):
        with pytest.raises(MethodRefused, match="command"):
            ask(method, {"message": text})
    assert forwarded("sessions.patch", key="main", label=text)["label"] == text


@pytest.mark.parametrize(
    "attachments", [[], [FILE], [{"content": "aGk="}, {"source": {"type": "base64", "data": "aGk="}}]]
)
def test_files_that_the_request_carries(attachments: Any) -> None:
    assert forwarded("chat.send", attachments=attachments)["attachments"] == attachments


@pytest.mark.parametrize(
    "attachments",
    [
        None, "media://inbound/1", {}, [None], ["media://inbound/1"], [[]], [{**FILE, "path": "/etc/passwd"}], [{**FILE, "url": "file:///"}],
        [{**FILE, "mediaUrl": "media://inbound/1"}], [{**FILE, "content": {"path": "x"}}], [{**FILE, "content": ["x"]}],
        [{"source": {"type": "url", "url": "file:///etc/passwd"}}], [{"source": {"type": "base64", "url": "x"}}], [{"source": {}}],
        [{"source": "media://inbound/1"}], [{"source": {"type": "base64", "data": 7}}], [FILE, {"source": None}],
    ],
)  # fmt: skip
def test_files_that_lie_elsewhere(attachments: Any) -> None:
    with pytest.raises(MalformedFrame, match="base64 text"):
        ask("chat.send", {"attachments": attachments})


MORE = read_table(
    SOURCE
    + b"""
[methods."x.keys"]
params = { sessionKeys = "existing-keys" }
[methods."x.many"]
learns = { task = "tasks.id" }
roles = ["administrator", "user"]
set = { agentScope = "agent" }
[methods."x.many".params]
taskId = "own:task"
taskIds = "owns:task"
decision = "only:allow-once|deny"
path = "path"
payload = { message = "text", runId = "own:run" }
targets = [{ key = "existing-key", agentId = "agent" }]
free = "any"
plain = "pass"
"""
)


def asked(method: str, **params: Any) -> Forward:
    decision = decide(method, params, BOB, MORE, new_id=ids())
    assert isinstance(decision, Forward)
    return decision


@given(st.lists(keys, max_size=4) | VALUES)
def test_lists_of_keys(written: Any) -> None:
    try:
        decision = asked("x.keys", sessionKeys=written)
    except (ForeignKey, MalformedFrame):
        return
    adopted = decision.params["sessionKeys"]
    assert len(adopted) == len(written)
    assert all(map(is_bobs, adopted))
    assert decision.changed == (adopted != written)


def test_a_list_of_keys_is_refused_for_one_of_them() -> None:
    for written, error in [
        (["main", "agent:u-alice:main"], ForeignKey),
        (["main", 7], MalformedFrame),
        ("main", MalformedFrame),
        (["main"] * 201, MalformedFrame),
    ]:
        with pytest.raises(error):
            asked("x.keys", sessionKeys=written)


def test_ids_of_objects_are_claimed_wherever_they_stand() -> None:
    decision = asked("x.many", taskId="t1", taskIds=["t2", "t3"], payload={"runId": "r1"})
    assert decision.claims == (
        Claimed("task", "t1", ("taskId",)),
        Claimed("task", "t2", ("taskIds", 0)),
        Claimed("task", "t3", ("taskIds", 1)),
        Claimed("run", "r1", ("payload", "runId")),
    )
    assert decision.params["taskIds"] == ["t2", "t3"]


@pytest.mark.parametrize("value", [None, 7, "", " t", "t\n", "é", "x" * 257, ["t"], {"id": "t"}])
def test_an_id_is_plain(value: Any) -> None:
    for params in ({"taskId": value}, {"taskIds": [value]}):
        with pytest.raises(MalformedFrame):
            asked("x.many", **params)


def test_an_id_can_be_put_in_place_without_touching_what_came() -> None:
    params = {"a": [{"b": "x"}, {"b": "y"}], "c": 1}
    before = copy.deepcopy(params)
    assert replaced(params, ("a", 1, "b"), "z") == {"a": [{"b": "x"}, {"b": "z"}], "c": 1}
    assert params == before


def test_objects_are_looked_into() -> None:
    decision = asked(
        "x.many", targets=[{"key": "main", "agentId": "main"}, {"key": "notes"}], payload={"message": "hi"}
    )
    assert decision.params["targets"] == [
        {"key": "agent:u-bob:main", "agentId": "u-bob"},
        {"key": "agent:u-bob:notes"},
    ]
    refused: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"targets": [{"key": "agent:u-alice:main"}]}, ForeignKey),
        ({"targets": [{"key": "main", "cwd": "/"}]}, MethodRefused),
        ({"targets": {"key": "main"}}, MalformedFrame),
        ({"targets": ["main"]}, MalformedFrame),
        ({"payload": {"message": "/model x"}}, MethodRefused),
        ({"payload": {"model": "x"}}, MethodRefused),
        ({"payload": "hi"}, MalformedFrame),
    ]
    for params, error in refused:
        with pytest.raises(error):
            asked("x.many", **params)


def test_a_refused_member_is_named_with_its_place() -> None:
    with pytest.raises(MethodRefused, match=r"'targets\.cwd' of x\.many"):
        asked("x.many", targets=[{"cwd": "/"}])


def test_one_of_some_words() -> None:
    assert asked("x.many", decision="deny").params["decision"] == "deny"
    for value in ("allow-always", "DENY", "", None, ["deny"]):
        with pytest.raises(MethodRefused, match="allow-once, deny"):
            asked("x.many", decision=value)


def test_a_model_has_no_account() -> None:
    for model in ("fake/fake-1", None):
        assert forwarded("sessions.patch", key="main", model=model)["model"] == model
    refused: list[Any] = ["fake/fake-1@alice", "a b", "", 7, ["fake"]]
    for other in refused:
        with pytest.raises(MethodRefused, match="without an account"):
            ask("sessions.patch", {"key": "main", "model": other})


def test_an_id_that_the_gateway_keeps_for_all_is_the_users_own() -> None:
    sent = forwarded("sessions.create", idempotencyKey="c1")["idempotencyKey"]
    assert sent == forwarded("sessions.create", idempotencyKey="c1")["idempotencyKey"]
    assert sent.startswith("u-bob-")
    assert sent != forwarded("sessions.create", idempotencyKey="c2")["idempotencyKey"]


def test_null_may_be_one_of_the_words() -> None:
    assert forwarded("sessions.patch", key="main", permissionMode=None)["permissionMode"] is None
    with pytest.raises(MethodRefused, match="null"):
        ask("sessions.patch", {"key": "main", "permissionMode": "full"})
    with pytest.raises(MethodRefused):
        ask("sessions.create", {"permissionMode": None})


def test_a_member_of_an_object_is_forced() -> None:
    assert forwarded("sessions.search", query="x")["scope"] == {"agentId": "u-bob"}
    scope = {"label": "x", "agentId": "main"}
    assert forwarded("sessions.search", query="x", scope=scope)["scope"] == {"label": "x", "agentId": "u-bob"}
    assert "scope" not in forwarded("sessions.search", query="x", sessionKeys=["main"])
    assert forwarded("sessions.search", query="x", sessionKeys=[])["scope"] == {"agentId": "u-bob"}


def test_some_requests_start_a_run_only_with_a_message() -> None:
    bare, said = ask("sessions.create", {}), ask("sessions.create", {"message": "hi"})
    assert isinstance(bare, Forward)
    assert isinstance(said, Forward)
    assert (bare.new_run, said.new_run, said.new_run_param) == (None, "ours-0", "")
    assert said.params == {"agentId": "u-bob", "message": "hi"}
    for words in ({"task": "hi"}, {"attachments": [{"type": "file", "mimeType": "text/plain", "content": "aGk="}]}):
        also = ask("sessions.create", words)
        assert isinstance(also, Forward)
        assert also.new_run == "ours-0", words


def test_who_may_not_call_may_be_answered_something_harmless() -> None:
    guest = decide("question.list", {}, BOB, TABLE, new_id=ids(), roles={"guest"})
    assert guest == Answer({"questions": []})
    assert TABLE.passes_method("question.list", {"guest"})
    shared = TABLE.without_profiles()
    assert decide("users.prefs.get", {"keys": ["a"]}, BOB, shared, new_id=ids()) == Answer(
        {"status": "ok", "entries": {}}
    )
    assert not shared.passes_method("users.self")
    assert TABLE.passes_method("users.self")


def test_behind_a_shared_secret_a_session_is_created_without_its_id() -> None:
    """The gateway keeps a short list of them for each profile, and there all users are one."""
    created = decide("sessions.create", {"idempotencyKey": "k"}, BOB, TABLE.without_profiles(), new_id=ids())
    assert isinstance(created, Forward)
    assert created.params == {"agentId": "u-bob"}


@pytest.mark.parametrize("word", ["succeedsParent", "emitCommandHooks"])
def test_a_guest_has_fewer_parameters(word: str) -> None:
    params = {"parentSessionKey": "main", word: True}
    assert isinstance(decide("sessions.create", params, BOB, TABLE, new_id=ids()), Forward)
    with pytest.raises(MethodRefused, match=word):
        decide("sessions.create", params, BOB, TABLE.for_guests(), new_id=ids())


def test_a_guest_has_fewer_commands() -> None:
    assert isinstance(decide("chat.send", {"message": "/compact"}, BOB, TABLE, new_id=ids()), Forward)
    with pytest.raises(MethodRefused, match="/compact"):
        decide("chat.send", {"message": "/compact"}, BOB, TABLE.for_guests(), new_id=ids())
    assert isinstance(decide("chat.send", {"message": "/stop"}, BOB, TABLE.for_guests(), new_id=ids()), Forward)


def test_a_path_stays_inside() -> None:
    assert asked("x.many", path="notes/a.md").params["path"] == "notes/a.md"
    with pytest.raises(ForeignKey):
        asked("x.many", path="../u-alice/notes.md")
    with pytest.raises(MalformedFrame):
        asked("x.many", path=7)


def test_what_is_passed_holds_no_objects() -> None:
    for value in (None, True, 7, "x", ["a", 1]):
        assert asked("x.many", plain=value).params["plain"] == value
    objects: list[Any] = [{}, {"key": "x"}, [["x"]], [{}]]
    for nested in objects:
        with pytest.raises(MalformedFrame):
            asked("x.many", plain=nested)
        assert asked("x.many", free=nested).params["free"] == nested


def test_what_is_set_stands_whatever_the_client_says() -> None:
    for params in ({}, {"agentScope": "all"}, {"agentScope": {"x": 1}}):
        assert asked("x.many", **params).params == {"agentScope": "agent"}


@pytest.mark.parametrize("roles", [{"guest"}, set(), {"operator"}])
def test_a_row_is_for_its_roles(roles: set[str]) -> None:
    with pytest.raises(MethodRefused) as caught:
        decide("x.many", {}, BOB, MORE, new_id=ids(), roles=roles)
    assert caught.value.detail_code == "ROLE_NOT_ALLOWED"
    assert isinstance(decide("x.many", {}, BOB, MORE, new_id=ids(), roles=roles | {"user"}), Forward)
