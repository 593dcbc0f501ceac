"""The published schema, read: which parameters a method takes. The real file is compared in tests/live."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.policy.schema import Schema, SchemaError, read_schema


def schema(definitions: dict[str, Any], *methods: str) -> Schema:
    raw = {
        "methods": {name: {"scope": "operator.read", "since": "2026.8"} for name in methods},
        "definitions": definitions,
    }
    return read_schema(json.dumps(raw).encode())


def closed(*names: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "additionalProperties": False,
        **more,
    }


@pytest.mark.parametrize(
    ("method", "definition"),
    [
        ("chat.send", "ChatSendParams"),
        ("agent", "AgentParams"),
        ("last-heartbeat", "LastHeartbeatParams"),
        ("exec.approval.waitDecision", "ExecApprovalWaitDecisionParams"),
        ("tools.github.authorize.start", "ToolsGitHubAuthorizeStartParams"),
        ("session.members.add", "SessionMemberAddParams"),
        ("agent.identity.get", "AgentIdentityParams"),
        ("mcp.app.view", "MCPAppViewParams"),
    ],
)
def test_a_methods_definition_is_found_by_its_name(method: str, definition: str) -> None:
    assert schema({definition: closed("x"), "OtherParams": closed("y")}, method).params == {method: closed("x")}


def test_what_is_not_found_or_not_one_is_left_out() -> None:
    two = {"ConversationsTurnParams": closed("x"), "ConversationTurnsParams": closed("y"), "Health": closed("z")}
    found = schema(two, "conversation.turn", "health")
    assert found.params == {}
    assert found.scopes == {"conversation.turn": "operator.read", "health": "operator.read"}
    exact = {"ConversationTurnParams": closed("z"), **two}
    assert schema(exact, "conversation.turn").params == {"conversation.turn": closed("z")}


def test_members_of_all_that_an_object_is_combined_from() -> None:
    made = schema(
        {
            "A": closed("a"),
            "Loop": {"allOf": [{"$ref": "#/definitions/Loop"}, closed("l")]},
            "Gone": {"$ref": "#/definitions/Nowhere"},
        }
    )
    for node, names in (
        (closed("x", "y"), {"x", "y"}),
        (closed(), set()),
        ({"$ref": "#/definitions/A"}, {"a"}),
        ({"anyOf": [{"$ref": "#/definitions/A"}, closed("b")]}, {"a", "b"}),
        ({"oneOf": [{"allOf": [closed("a"), closed("c")]}, closed("b")]}, {"a", "b", "c"}),
        ({"$ref": "#/definitions/Loop"}, {"l"}),
        ({"type": "object"}, set()),
        ({"anyOf": [True, closed("a")]}, {"a"}),
        ({"type": "object", "properties": {"a": True}}, {"a"}),
    ):
        members = made.members(node)
        assert members is not None
        assert {*members} == names
    for node in (
        {"type": "string"},
        {},
        {"$ref": "#/definitions/Gone"},
        closed("x", additionalProperties=True),
        closed("x", additionalProperties={"type": "string"}),
        closed("x", patternProperties={"^.*$": {}}),
        {"anyOf": [closed("x"), {"type": "object", "additionalProperties": True}]},
        {"properties": []},
    ):
        assert made.members(node) is None


def test_what_a_lists_entries_are() -> None:
    made = schema({"A": {"type": "array", "items": closed("a")}})
    assert made.items({"$ref": "#/definitions/A"}) == closed("a")
    assert made.items({"anyOf": [{"type": "null"}, {"$ref": "#/definitions/A"}]}) == closed("a")
    assert made.items({"type": "array"}) == {}
    assert made.items({"type": "array", "items": True}) == {}


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"\xff",
        b"[]",
        b"7",
        b"{}",
        b'{"methods": {}}',
        b'{"methods": {}, "definitions": []}',
        b'{"methods": [], "definitions": {}}',
        b'{"methods": {"a": {}}, "definitions": {}}',
        b'{"methods": {"a": 7}, "definitions": {}}',
        b'{"methods": {}, "definitions": {"A": 7}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_schema(source: bytes) -> None:
    with pytest.raises(SchemaError, match="methods"):
        read_schema(source)
