"""Merge patches: whatever a configuration says before, afterwards users' agents are as wanted and nothing else has moved."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.gateways.configuration import (
    AgentOptions,
    agents_patch,
    closed_agent,
    default_models,
    open_settings,
    opened,
    replaced_arrays,
    users_agents,
)
from tests.stack.gateway import SESSION_TOOLS, merge

Json = dict[str, Any]

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text("abc*/", max_size=4)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
slugs = st.sampled_from(["u-alice", "u-bob", "u-carol"])
agent_parts = st.fixed_dictionaries(
    {},
    optional={
        "workspace": values,
        "name": values,
        "default": st.booleans(),
        "model": values,
        "tools": values
        | st.fixed_dictionaries(
            {},
            optional={
                "allow": values,
                "alsoAllow": values,
                "deny": values,
                "byProvider": values,
                "fs": values,
                "exec": st.fixed_dictionaries({}, optional={"security": values, "host": values}),
                "elevated": values,
            },
        ),
        "modelPolicy": values,
        "subagents": values,
    },
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "agents": values
        | st.fixed_dictionaries(
            {},
            optional={
                "entries": values | st.dictionaries(slugs | st.just("main"), agent_parts | scalars, max_size=4),
                "ownership": st.sampled_from(["explicit", "implicit"]) | values,
                "defaults": values | st.fixed_dictionaries({}, optional={"model": values, "heartbeat": values}),
            },
        ),
        "tools": values,
        "gateway": values,
    },
)
options = st.builds(
    AgentOptions,
    st.lists(st.sampled_from(["read", "write", "edit"]), max_size=3).map(tuple),
    st.lists(st.sampled_from(["fake/*", "anthropic/*"]), max_size=2).map(tuple),
)


def without_nulls(value: Any) -> Any:
    """A configuration as a gateway keeps it: members that are null do not exist (RFC 7396)."""
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    return value


def wanted_of(config: Json, names: set[str], limits: AgentOptions) -> dict[str, Json]:
    return {name: closed_agent(name, f"/w/{name}/workspace", limits, config) for name in names}


@given(configs.map(without_nulls), st.sets(slugs, min_size=1), options)
def test_a_patch_makes_every_agent_as_wanted_and_is_needed_once(
    config: Json, names: set[str], limits: AgentOptions
) -> None:
    wanted = wanted_of(config, names, limits)
    patch = agents_patch(config, wanted)
    after = merge(config, patch)
    for name in names:
        entry = after["agents"]["entries"][name]
        for part in ("workspace", "tools", "modelPolicy", "subagents"):
            assert entry[part] == wanted[name][part], "exactly, nothing beside it"
    assert agents_patch(after, wanted) == {}
    assert json.loads(json.dumps(patch)) == patch


@given(configs.map(without_nulls), st.sets(slugs, min_size=1))
def test_what_is_not_a_users_stays(config: Json, names: set[str]) -> None:
    after = merge(config, agents_patch(config, wanted_of(config, names, AgentOptions())))
    assert {name: part for name, part in after.items() if name != "agents"} == {
        name: part for name, part in config.items() if name != "agents"
    }
    before = config.get("agents")
    entries = before.get("entries") if isinstance(before, dict) else None
    for name, entry in (entries if isinstance(entries, dict) else {}).items():
        if name not in names:
            assert after["agents"]["entries"][name] == entry


@given(configs.map(without_nulls), st.sets(slugs, min_size=1))
def test_the_input_is_left_as_it_is(config: Json, names: set[str]) -> None:
    before = json.dumps(config)
    agents_patch(config, wanted_of(config, names, AgentOptions()))
    assert json.dumps(config) == before


@given(configs.map(without_nulls), st.sets(slugs, min_size=1))
def test_every_list_that_is_replaced_is_named(config: Json, names: set[str]) -> None:
    patch = agents_patch(config, wanted_of(config, names, AgentOptions()))
    after = merge(config, patch)
    named = replaced_arrays(config, patch)
    assert len(set(named)) == len(named)
    for path, before in lists_of(config):
        if at(after, path) != before:
            assert ".".join(path) in named, path
    for path_text in named:
        assert isinstance(at(config, tuple(path_text.split("."))), list)


def lists_of(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], list[Any]]]:
    if isinstance(value, list):
        return [(path, value)]
    found = []
    for name, member in value.items() if isinstance(value, dict) else ():
        found += lists_of(member, (*path, name))
    return found


def at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def test_the_first_user_makes_the_roster_explicit_and_keeps_the_operators_agent() -> None:
    config: Json = {"agents": {"defaults": {"model": {"primary": "fake/fake-1"}}}}
    patch = agents_patch(config, wanted_of(config, {"u-alice"}, AgentOptions()))
    assert patch["agents"]["ownership"] == "explicit"
    assert patch["agents"]["entries"]["main"] == {}
    assert patch["agents"]["defaults"] == {"systemAgent": {"agentId": "main"}, "heartbeat": {"agentId": "main"}}
    after = merge(config, patch)
    second = agents_patch(after, wanted_of(after, {"u-alice", "u-bob"}, AgentOptions()))
    assert list(second) == ["agents"]
    assert list(second["agents"]) == ["entries"]
    assert list(second["agents"]["entries"]) == ["u-bob"]


def test_owners_that_the_operator_named_stay() -> None:
    config: Json = {
        "agents": {"defaults": {"heartbeat": {"agentId": "ops", "every": "30m"}}, "entries": {"ops": {"name": "Ops"}}}
    }
    patch = agents_patch(config, wanted_of(config, {"u-alice"}, AgentOptions()))
    assert patch["agents"]["defaults"] == {"systemAgent": {"agentId": "ops"}}
    assert "main" not in patch["agents"]["entries"]
    assert merge(config, patch)["agents"]["entries"]["ops"] == {"name": "Ops"}


def test_a_default_agent_that_is_marked_is_enough() -> None:
    config: Json = {"agents": {"entries": {"ops": {"default": True}}}}
    assert list(agents_patch(config, wanted_of(config, {"u-alice"}, AgentOptions()))["agents"]) == ["entries"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tools", "alsoAllow"), ["exec"]),
        (("tools", "allow"), ["read", "exec"]),
        (("tools", "byProvider"), {"fake": {"allow": ["exec"]}}),
        (("tools", "fs", "workspaceOnly"), False),
        (("tools", "fs", "extra"), ["/"]),
        (("tools", "exec"), {"security": "full", "host": "gateway"}),
        (("tools", "elevated"), {"enabled": True, "allowFrom": {"webchat": ["*"]}}),
        (("modelPolicy", "allow"), ["*"]),
        (("modelPolicy", "deny"), []),
        (("subagents", "allowAgents"), ["*"]),
        (("subagents", "model"), "other/model"),
        (("workspace",), "/w/u-bob/workspace"),
        (("cwd",), "/w/u-bob/workspace"),
        (("default",), True),
        (("runtime",), {"type": "acp", "acp": {"agent": "claude", "cwd": "/"}}),
        (("models",), {"fake/fake-1": {"codeMode": True}}),
        (("memory",), {"search": {"extraPaths": ["/w/u-bob/workspace"]}}),
        (("sandbox",), {"mode": "off"}),
        (("sandbox",), {"docker": {"binds": ["/w:/w"], "network": "host"}}),
        (("sandbox",), "all"),
        (("whatever2027Brings",), {"open": True}),
        (("tools", "codeMode"), True),
    ],
)
def test_what_would_open_an_agent_again_is_taken_back(path: tuple[str, ...], value: Any) -> None:
    config: Json = {"agents": {"ownership": "explicit", "defaults": {"model": "fake/fake-1"}}}
    wanted = wanted_of(config, {"u-alice"}, AgentOptions())
    config["agents"]["entries"] = {"u-alice": json.loads(json.dumps(wanted["u-alice"])) | {"name": "Alice"}}
    assert agents_patch(config, wanted) == {}
    place = config["agents"]["entries"]["u-alice"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    named = opened(config, wanted)["u-alice"]
    assert named
    assert all(".".join(path).startswith(one) or one.startswith(".".join(path)) for one in named)
    after = merge(config, agents_patch(config, wanted))
    entry = after["agents"]["entries"]["u-alice"]
    assert without_empty(entry) == wanted["u-alice"] | {"name": "Alice"}
    assert opened(after, wanted) == {}


def without_empty(entry: Json) -> Json:
    """A merge patch leaves `sandbox: {docker: {}}` behind, which says nothing."""
    return {name: value for name, value in entry.items() if value not in ({}, {"docker": {}})}


def test_what_is_a_matter_of_taste_or_makes_an_agent_tighter_stays() -> None:
    config: Json = {"agents": {"ownership": "explicit", "defaults": {"model": "fake/fake-1"}}}
    wanted = wanted_of(config, {"u-alice"}, AgentOptions())
    docker = {"image": "tools:1", "memory": "512m", "cpus": 0.5}
    added = {
        "name": "Alice",
        "identity": {"emoji": "*"},
        "model": {"primary": "own/model"},
        "agentDir": "/state/alice",
        "sandbox": {"mode": "all", "scope": "agent", "workspaceAccess": "rw", "docker": docker},
    }
    config["agents"]["entries"] = {"u-alice": wanted["u-alice"] | added}
    assert agents_patch(config, wanted) == {}
    config["agents"]["entries"]["u-alice"]["sandbox"]["docker"] = docker | {"binds": ["/:/host"]}
    patch = agents_patch(config, wanted)
    assert patch["agents"]["entries"] == {"u-alice": {"sandbox": {"docker": {"binds": None}}}}
    assert opened(config, wanted) == {"u-alice": ["sandbox.docker.binds"]}


def test_a_working_folder_for_all_agents_is_not_that_of_a_users() -> None:
    config: Json = {"agents": {"ownership": "explicit", "defaults": {"model": "fake/fake-1", "cwd": "/shared"}}}
    wanted = wanted_of(config, {"u-alice"}, AgentOptions())
    assert wanted["u-alice"]["cwd"] == wanted["u-alice"]["workspace"]
    without = wanted_of({"agents": {"defaults": {"model": "fake/fake-1"}}}, {"u-alice"}, AgentOptions())
    assert "cwd" not in without["u-alice"], "2026.8.2 refuses the key"
    config["agents"]["entries"] = dict(without)
    assert opened(config, wanted) == {"u-alice": ["cwd"]}


def test_a_users_agent_is_never_the_gateways_default() -> None:
    config: Json = {"agents": {"entries": {"u-alice": {"default": True, "workspace": "/w/u-alice/workspace"}}}}
    patch = agents_patch(config, wanted_of(config, {"u-alice"}, AgentOptions()))["agents"]
    assert patch["ownership"] == "explicit"
    assert patch["entries"]["main"] == {}
    assert patch["entries"]["u-alice"]["default"] is None
    assert patch["defaults"]["heartbeat"] == {"agentId": "main"}


def test_users_agents_are_known_by_their_names_and_places() -> None:
    places = {
        "u-alice": "/data/users/u-alice/workspace",
        "u-bob": "/data/users/u-alice/workspace",
        "u-carol": "/data/users-of-another-sidecar/u-carol/workspace",
        "u-dave": None,
        "main": "/data/users/main",
        "u-Eve": "/data/users/u-Eve/workspace",
    }
    config = {"agents": {"entries": {slug: {"workspace": place} for slug, place in places.items()}}}
    known = users_agents(config, "/data/users/")
    assert known == {slug: f"/data/users/{slug}/workspace" for slug in ("u-alice", "u-bob")}
    assert users_agents({}, "/data/users") == {}


@given(configs.map(without_nulls), st.sets(slugs, min_size=1), options)
def test_opened_names_exactly_those_that_a_patch_would_change(
    config: Json, names: set[str], limits: AgentOptions
) -> None:
    wanted = wanted_of(config, names, limits)
    agents = config.get("agents")
    entries = agents.get("entries") if isinstance(agents, dict) else None
    there = set(entries) & names if isinstance(entries, dict) else set()
    changed = agents_patch(config, wanted).get("agents", {}).get("entries", {})
    assert set(opened(config, wanted)) == set(changed) & there


def test_models_are_the_gateways_default_unless_named() -> None:
    for model, expected in (
        ("fake/fake-1", ["fake/fake-1"]),
        ({"primary": "a/b", "fallbacks": ["c/d", 7]}, ["a/b", "c/d"]),
        ({"fallbacks": ["c/d"]}, ["c/d"]),
        (None, []),
        (7, []),
    ):
        config = {"agents": {"defaults": {"model": model}}}
        assert default_models(config) == expected
        assert closed_agent("u-a", "/w", AgentOptions(), config)["modelPolicy"] == {"allow": expected}
    named = closed_agent("u-a", "/w", AgentOptions(model_allow=("x/*",)), {})
    assert named["modelPolicy"] == {"allow": ["x/*"]}


def test_open_session_tools_are_named_with_their_mend() -> None:
    closed = {"tools": SESSION_TOOLS["closed"]}
    assert open_settings(closed) == []
    for config in ({}, {"tools": None}, {"tools": SESSION_TOOLS["open"]}):
        first, second = open_settings(config)
        assert first == "tools.agentToAgent.enabled must be false"
        assert second == 'tools.sessions.visibility must be "self"'
    half = {"tools": {"agentToAgent": {"enabled": False}, "sessions": {"visibility": "tree"}}}
    assert open_settings(half) == ['tools.sessions.visibility must be "self"']
    assert len(open_settings({"tools": {"agentToAgent": {"enabled": 0}, "sessions": {"visibility": "self"}}})) == 1
