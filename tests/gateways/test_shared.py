"""The entry of an agent that all users share, and what its gateway must say."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.gateways.configuration import AgentOptions, agents_patch, closed_agent
from sidecar.gateways.shared import shared_settings
from tests.stack.gateway import merge

CONFIG: dict[str, Any] = {"agents": {"defaults": {"model": "fake/fake-1"}}}


def entry(*tools: str) -> dict[str, Any]:
    return closed_agent("helpdesk", "/data/helpdesk/workspace", AgentOptions(tools, shared=True), CONFIG)


def test_without_tools_all_are_denied() -> None:
    tools = entry()["tools"]
    assert tools["deny"] == ["*"]
    assert "allow" not in tools
    assert tools["exec"] == {"security": "deny"}


def test_with_tools_only_those_are_allowed() -> None:
    tools = entry("read")["tools"]
    assert (tools["allow"], "deny" in tools) == (["read"], False)
    assert tools["fs"] == {"workspaceOnly": True}


def test_what_the_gateway_keeps_of_conversations_is_not_read() -> None:
    closed = entry()
    assert closed["contextInjection"] == "never"
    assert closed["memory"] == {"search": {"enabled": False, "rememberAcrossConversations": False}}
    assert closed["skills"] == []
    own = closed_agent("u-bob", "/data/u-bob/workspace", AgentOptions(), CONFIG)
    assert {"contextInjection", "memory", "skills"}.isdisjoint(own), "a user's own agent may know its user"


@pytest.mark.parametrize(
    "opened",
    [
        {"contextInjection": "always"},
        {"skills": ["learned"]},
        {"memory": {"search": {"enabled": True}}},
        {"memory": {"search": {"rememberAcrossConversations": True}}},
        {"tools": {"deny": None, "allow": ["read"]}},
        {"tools": {"alsoAllow": ["memory_search"]}},
    ],
)
def test_an_opened_entry_is_closed_again(opened: dict[str, Any]) -> None:
    wanted = {"helpdesk": entry()}
    config = merge(CONFIG, agents_patch(CONFIG, wanted))
    assert agents_patch(config, wanted) == {}
    changed = merge(config, {"agents": {"entries": {"helpdesk": opened}}})
    patch = agents_patch(changed, wanted)
    assert merge(changed, patch)["agents"]["entries"]["helpdesk"] == entry()


def test_the_gateways_own_agent_may_be_the_shared_one() -> None:
    main = closed_agent("main", "/data/main/workspace", AgentOptions((), shared=True), CONFIG)
    config = merge(CONFIG, agents_patch(CONFIG, {"main": main}))
    assert config["agents"]["entries"]["main"]["tools"]["deny"] == ["*"]


STARTUP = "agents.defaults.startupContext.enabled must be false"


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({}, [STARTUP]),
        ({"agents": {"defaults": {"startupContext": {"enabled": True}}}}, [STARTUP]),
        ({"agents": {"defaults": {"startupContext": {"enabled": False}}}}, []),
        (
            {
                "agents": {"defaults": {"startupContext": {"enabled": False}}},
                "plugins": {"slots": {"memory": "memory-lancedb"}},
            },
            ['plugins.slots.memory must be "memory-core" or "none"'],
        ),
        (
            {"agents": {"defaults": {"startupContext": {"enabled": False}}}, "plugins": {"slots": {"memory": "none"}}},
            [],
        ),
        ({"agents": "?", "plugins": []}, [STARTUP]),
    ],
)
def test_what_a_gateway_must_say(config: dict[str, Any], wrong: list[str]) -> None:
    assert shared_settings(config) == wrong
