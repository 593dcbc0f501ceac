"""What differs between a gateway, its schema and a table, and what does not."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from sidecar.policy.coverage import (
    Difference,
    Reviewed,
    ScopeChange,
    Surface,
    compare,
    read_reviewed,
    surface_of,
)
from sidecar.policy.schema import Schema, read_schema
from sidecar.policy.table import PolicyError, read_table
from tests.policy.people import TABLE

SOURCE = """
[gateway]
since = "2026.8"
until = "2026.10"
[methods."chat.send"]
starts_run = true
force = { idempotencyKey = "new-run", sessionKey = "key" }
params = { message = "text", sessionId = "drop" }
[methods."chat.history"]
set = { view = "own" }
force = { sessionKey = "existing-key" }
params = { filter = { since = "pass", until = "pass" }, targets = [{ key = "existing-key" }] }
[methods."sessions.delete"]
as_admin = true
params = { key = "key" }
[methods."cron.list"]
answer = { jobs = [] }
[methods."sessions.usage"]
params = { key = "existing-key" }
[methods."compaction.list"]
until = "2026.9"
[methods."tasks.history"]
since = "2026.9"
params = { key = "existing-key" }
[denied.methods]
"config.get" = "shows the host"
[events]
tick = "pass"
chat = "own"
[denied.events]
presence = "shows people"
[commands]
allowed = ["help"]
closed = ["model"]
"""
SMALL = read_table(SOURCE.encode())
METHODS = frozenset({*SMALL.methods, "config.get"} - {"sessions.usage", "compaction.list"})
EVENTS = frozenset({"connect.challenge", "tick", "chat", "presence"})
SURFACE = Surface("2026.9.6", METHODS, EVENTS)
SCOPES = ("operator.read", "operator.write")


def closed(**members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members, "additionalProperties": False}


TEXT = {"type": "string"}
DEFINITIONS: dict[str, Any] = {
    "ChatSendParams": closed(sessionKey=TEXT, message=TEXT, idempotencyKey=TEXT),
    "ChatHistoryParams": closed(
        sessionKey=TEXT,
        view=TEXT,
        filter=closed(since=TEXT, until=TEXT),
        targets={"type": "array", "items": closed(key=TEXT)},
    ),
    "SessionsDeleteParams": closed(key=TEXT),
    "CronListParams": closed(page=TEXT),
    "SessionsUsageParams": closed(key=TEXT),
    "TasksHistoryParams": closed(key=TEXT),
}
OF_METHOD = {"chat.send": "operator.write", "sessions.delete": "operator.admin", "cron.list": "operator.admin"}


def schema(scopes: dict[str, str] | None = None, **over: Any) -> Schema:
    said = {name: {"scope": "operator.read"} for name in SMALL.methods}
    said |= {name: {"scope": scope} for name, scope in (OF_METHOD | (scopes or {})).items()}
    return read_schema(json.dumps({"methods": said, "definitions": DEFINITIONS | over}).encode())


QUIET = Reviewed(methods=frozenset({"sessions.usage"}))


def differs(surface: Surface = SURFACE, of: Schema | None = None, reviewed: Reviewed = QUIET) -> Difference:
    return compare(SMALL, surface, of, scopes=SCOPES, reviewed=reviewed)


def test_nothing_differs() -> None:
    for difference in (differs(), differs(of=schema())):
        assert difference == Difference()
        assert difference.same


def test_new_and_gone_names() -> None:
    surface = Surface(
        "2026.9.6",
        METHODS - {"chat.history", "config.get", "tasks.history"} | {"portal.open", "a.b"},
        EVENTS - {"chat", "presence"} | {"portal.changed"},
    )
    assert differs(surface) == Difference(
        new_methods=("a.b", "portal.open"),
        gone_methods=("chat.history", "tasks.history"),
        new_events=("portal.changed",),
        gone_events=("chat",),
    )


def test_a_row_is_gone_only_where_it_holds() -> None:
    earlier = replace(SURFACE, version="2026.8.2", methods=METHODS - {"tasks.history"} | {"compaction.list"})
    assert differs(earlier, of=schema()).same
    for version in ("2026.9.0", "2026.10.1", "2027.1.1"):
        assert differs(replace(earlier, version=version)).gone_methods == ("tasks.history",)
    assert differs(replace(earlier, methods=METHODS)).gone_methods == ("compaction.list",)


def test_a_method_of_another_version_is_not_new() -> None:
    assert differs(replace(SURFACE, version="2026.8.2", methods=METHODS | {"compaction.list"})).same
    assert differs(replace(SURFACE, methods=METHODS | {"compaction.list"})).same


def test_what_was_never_advertised_is_not_gone() -> None:
    surface = replace(SURFACE, events=EVENTS - {"chat"})
    assert compare(SMALL, surface, scopes=SCOPES) == Difference(gone_methods=("sessions.usage",), gone_events=("chat",))
    assert differs(surface, reviewed=replace(QUIET, events=frozenset({"chat"}))).same


def test_new_parameters() -> None:
    of = schema(
        ChatSendParams=closed(sessionKey=TEXT, message=TEXT, idempotencyKey=TEXT, sessionId=TEXT, cwd=TEXT, model=TEXT),
        CronListParams=closed(page=TEXT, other=TEXT),
        ChatHistoryParams=closed(
            sessionKey=TEXT,
            view=TEXT,
            filter=closed(since=TEXT, until=TEXT, by=TEXT),
            targets={"type": "array", "items": closed(key=TEXT, agentId=TEXT)},
        ),
    )
    difference = differs(of=of, reviewed=replace(QUIET, closed={"chat.send": frozenset({"cwd"})}))
    assert difference == Difference(
        new_params={"chat.history": ("filter.by", "targets[].agentId"), "chat.send": ("model",)}
    )
    assert not difference.same


def test_gone_parameters() -> None:
    """What is taken out of a request may be gone; what is sent, forced or set may not."""
    of = schema(
        ChatSendParams=closed(sessionKey=TEXT, idempotencyKey=TEXT),
        ChatHistoryParams=closed(filter=closed(since=TEXT), targets={"type": "array", "items": closed()}),
    )
    difference = differs(of=of, reviewed=replace(QUIET, newer={"chat.history": frozenset({"view"})}))
    assert difference == Difference(
        gone_params={"chat.history": ("filter.until", "sessionKey", "targets[].key"), "chat.send": ("message",)}
    )


def test_what_takes_any_parameter_is_not_judged() -> None:
    loose = {"type": "object", "additionalProperties": True, "properties": {"x": TEXT}}
    assert differs(of=schema(ChatSendParams=loose)).same
    inner = closed(sessionKey=TEXT, view=TEXT, filter=loose, targets={"type": "array"})
    assert differs(of=schema(ChatHistoryParams=inner)).same


def test_methods_that_the_schema_does_not_tell_are_named() -> None:
    of = replace(schema(), params={})
    difference = differs(of=of)
    assert difference.not_compared == (
        "chat.history",
        "chat.send",
        "sessions.delete",
        "sessions.usage",
        "tasks.history",
    )
    assert difference.same, "it is not known to differ"
    assert differs().not_compared == ()


@pytest.mark.parametrize(
    ("scopes", "found"),
    [
        ({"chat.send": "operator.admin"}, ScopeChange("chat.send", "operator.admin", as_admin=False)),
        ({"chat.send": "node"}, ScopeChange("chat.send", "node", as_admin=False)),
        ({"sessions.delete": "operator.write"}, ScopeChange("sessions.delete", "operator.write", as_admin=True)),
        ({"chat.send": "dynamic", "sessions.delete": "dynamic", "cron.list": "node"}, None),
        ({"sessions.delete": "operator.pairing"}, None),
    ],
)
def test_scopes(scopes: dict[str, str], found: ScopeChange | None) -> None:
    difference = differs(of=schema(scopes))
    assert difference == Difference(scopes=(found,) if found else ())


def test_a_method_without_a_scope_is_not_judged_by_it() -> None:
    of = schema()
    assert differs(of=replace(of, scopes={})).scopes == ()


def test_the_surface_of_a_hello() -> None:
    hello = {"server": {"version": "2026.9.6"}, "features": {"methods": ["a", 7, "b"], "events": ["c"]}}
    assert surface_of(hello) == Surface("2026.9.6", frozenset({"a", "b"}), frozenset({"c"}))
    for bad in ({}, {"server": 7, "features": []}, {"features": {"methods": "a", "events": None}}):
        assert surface_of(bad) == Surface("", frozenset(), frozenset())


GOOD = b"""
[unadvertised]
methods = ["x.y"]
events = ["z"]
[closed]
"chat.send" = ["cwd"]
[newer]
agent = ["x", "y"]
"""


def test_what_was_reviewed() -> None:
    assert read_reviewed(GOOD) == Reviewed(
        frozenset({"x.y"}), frozenset({"z"}), {"chat.send": frozenset({"cwd"})}, {"agent": frozenset({"x", "y"})}
    )
    for part in (b"[unadvertised]", b"[closed]", b"[newer]", b"methods =", b"events ="):
        with pytest.raises(PolicyError, match="reviewed"):
            read_reviewed(GOOD.replace(part, b"[other]" if part.startswith(b"[") else b"other ="))
    for source in (
        b"",
        b"\xff",
        b"[closed",
        GOOD.replace(b'["cwd"]', b"7"),
        b"closed = 7\nnewer = 7\nunadvertised = 7",
    ):
        with pytest.raises(PolicyError, match="reviewed"):
            read_reviewed(source)


def test_what_ships_as_reviewed_is_about_what_is_open() -> None:
    shipped = read_reviewed((files("sidecar.policy") / "reviewed.toml").read_bytes())
    assert {*shipped.closed, *shipped.newer} <= {*TABLE.methods}
    assert shipped.events <= {*TABLE.events}
