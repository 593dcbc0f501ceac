"""Bob's agent does what bob tells it, and bob is hostile: it may reach nothing of alice's.

Each attack first succeeds from an agent that nobody closed (else its failure would prove nothing), and then fails from
an agent that the sidecar made: on the same gateway with session tools wide open, where only the agent's own entry stands
in the way, and on a gateway as it should be configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.live.conftest import House
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import RawClient, add_agents, patch_config
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live


@dataclass(frozen=True)
class Ground:
    """One alice and one bob on one gateway: what she has, and how bob's agent is told what to do."""

    gateway: Gateway
    admin: RawClient
    alice: str
    """Her agent."""

    bob: str
    client: RawClient
    """Bob's connection."""

    told: str
    """What she said in her main session."""

    kept: str
    """What stands in her `kept.txt`."""

    @property
    def her_key(self) -> str:
        return f"agent:{self.alice}:main"

    def workspace(self, agent: str) -> Path:
        return self.gateway.workspaces / agent / "workspace"

    @property
    def her_file(self) -> str:
        return str(self.workspace(self.alice) / "kept.txt")

    async def attack(self, message: str, *, as_owner: bool = False) -> str:
        """Bob's agent obeys, in a session of its own; what its tools returned."""
        return await (self.admin if as_owner else self.client).chat(f"agent:{self.bob}:{uuid.uuid4().hex}", message)

    async def hers(self) -> str:
        """All that alice has: her transcript and her files."""
        history = await self.admin.request("chat.history", {"sessionKey": self.her_key})
        files = (file for file in self.workspace(self.alice).rglob("*") if ".git" not in file.parts and file.is_file())
        return "\n".join([json.dumps(history), *(f"{file.name} {file.read_text(errors='replace')}" for file in files)])


@dataclass(frozen=True)
class Attack:
    """`say` is the message to bob's agent, given a mark to leave; it has won when `word` is in the answer, or where there is
    no `word`, when the mark is among alice's things."""

    name: str
    say: Callable[[Ground, str], str]
    word: Callable[[Ground], str] | None = None
    owner: bool = False
    """The gateway offers the tool to its owner's turns alone, so from the open agent it is the owner who asks."""


def tool(name: str, **arguments: Any) -> str:
    return f"[[tool {name} {json.dumps(arguments)}]]"


def called(name: str, **arguments: Any) -> str:
    """A tool of the catalogue: most are reached like this, and by their own name from nobody."""
    return tool("tool_call", id=name, args=arguments)


def told(ground: Ground) -> str:
    return ground.told


def kept(ground: Ground) -> str:
    return ground.kept


def her_agent(ground: Ground) -> str:
    return ground.alice


def secret_of_gateway(ground: Ground) -> str:
    return ground.gateway.token or ground.gateway.password


def dotted(ground: Ground, name: str) -> str:
    return f"../../{ground.alice}/workspace/{name}"


ATTACKS = (
    Attack("sessions_history", lambda g, _: called("sessions_history", sessionKey=g.her_key), told),
    Attack("sessions_search", lambda g, _: called("sessions_search", query=g.told, sessionKey=g.her_key), told),
    Attack("sessions_list", lambda g, _: called("sessions_list"), her_agent),
    Attack("session_status", lambda g, _: called("session_status", sessionKey=g.her_key), her_agent),
    Attack(
        "sessions_send", lambda g, mark: called("sessions_send", sessionKey=g.her_key, message=mark, timeoutSeconds=9)
    ),
    Attack("read-absolute", lambda g, _: tool("read", path=g.her_file), kept),
    Attack("read-dots", lambda g, _: tool("read", path=dotted(g, "kept.txt")), kept),
    Attack("read-symlinked-folder", lambda g, _: tool("read", path="link/kept.txt"), kept),
    Attack("read-url", lambda g, _: tool("read", path=f"file://{g.her_file}"), kept),
    Attack("read-gateway-configuration", lambda g, _: tool("read", path=str(g.gateway.config_path)), secret_of_gateway),
    Attack("read-by-tool_call", lambda g, _: called("read", path=g.her_file), kept),
    Attack("ls", lambda g, _: tool("ls", path=str(g.workspace(g.alice))), lambda _: "kept.txt"),
    Attack("write-absolute", lambda g, mark: tool("write", path=str(g.workspace(g.alice) / mark), content=mark)),
    Attack("write-dots", lambda g, mark: tool("write", path=dotted(g, mark), content=mark)),
    Attack("write-symlinked", lambda g, mark: tool("write", path=f"link/{mark}", content=mark)),
    Attack(
        "edit",
        lambda g, mark: tool("edit", path=g.her_file, edits=[{"oldText": g.kept, "newText": f"{g.kept} {mark}"}]),
    ),
    Attack("exec", lambda g, _: tool("exec", command=f"cat {g.her_file}"), kept),
    Attack("exec-by-tool_call", lambda g, _: called("exec", command=f"cat {g.her_file}"), kept),
    Attack("exec-writes", lambda g, mark: tool("exec", command=f"touch {g.workspace(g.alice)}/{mark}")),
    Attack("gateway", lambda g, _: called("gateway", action="config.get", path="agents"), her_agent, owner=True),
)


@pytest_asyncio.fixture(scope="module")
async def wide(model: EchoModel, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Session tools open to every agent, as 2026.9.6 has them by default."""
    options = GatewayOptions(tmp_path_factory.mktemp("wide"), model.url, mode="token", session_tools="open")
    async with Gateway(options) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def unclosed(wide: Gateway) -> AsyncIterator[Ground]:
    """Agents that nobody closed, and a bob with no more scopes than the sidecar gives to users."""
    alice, bob, told, kept = "open-alice", "open-bob", mark(), mark()
    async with RawClient.admin(wide) as admin, RawClient.connect(wide.url, {"token": wide.token}) as client:
        ground = Ground(wide, admin, alice, bob, client, told, kept)
        await add_agents(admin, {agent: {"workspace": str(ground.workspace(agent))} for agent in (alice, bob)})
        await admin.chat(ground.her_key, f"{told} {tool('write', path='kept.txt', content=kept)}")
        lay_link(ground)
        yield ground


@pytest_asyncio.fixture(scope="module")
async def closed_on_wide(
    wide: Gateway,
    unclosed: Ground,
    identity_provider: IdentityProvider,
    model: EchoModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Ground]:
    """Agents of the sidecar on the wide open gateway, which it serves only when told to."""
    folder = tmp_path_factory.mktemp("wide-sidecar")
    settings = {"allow_open_gateway": True}
    async with (
        Sidecar(SidecarOptions(folder, wide, identity_provider.issuer, gateway_settings=settings)) as sidecar,
        ground_of(House(wide, model, identity_provider, sidecar)) as ground,
    ):
        yield ground


@pytest_asyncio.fixture(scope="module")
async def closed(house: House) -> AsyncIterator[Ground]:
    async with ground_of(house) as ground:
        yield ground


@contextlib.asynccontextmanager
async def ground_of(house: House) -> AsyncIterator[Ground]:
    """Alice and bob behind the sidecar; she keeps her file by her own closed tools."""
    alice, bob, told, kept = f"alice{uuid.uuid4().hex[:6]}", f"bob{uuid.uuid4().hex[:6]}", mark(), mark()
    async with house.client(alice) as her, house.client(bob) as client, RawClient.admin(house.gateway) as admin:
        ground = Ground(house.gateway, admin, f"u-{alice}", f"u-{bob}", client, told, kept)
        written = await her.chat("main", f"{told} {tool('write', path='kept.txt', content=kept)}")
        assert "Successfully wrote" in written
        lay_link(ground)
        yield ground


def mark() -> str:
    return f"mark{uuid.uuid4().hex[:16]}"


def lay_link(ground: Ground) -> None:
    """Left over from a time when bob's agent had a shell, say."""
    own = ground.workspace(ground.bob)
    own.mkdir(parents=True, exist_ok=True)
    (own / "link").symlink_to(ground.workspace(ground.alice))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_wins_from_an_open_agent_and_loses_from_ours(
    attack: Attack, unclosed: Ground, closed_on_wide: Ground, closed: Ground
) -> None:
    assert await wins(attack, unclosed, as_owner=attack.owner), "an attack that fails everywhere proves nothing"
    assert not any(await asyncio.gather(wins(attack, closed_on_wide), wins(attack, closed)))


async def wins(attack: Attack, ground: Ground, *, as_owner: bool = False) -> bool:
    left = mark()
    message = attack.say(ground, left)
    answer = await ground.attack(message, as_owner=as_owner)
    assert answer.startswith("tool "), "the tool was asked for, and said something"
    if attack.word is None:
        return left in await ground.hers()
    return attack.word(ground) in answer.replace(message, "")


async def test_nothing_of_alice_is_left_in_what_bob_received(closed_on_wide: Ground, closed: Ground) -> None:
    for ground in (closed_on_wide, closed):
        seen = "\n".join(ground.client.received)
        assert "tool " in seen
        for word in (ground.told, ground.kept, secret_of_gateway(ground)):
            assert word not in seen


async def test_the_agents_are_closed_in_the_configuration(closed_on_wide: Ground, closed: Ground) -> None:
    for ground in (closed_on_wide, closed):
        entries = (await ground.admin.request("config.get"))["sourceConfig"]["agents"]["entries"]
        for agent in (ground.alice, ground.bob):
            assert entries[agent] == closed_entry(ground, agent)


def closed_entry(ground: Ground, agent: str) -> dict[str, Any]:
    return {
        "workspace": str(ground.workspace(agent)),
        "tools": {
            "allow": ["read", "write", "edit", "apply_patch"],
            "fs": {"workspaceOnly": True},
            "exec": {"security": "deny"},
            "elevated": {"enabled": False},
        },
        "modelPolicy": {"allow": ["fake/fake-1"]},
        "subagents": {"allowAgents": [agent]},
    }


async def test_an_agent_that_somebody_opened_is_closed_when_its_user_comes(house: House, closed: Ground) -> None:
    name = f"opened{uuid.uuid4().hex[:6]}"
    agent = f"u-{name}"
    steal = tool("read", path=closed.her_file)
    async with RawClient.admin(house.gateway) as admin:
        async with house.client(name) as client:
            opened = {"profile": "full", "exec": {"security": "full"}, "fs": {"workspaceOnly": False}}
            await patch_config(admin, {"agents": {"entries": {agent: {"tools": opened}}}})
            assert closed.kept in await client.chat("one", steal), "somebody did open it"
        async with house.client(name) as client:
            entries = (await admin.request("config.get"))["sourceConfig"]["agents"]["entries"]
            assert entries[agent] == closed_entry(closed, agent)
            assert closed.kept not in await client.chat("two", steal)
