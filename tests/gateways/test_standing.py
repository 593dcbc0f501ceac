"""What a user is told of how their gateway stands, from what the sidecar's own connection has seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.app import shipped_tables
from sidecar.domain.isolation import Level
from sidecar.gateways.admin import AdminConnection, Configuration, State
from sidecar.gateways.configuration import AgentOptions, closed_agent
from sidecar.gateways.options import GatewayOptions
from sidecar.gateways.standing import SAYS, Standing, standing_of
from sidecar.gateways.unmetered import WAYS, Unmetered
from sidecar.policy.versions import choose
from tests.stack.gateway import merge

GATEWAY = GatewayOptions("main", "ws://127.0.0.1:1", "trusted-proxy", password="x")
CONFIG: dict[str, Any] = {
    "tools": {"agentToAgent": {"enabled": False}, "sessions": {"visibility": "self"}},
    "agents": {"entries": {"u-ann": closed_agent("u-ann", "/data/u-ann/workspace", AgentOptions(), {}), "main": {}}},
}


def seen(
    over: dict[str, Any] | None = None,
    gateway: GatewayOptions = GATEWAY,
    version: str = "2026.9.6",
    state: State = State.READY,
    agent_id: str = "u-ann",
    closed: bool = True,
) -> Standing:
    """As it is told once `config.get` has answered `CONFIG` with `over` merged in."""
    admin = AdminConnection(gateway, shipped_tables(), lambda _: None, lambda _: None)
    admin.version, admin.state = version, state
    admin.choice = choose(shipped_tables(), version, gateway.trusted_versions)
    effective = merge(CONFIG, over or {})
    admin.seen = Configuration("hash", effective, effective)
    return standing_of(admin, agent_id, closed=closed)


def agent(**entry: Any) -> dict[str, Any]:
    return {"agents": {"entries": {"u-ann": entry}}}


def test_a_closed_agent_on_a_closed_gateway() -> None:
    assert seen() == Standing(
        ready=True,
        why="",
        version="2026.9.6",
        covered=True,
        runs=True,
        level=Level.WORKSPACE,
        weakened_by=("All agents of this gateway run in one process, as one user of its host.",),
        unmetered=tuple(way.what for way in WAYS),
    )


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.setting or way.what)
def test_what_nobody_counts_until_it_is_turned_off(way: Unmetered) -> None:
    off: Any = way.off
    for name in reversed(way.setting.split(".")):
        off = {name: off}
    assert (way.what in seen(off if way.setting else None).unmetered) is not bool(way.setting)
    assert way.what in seen({"agents": None}).unmetered


def test_an_agent_that_has_a_word_of_its_own_for_it() -> None:
    recaps = "recaps of sessions"
    off = {"agents": {"defaults": {"utilityModel": ""}}}
    assert recaps not in seen(merge(off, agent(utilityModel=""))).unmetered
    assert recaps in seen(merge(off, agent(utilityModel="fake/small"))).unmetered


@pytest.mark.parametrize(
    ("over", "level"),
    [
        (agent(tools={"allow": ["read", "exec"]}), Level.TRANSCRIPT),
        (agent(tools={"allow": None}), Level.TRANSCRIPT),
        (agent(tools={"allow": "read"}), Level.TRANSCRIPT),
        (agent(tools={"fs": {"workspaceOnly": None}}), Level.TRANSCRIPT),
        (agent(tools=None), Level.TRANSCRIPT),
        (agent(tools={"allow": ["exec"]}, sandbox={"mode": "all"}), Level.SANDBOX),
        (agent(tools={"allow": ["exec"]}, sandbox={"mode": "all", "scope": "agent"}), Level.SANDBOX),
        (agent(tools={"allow": ["exec"]}, sandbox={"mode": "all", "scope": "shared"}), Level.TRANSCRIPT),
        (agent(tools={"allow": ["exec"]}, sandbox={"mode": "non-main"}), Level.TRANSCRIPT),
        ({"agents": {"defaults": {"sandbox": {"mode": "all"}}}}, Level.SANDBOX),
        (
            {"agents": {"defaults": {"sandbox": {"mode": "all"}}, **agent(sandbox={"mode": "off"})["agents"]}},
            Level.WORKSPACE,
        ),
        ({"tools": {"sessions": {"visibility": "all"}}}, Level.NONE),
        ({"tools": None}, Level.NONE),
        ({"agents": {"entries": {"u-ann": None}}}, None),
        ({"agents": None}, None),
    ],
)
def test_the_level_follows_the_configuration(over: dict[str, Any], level: Level | None) -> None:
    assert seen(over).level is level


def test_what_the_configuration_does_not_say() -> None:
    assert seen(closed=False).level is Level.NONE
    assert seen(agent_id="u-ben").level is None
    token = seen(gateway=replace(GATEWAY, auth="token", token="x"))
    assert token.level is Level.WORKSPACE
    assert any("one person" in line for line in token.weakened_by)


def test_a_shared_agent_is_a_transcript_at_most() -> None:
    shared = replace(GATEWAY, shared_agent="team")
    over = {"agents": {"entries": {"team": CONFIG["agents"]["entries"]["u-ann"]}}}
    assert seen(over, shared, agent_id="team").level is Level.NONE, "its start-up context tells one user of another"
    over["agents"]["defaults"] = {"startupContext": {"enabled": False}, "sandbox": {"mode": "all"}}
    assert seen(over, shared, agent_id="team").level is Level.TRANSCRIPT


@pytest.mark.parametrize("state", State)
def test_every_state_has_words_for_users(state: State) -> None:
    said = seen(state=state)
    assert said.why == SAYS[state]
    assert said.ready is (state in {State.READY, State.UNCOVERED})
    assert said.runs is (state is State.READY)
    assert bool(said.why) is (state is not State.READY)


def test_versions() -> None:
    assert not seen(version="2031.1.1", state=State.UNCOVERED).covered
    trusted = seen(gateway=replace(GATEWAY, trusted_versions=["2031.1.1"]), version="2031.1.1")
    assert (trusted.covered, trusted.runs) == (False, True)
    assert any("newer" in line for line in trusted.weakened_by)


def test_before_the_first_look() -> None:
    admin = AdminConnection(GATEWAY, shipped_tables(), lambda _: None, lambda _: None)
    assert standing_of(admin, "u-ann", closed=True) == Standing(
        ready=False,
        why=SAYS[State.AWAY],
        version="",
        covered=False,
        runs=False,
        level=None,
        weakened_by=(),
        unmetered=(),
    )
