"""A table that has no meaning is refused, naming the row; the table that ships opens nothing that it should not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sidecar.policy.responses import FILTERS
from sidecar.policy.rules import Only, Own, ParamRule, Rule, Shape, leaves
from sidecar.policy.table import ROLES, Class, EventRow, MethodRow, Passage, PolicyError, read_table
from tests.policy.people import SOURCE, TABLE

ADVERTISED = json.loads(Path(__file__).with_name("advertised.json").read_text())

SMALL = """
[gateway]
since = "2026.8"
until = "2026.10"
[methods."chat.send"]
starts_run = true
force = { idempotencyKey = "new-run", sessionKey = "key" }
params = { message = "text" }
[methods."chat.history"]
response = "own-session"
force = { sessionKey = "existing-key" }
[methods."cron.list"]
answer = { jobs = [] }
[events]
tick = "pass"
chat = "own"
[commands]
allowed = ["help"]
closed = ["model"]
"""


def altered(old: str, new: str) -> bytes:
    assert SMALL.count(old) == 1
    return SMALL.replace(old, new).encode()


def test_rows() -> None:
    table = read_table(SMALL.encode())
    assert (table.since, table.until) == ((2026, 8), (2026, 10))
    assert table.methods["chat.send"] == MethodRow(
        name="chat.send",
        params={"message": Rule.TEXT, "idempotencyKey": Rule.NEW_RUN, "sessionKey": Rule.KEY},
        force={"idempotencyKey": Rule.NEW_RUN, "sessionKey": Rule.KEY},
        starts_run=True,
    )
    assert table.methods["chat.history"].response == "own-session"
    assert table.methods["cron.list"].answer == {"jobs": []}
    assert table.events == {"tick": EventRow(Passage.PASS), "chat": EventRow(Passage.OWN)}
    assert (table.allowed_commands, table.closed_commands) == (frozenset({"help"}), frozenset({"model"}))


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        (MethodRow("x"), Class.PASS),
        (MethodRow("x", {"a": Rule.PASS, "b": Rule.DROP}), Class.PASS),
        (MethodRow("x", {"a": Rule.KEY}), Class.ADOPT),
        (MethodRow("x", {"a": Shape({"b": Own("task")})}), Class.ADOPT),
        (MethodRow("x", {"a": Rule.KEY}, response="own"), Class.FILTER),
        (MethodRow("x", rows=("tasks",)), Class.FILTER),
        (MethodRow("x", fields=frozenset({"a"})), Class.FILTER),
        (MethodRow("x", {"a": Rule.KEY}, as_admin=True, response="own"), Class.AS_ADMIN),
        (MethodRow("x", answer=[]), Class.EMPTY),
    ],
)
def test_what_a_row_comes_to(row: MethodRow, passage: Class) -> None:
    assert row.passage is passage


def test_who_may_call() -> None:
    table = read_table(altered('response = "own-session"', 'roles = ["administrator", "user"]'))
    assert table.passes_method("chat.history", {"user"})
    assert table.passes_method("chat.history", {"guest", "administrator"})
    assert not table.passes_method("chat.history", {"guest"})
    assert table.passes_method("chat.send", {"guest"})


def test_denials_say_why() -> None:
    table = read_table(altered("[events]", '[denied]\nmethods = { "logs.tail" = "everybody" }\n[events]'))
    assert table.denied_methods == {"logs.tail": "everybody"}
    assert not table.passes_method("logs.tail")


def test_no_row_no_passage() -> None:
    table = read_table(SMALL.encode())
    assert table.passes_method("chat.send")
    assert not table.passes_method("config.patch")
    assert [TABLE.knows_method(name) for name in ("chat.send", "config.patch", "config")] == [True, True, False]
    assert not table.passes_method("")
    assert table.passes_event("chat")
    assert table.passes_event("connect.challenge")
    assert not table.passes_event("presence")


@pytest.mark.parametrize(
    ("version", "covered"),
    [
        ("2026.7.9", False),
        ("2026.8.0", True),
        ("2026.8.2", True),
        ("2026.9.6", True),
        ("2026.9.6-3", True),
        ("2026.10.1", False),
        ("2027.1.1", False),
        ("2025.12.1", False),
        ("2026.9", False),
        ("v2026.9.6", False),
        ("", False),
    ],
)
def test_versions(version: str, covered: bool) -> None:
    assert read_table(SMALL.encode()).covers(version) is covered


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"\xff", "UnicodeDecodeError"),
        (b"[gateway", "TOMLDecodeError"),
        (b"", "gateway"),
        (altered("[events]", "[event]"), "events"),
        (altered('since = "2026.8"', 'since = "2026"'), "not enough values"),
        (altered('since = "2026.8"', "since = 2026.8"), "AttributeError"),
        (altered('since = "2026.8"', ""), "since"),
        (altered('tick = "pass"', 'tick = "passes"'), "passes"),
        (altered('closed = ["model"]', "closed = 7"), "TypeError"),
        (b"methods = []\nevents = {}\n[gateway]\nsince = '2026.8'\nuntil = '2026.9'\n[commands]", "AttributeError"),
        (altered('message = "text"', 'message = "txt"'), "chat.send: 'txt'"),
        (altered('message = "text"', "message = ['text']"), "chat.send: a list of objects"),
        (altered('message = "text"', "message = [{ a = 'pass' }, { b = 'pass' }]"), "chat.send: a list of objects"),
        (altered('message = "text"', "message = { a = 'x' }"), "chat.send: 'x'"),
        (altered('message = "text"', "message = 7"), "chat.send: "),
        (altered('message = "text"', 'message = "own:"'), "chat.send: 'own:'"),
        (altered('message = "text"', 'message = "own:task"'), "chat.send: nobody learns who owns a task"),
        (altered('message = "text"', 'message = "only:a|"'), "chat.send: 'only:a|'"),
        (altered('response = "own-session"', 'roles = ["root"]'), "chat.history: roles are"),
        (altered('response = "own-session"', "roles = []"), "chat.history: roles are"),
        (altered('response = "own-session"', 'learns = { run = "runId" }'), "chat.history: runs are claimed"),
        (altered('tick = "pass"', 'tick = { owner = "x" }'), "tick: owner"),
        (altered("[events]", '[denied.methods]\n"chat.send" = "x"\n[events]'), "both open and denied: chat.send"),
        (altered("[events]", '[denied.events]\ntick = "x"\n[events]'), "both open and denied: tick"),
        (altered('params = { message = "text" }', 'params = ["message"]'), "chat.send: "),
        (altered('response = "own-session"', 'filter = "own-session"'), "chat.history: filter"),
        (altered('sessionKey = "existing-key"', 'sessionKey = "pass"'), "chat.history: only a key"),
        (altered('sessionKey = "existing-key"', 'sessionKey = "own:run"'), "chat.history: only a key"),
        (altered("starts_run = true", ""), "chat.send: what starts a run"),
        (
            altered("starts_run = true", 'starts_run = true\nnot_for_guests = ["nothing"]'),
            "chat.send: no such parameters: nothing",
        ),
        (altered('response = "own-session"', "starts_run = true"), "chat.history: what starts a run"),
        (altered('[methods."cron.list"]\nanswer = { jobs = [] }', '[methods]\n"cron.list" = 7'), "cron.list: "),
    ],
)
def test_what_has_no_meaning(source: bytes, said: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(said)):
        read_table(source)


def test_the_table_that_ships_covers_the_tested_gateways() -> None:
    assert TABLE.covers("2026.9.6")
    assert TABLE.covers("2026.8.2")


@pytest.mark.parametrize("version", sorted(ADVERTISED))
def test_every_method_and_event_of_a_gateway_has_one_row(version: str) -> None:
    """`hello-ok.features`, as an admin's connection was told; the handshake's own event needs none."""
    advertised = ADVERTISED[version]
    assert set(advertised["methods"]) <= TABLE.methods.keys() | TABLE.denied_methods.keys()
    assert set(advertised["events"]) - {"connect.challenge"} <= TABLE.events.keys() | TABLE.denied_events.keys()
    assert all(why.strip() for why in (*TABLE.denied_methods.values(), *TABLE.denied_events.values()))
    assert version in TABLE.observed


@pytest.mark.parametrize("row", TABLE.methods.values(), ids=lambda row: row.name)
def test_every_row_can_be_obeyed(row: MethodRow) -> None:
    assert row.response in {"pass", *FILTERS}
    assert set(row.force) <= set(row.params)
    assert set(row.unless) <= set(row.force)
    assert set(row.starts_when) <= set(row.params)
    assert not set(row.fixed) & set(row.force)
    assert row.responses in {1, 2}
    assert sum(rule is Rule.NEW_RUN for rule in row.params.values()) == int(row.starts_run and not row.run)
    assert row.as_admin or not row.counts
    assert Rule.NEW_RUN not in {
        rule for name, rule in row.params.items() if isinstance(rule, Shape) for rule in leaves({name: rule})
    }
    if row.answer is not None:
        assert (row.params, row.force, row.response, row.starts_run) == ({}, {}, "pass", False)
    assert row.otherwise is None or row.profile or row.roles != ROLES


@pytest.mark.parametrize("row", TABLE.events.values(), ids=list(TABLE.events))
def test_every_event_can_be_obeyed(row: EventRow) -> None:
    assert row.response in FILTERS
    assert row.handle is None or row.handle[0] in TABLE.kinds()


@pytest.mark.parametrize("row", [row for row in TABLE.methods.values() if row.as_admin], ids=lambda row: row.name)
def test_what_is_done_as_admin_names_the_callers_own(row: MethodRow) -> None:
    """The connection may do anything: what it does is bound to a key, an agent or an id of the caller's, and guests have none."""
    bound = {rule for rule in row.params.values() if rule in KEYS or rule is Rule.AGENT or isinstance(rule, Own)}
    assert bound
    assert row.response != "pass"
    assert "guest" not in row.roles
    assert Rule.ANY not in leaves(row.params)
    assert not row.starts_run


@pytest.mark.parametrize("row", [row for row in TABLE.methods.values() if row.starts_run], ids=lambda row: row.name)
def test_what_starts_a_run_is_the_callers_own(row: MethodRow) -> None:
    """In a session of the caller's, and under an id that was claimed for it, or that the gateway chooses and tells."""
    assert any(rule in KEYS for rule in row.params.values())
    named = [name for name, rule in row.params.items() if rule is Rule.NEW_RUN]
    assert all(row.force[name] is Rule.NEW_RUN for name in named)
    assert bool(named) != bool(row.run)
    assert row.params.get("message", Rule.TEXT) is Rule.TEXT


KEYS: set[ParamRule] = {Rule.KEY, Rule.EXISTING_KEY}
NAMED: dict[str, set[ParamRule]] = {
    "sessionKey": KEYS | {Rule.DROP},
    "key": KEYS,
    "parentSessionKey": KEYS,
    "spawnedBy": KEYS,
    "sessionKeys": {Rule.EXISTING_KEYS},
    "keys": {Rule.EXISTING_KEYS, Rule.PASS},
    "agentId": {Rule.AGENT},
    "runId": {Own("run"), Rule.PASS},
    "taskId": {Own("task"), Own("suggestion"), Rule.PASS},
    "taskIds": {Own("task", many=True)},
    "jobId": {Own("cron")},
    "path": {Rule.PATH},
    "model": {Rule.MODEL},
    "cwd": set(),
    "projectId": {Rule.DROP},
    "workspaceDir": {Rule.DROP},
    "agentScope": {Rule.DROP},
    "decision": {Only(frozenset({"allow-once", "deny"}))},
    "idempotencyKey": {Rule.NEW_RUN, Rule.OWN_ID},
    "sessionId": {Rule.DROP, Rule.PASS},
    "message": {Rule.TEXT},
    "task": {Rule.TEXT},
    "titleSource": {Rule.DROP},
    "attachments": {Rule.ATTACHMENTS},
    "deliver": {Rule.DROP},
    "to": {Rule.DROP},
    "extraSystemPrompt": {Rule.DROP},
}


WITHIN = {
    "keys": {"users.prefs.get"},
    "sessionId": {"sessions.resolve"},
    "runId": {"artifacts.list", "artifacts.get", "artifacts.download", "cron.runs"},
    "taskId": {"artifacts.list", "artifacts.get", "artifacts.download"},
}
"""Where the gateway looks such an id up within a session, agent or job that is the caller's."""


@pytest.mark.parametrize(
    ("method", "name", "rule"),
    [(row.name, name, rule) for row in TABLE.methods.values() for name, rule in row.params.items() if name in NAMED],
)
def test_a_parameter_that_names_a_thing_is_never_passed_as_it_is(method: str, name: str, rule: ParamRule) -> None:
    assert rule in NAMED[name], method
    if rule is Rule.PASS:
        assert method in WITHIN[name], method


@pytest.mark.parametrize(
    "method",
    [
        "config.patch",
        "config.apply",
        "agents.create",
        "agents.delete",
        "agents.update",
        "models.authSetApiKey",
        "logs.tail",
        "portal.open",
        "fs.listDir",
        "device.pair.approve",
        "node.invoke",
        "secrets.list",
        "update.run",
        "skills.install",
        "cron.add",
        "cron.run",
        "send",
        "wake",
        "connect",
        "tools.invoke",
    ],
)
def test_what_users_may_not(method: str) -> None:
    assert not TABLE.passes_method(method)


@pytest.mark.parametrize(
    "event",
    [
        "presence",
        "config.changed",
        "heartbeat",
        "session.typing",
        "portal.changed",
        "device.pair.requested",
        "openclaw.approval.requested",
        "node.pair.requested",
    ],
)
def test_events_of_nobody_stay_behind(event: str) -> None:
    assert not TABLE.passes_event(event)


def test_only_what_names_nobody_passes_unseen() -> None:
    unseen = {name for name, row in TABLE.events.items() if row.passage is Passage.PASS}
    assert unseen == {"tick", "shutdown", "gateway.suspension", "chat.metadata.changed", "skills.changed"}


def test_commands() -> None:
    assert not TABLE.allowed_commands & TABLE.closed_commands
    words = TABLE.allowed_commands | TABLE.closed_commands
    assert all(re.fullmatch(r"[a-z][a-z0-9_-]*", word) for word in words)
    assert {"exec", "elevated", "model", "queue", "status"} <= TABLE.closed_commands
    assert not TABLE.allowed_commands & {
        "bash", "config", "restart", "mcp", "new", "reset", "btw", "side", "usage", "steer", "send", "subagents", "tasks"
    }  # fmt: skip


def test_a_parameter_has_one_rule() -> None:
    """TOML itself refuses a key twice in one table; `force` and `params` are two."""
    twice = altered('params = { message = "text" }', 'params = { message = "text", sessionKey = "pass" }')
    assert read_table(twice).methods["chat.send"].params["sessionKey"] is Rule.KEY


def test_the_source_that_ships_is_what_is_read() -> None:
    assert read_table(SOURCE) == TABLE


def test_the_readme_counts_what_is_in_the_table() -> None:
    rows = TABLE.methods.values()
    answered = [row for row in rows if row.answer is not None]
    unfiltered = [
        row for row in rows if row.answer is None and row.response == "pass" and not row.rows and not row.fields
    ]
    words = " ".join(Path("README.md").read_text().split())
    assert f"{len(answered)} of the {len(rows)} methods ask no gateway" in words
    assert len(unfiltered) == 11
    assert "Eleven pass their answer on unfiltered" in words
