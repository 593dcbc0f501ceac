"""Bob's agent does what bob tells it, and bob is hostile: it may reach nothing of alice's.

Every tool that the gateway has is tried, directly and by `tool_call`, with alice's paths, keys and ids. Each attack first wins from
an agent that nobody closed (else its failure would prove nothing), and then fails from an agent that the sidecar made: on the same
gateway with everything wide open, where only the agent's own entry stands in the way, and on a gateway as it should be configured.
`uncontrolled.txt` names the attacks that won from nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.doctor.attack.ground import Ground, id_of
from sidecar.doctor.attack.matrix import MATRIX, Attack, judged
from tests.live.conftest import House
from tests.live.hostile import TURN_WAYS, Fought, Place, fight, kept_file, lay_link, uncontrolled
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import RawClient, RequestError, add_agents, patch_config
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

ALLOWED = ("read", "write", "edit", "apply_patch")
UNCONTROLLED = Path(__file__).with_name("uncontrolled.txt")


@pytest_asyncio.fixture(scope="module")
async def wide(model: EchoModel, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Session tools open to every agent, as 2026.9.6 has them by default, and patches everywhere."""
    options = GatewayOptions(
        tmp_path_factory.mktemp("wide"),
        model.url,
        mode="token",
        session_tools="open",
        extra={"tools": {"exec": {"applyPatch": {"workspaceOnly": False}}}},
    )
    async with Gateway(options) as running:
        yield running


def ground_on(gateway: Gateway, victim: str, attacker: str) -> Ground:
    new = Ground.new(str(gateway.workspaces), str(gateway.config_path), str(gateway.state_dir), gateway.http_url)
    return replace(new, victim=victim, attacker=attacker, open=attacker)


async def settled(place: Place, her: RawClient) -> Place:
    """Alice says her secret and keeps it in a file, by her agent's own tools."""
    ground = place.ground
    written = await her.chat(
        ground.her_key, f"findme {ground.told} {tool('write', path='kept.txt', content=kept_file(ground))}"
    )
    assert "Successfully wrote" in written
    lay_link(place)
    rows = (await place.admin.request("sessions.list", {"agentId": ground.victim}))["sessions"]
    [session_id] = [row["sessionId"] for row in rows if row["key"] == ground.her_key]
    said = (await place.admin.request("chat.history", {"sessionKey": ground.her_key}))["messages"]
    [message_id, *_] = [id_of(message) for message in said if ground.told in json.dumps(message)]
    return Place(place.gateway, place.model, place.admin, place.client, ground.knowing(session_id, message_id))


@pytest_asyncio.fixture(scope="module")
async def unclosed(wide: Gateway, model: EchoModel) -> AsyncIterator[Place]:
    """Agents that nobody closed; the gateway's owner asks, so that tools for the owner's turns alone are there too."""
    ground = ground_on(wide, "open-alice", "open-bob")
    async with RawClient.admin(wide) as admin:
        agents = (ground.victim, ground.attacker)
        everybody = {"subagents": {"allowAgents": ["*"]}}
        await add_agents(admin, {agent: {"workspace": ground.workspace(agent), **everybody} for agent in agents})
        yield await settled(Place(wide, model, admin, admin, ground), admin)


@pytest_asyncio.fixture(scope="module")
async def closed_on_wide(
    wide: Gateway,
    unclosed: Place,
    identity_provider: IdentityProvider,
    model: EchoModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Place]:
    """Agents of the sidecar on the wide open gateway, which it serves only when told to."""
    folder = tmp_path_factory.mktemp("wide-sidecar")
    settings = {"allow_open_gateway": True}
    async with (
        Sidecar(SidecarOptions(folder, wide, identity_provider.issuer, gateway_settings=settings)) as sidecar,
        place_of(House(wide, model, identity_provider, sidecar)) as place,
    ):
        yield place


@pytest_asyncio.fixture(scope="module")
async def closed(house: House) -> AsyncIterator[Place]:
    async with place_of(house) as place:
        yield place


@contextlib.asynccontextmanager
async def place_of(house: House) -> AsyncIterator[Place]:
    """Alice and bob behind the sidecar."""
    alice, bob = (f"{name}{uuid.uuid4().hex[:6]}" for name in ("alice", "bob"))
    async with house.client(alice) as her, house.client(bob) as client, RawClient.admin(house.gateway) as admin:
        place = Place(house.gateway, house.model, admin, client, ground_on(house.gateway, f"u-{alice}", f"u-{bob}"))
        yield await settled(place, her)


@pytest_asyncio.fixture(scope="module")
async def controls(unclosed: Place) -> Fought:
    return await fight(unclosed)


@pytest_asyncio.fixture(scope="module")
async def on_wide(closed_on_wide: Place, controls: Fought) -> Fought:
    return await fight(closed_on_wide)


@pytest_asyncio.fixture(scope="module")
async def on_closed(closed: Place) -> Fought:
    return await fight(closed)


def tool(name: str, **arguments: Any) -> str:
    return f"[[tool {name} {json.dumps(arguments)}]]"


def listed() -> dict[str, str]:
    lines = [line for line in UNCONTROLLED.read_text().splitlines() if line and not line.startswith("#")]
    return {name.strip(): why.strip() for name, _, why in (line.rpartition(" - ") for line in lines)}


@pytest.mark.parametrize("attack", MATRIX, ids=lambda attack: f"{attack.tool}: {attack.name}")
async def test_an_attack_wins_from_an_open_agent_and_loses_from_ours(
    attack: Attack,
    controls: Fought,
    on_wide: Fought,
    on_closed: Fought,
    closed_on_wide: Place,
    closed: Place,
) -> None:
    controlled = f"{attack.tool}: {attack.name}" not in listed()
    assert controlled == (f"{attack.tool}: {attack.name}" not in uncontrolled(controls, [*MATRIX]))
    for fought, place in ((on_wide, closed_on_wide), (on_closed, closed)):
        for way in TURN_WAYS:
            at = (attack.tool, attack.name, way)
            outcome = judged(
                attack, way, place.ground, fought.said[at], ALLOWED, left=fought.harm[at] and attack.leaves
            )
            assert outcome.verdict == "held", outcome


async def test_every_tool_of_the_gateway_is_known(unclosed: Place, controls: Fought, on_closed: Fought) -> None:
    catalogue = await unclosed.catalogue()
    assert len(catalogue) > 60
    assert set(catalogue) <= {attack.tool for attack in MATRIX}, "a new tool needs an attack of its own"
    assert {name for name, _, _ in controls.said} == {attack.tool for attack in MATRIX}


async def test_what_won_from_nobody_is_listed_by_name_and_nothing_else_is(controls: Fought) -> None:
    found = uncontrolled(controls, [*MATRIX])
    assert "\n".join(sorted(f"{name} - {why}" for name, why in found.items())) == "\n".join(
        sorted(f"{name} - {why}" for name, why in listed().items())
    )


@pytest.mark.parametrize("name", ["her file, absolute path", "her file, symlink"])
async def test_a_reply_attaches_files_of_others_from_an_open_agent_and_not_from_ours(
    name: str, controls: Fought, on_wide: Fought, on_closed: Fought
) -> None:
    assert controls.reply_attached[name]
    assert not on_wide.reply_attached[name]
    assert not on_closed.reply_attached[name]


async def test_nothing_of_alice_is_left_in_what_bob_received(
    closed_on_wide: Place, closed: Place, on_wide: Fought, on_closed: Fought
) -> None:
    for place, fought in ((closed_on_wide, on_wide), (closed, on_closed)):
        seen = "\n".join([*place.client.received, *fought.said.values()])
        assert "Path escapes" in seen
        for word in (place.ground.told, place.ground.kept, place.gateway.token or place.gateway.password):
            assert word not in seen


async def test_the_agents_are_closed_in_the_configuration(closed_on_wide: Place, closed: Place) -> None:
    for place in (closed_on_wide, closed):
        entries = (await place.admin.request("config.get"))["sourceConfig"]["agents"]["entries"]
        for agent in (place.ground.victim, place.ground.attacker):
            assert entries[agent] == closed_entry(place, agent)


def closed_entry(place: Place, agent: str) -> dict[str, Any]:
    return {
        "workspace": str(place.workspace(agent)),
        "tools": {
            "allow": list(ALLOWED),
            "fs": {"workspaceOnly": True},
            "exec": {"security": "deny"},
            "elevated": {"enabled": False},
            "codeMode": False,
        },
        "modelPolicy": {"allow": ["fake/fake-1"]},
        "subagents": {"allowAgents": [agent]},
    }


@pytest.mark.parametrize(
    "change", [{"cwd": "HERS"}, {"agents.defaults.cwd": "HERS"}, {"models": {"fake/fake-1": {"codeMode": True}}}]
)
async def test_other_keys_that_would_open_an_agent_are_taken_back(
    house: House, closed: Place, change: dict[str, Any]
) -> None:
    """`cwd` moves the root of an agent's files, its own or the gateway's default (2026.9.6)."""
    name = f"moved{uuid.uuid4().hex[:6]}"
    agent, her_folder = f"u-{name}", closed.ground.her_folder
    steal = tool("read", path="kept.txt")
    async with RawClient.admin(house.gateway) as admin, house.client(name) as client:
        [(key, value)] = change.items()
        value = her_folder if value == "HERS" else value
        patch = {"agents": {"defaults": {"cwd": value}} if "." in key else {"entries": {agent: {key: value}}}}
        await patch_config(admin, patch)
        try:
            await until_closed(closed, admin, agent, {"cwd": str(closed.workspace(agent))} if "." in key else {})
            assert closed.ground.kept not in await said(client, steal)
        finally:
            await patch_config(admin, {"agents": {"defaults": {"cwd": None}}})


async def test_an_agent_that_somebody_opened_is_closed_before_its_user_can_use_it_for_long(
    house: House, closed: Place
) -> None:
    name = f"opened{uuid.uuid4().hex[:6]}"
    agent = f"u-{name}"
    steal = tool("read", path=closed.ground.her_file)
    async with RawClient.admin(house.gateway) as admin, house.client(name) as client:
        opened = {"profile": "full", "exec": {"security": "full"}, "fs": {"workspaceOnly": False}}
        await patch_config(admin, {"agents": {"entries": {agent: {"tools": opened}}}})
        await until_closed(closed, admin, agent, {})
        assert closed.ground.kept not in await said(client, steal)


async def said(client: RawClient, message: str) -> str:
    """Until the sidecar has seen that it is closed, it says so and starts nothing."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await client.chat("one", message)
            except RequestError as refused:
                if refused.detail_code != "GATEWAY_OPEN":
                    raise
                await asyncio.sleep(0.2)


async def until_closed(place: Place, admin: RawClient, agent: str, more: dict[str, Any]) -> None:
    async with asyncio.timeout(120):
        while True:
            entries = (await admin.request("config.get"))["sourceConfig"]["agents"]["entries"]
            if entries[agent] == closed_entry(place, agent) | more:
                return
            await asyncio.sleep(0.1)
