"""One agent for all: alice and bob chat at once in it and never meet, and what the agent has besides sessions is nobody's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.policy.rules import Rule
from sidecar.policy.shared import closed_in_shared_agent
from tests.live.conftest import House
from tests.live.leaks import leaks
from tests.policy.people import TABLE
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import Frame, RawClient, RequestError, add_agents, is_end_of, patch_config
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

SHARED = {"namespace": "shared-agent", "shared_agent": "helpdesk"}
CLOSED = {"agents": {"defaults": {"startupContext": {"enabled": False}}}}
PREFIX = "agent:helpdesk:user:"
ORIGIN = "http://127.0.0.1:8080"
"""2026.8.2 approves a new device only for a page of an origin that it allows."""


@pytest_asyncio.fixture(scope="module", params=["2026.9.6", pytest.param("2026.8.2", marks=pytest.mark.deep)])
async def shared(
    request: pytest.FixtureRequest,
    model: EchoModel,
    identity_provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[House]:
    """A gateway whose users share the agent `helpdesk`; at most two runs of each at a time."""
    folder = tmp_path_factory.mktemp("shared")
    options = GatewayOptions(
        folder / "gateway", model.url, version=request.param, allowed_origins=[ORIGIN], extra=CLOSED
    )
    async with Gateway(options) as gateway:
        settings = SidecarOptions(
            folder / "sidecar",
            gateway,
            identity_provider.issuer,
            settings={"server": {"public_url": ORIGIN, "drain_seconds": 1}, "quota": {"concurrent_runs": 2}},
            gateway_settings=SHARED,
        )
        async with Sidecar(settings) as sidecar:
            yield House(gateway, model, identity_provider, sidecar)


@pytest_asyncio.fixture
async def two(shared: House) -> AsyncIterator[tuple[RawClient, RawClient, str, str]]:
    """Alice and bob, new ones each time, and their slugs."""
    names = [f"{name}{uuid.uuid4().hex[:8]}" for name in ("alice", "bob")]
    async with shared.client(names[0]) as alice, shared.client(names[1]) as bob:
        yield alice, bob, f"u-{names[0]}", f"u-{names[1]}"


async def test_two_chat_at_once_in_one_agent_and_never_meet(
    shared: House, two: tuple[RawClient, RawClient, str, str]
) -> None:
    alice, bob, hers, his = two
    for client in (alice, bob):
        await client.request("sessions.subscribe")
    told = {slug: f"marker{uuid.uuid4().hex}" for slug in (hers, his)}
    replies = await asyncio.gather(alice.chat("main", told[hers]), bob.chat(f"user:{his}", told[his]))
    assert [reply.removeprefix("echo: ") for reply in replies] == [told[hers], told[his]]
    for client, slug in ((alice, hers), (bob, his)):
        assert told[slug] in str(await client.request("chat.history", {"sessionKey": "main"}))
        listed = await client.request("sessions.list")
        assert [row["key"] for row in listed["sessions"]] == [f"{PREFIX}{slug}:main"]
        assert (listed["count"], listed["totalCount"]) == (1, 1)
        agents = await client.request("agents.list")
        assert ([row["id"] for row in agents["agents"]], agents["defaultId"]) == (["helpdesk"], "helpdesk")
        defaults = client.hello["snapshot"]["sessionDefaults"]
        assert defaults["mainSessionKey"] == f"{PREFIX}{slug}:main"
        assert defaults["defaultAgentId"] == "helpdesk"
        of_runs = [frame["payload"] for frame in client.events if frame["event"] in {"chat", "agent"}]
        assert of_runs
        assert {payload["sessionKey"] for payload in of_runs} == {f"{PREFIX}{slug}:main"}
        numbers = [frame["seq"] for frame in client.events if "seq" in frame]
        assert numbers == list(range(1, len(numbers) + 1))
    for client, other in ((alice, his), (bob, hers)):
        words = {
            "what the other said": told[other],
            "the other's name": other,
            "state": str(shared.gateway.state_dir),
            "workspaces": str(shared.gateway.workspaces),
            "password": shared.gateway.password,
        }
        assert leaks(client.received, words) == []


@pytest.mark.parametrize(
    "written",
    [
        "agent:helpdesk:user:{her}:main",
        "AGENT:Helpdesk:USER:{HER}:main",
        "\tagent:helpdesk:user:{her}:main ",
        "agent:main:user:{her}:main",
        "agent:helpdesk:user:{her}:../{his}:main",
        "agent:helpdesk:user:{her}",
        "agent:helpdesk:user:{her}:",
        "agent:helpdesk:user:{her}\u200b:main",
        "agent:helpdesk:user::main",
        "user:{her}",
        "user:{her}:main",
        "user:{her}:../",
        "agent:{her}:main",
        "agent:helpdesk/:user:{her}:main",
        "agent:helpdesk：user：{her}：main",
        "agent%3Ahelpdesk%3Auser%3A{her}%3Amain",
        "agent:helpdesk:subagent:3f2b",
        "agent:helpdesk:cron:7",
        "subagent:3f2b",
        "global",
    ],
)
async def test_foreign_keys_are_refused_in_every_shape(
    two: tuple[RawClient, RawClient, str, str], written: str
) -> None:
    alice, bob, hers, his = two
    secret = f"secret{uuid.uuid4().hex}"
    await alice.chat("main", secret)
    key = written.format(her=hers, HER=hers.upper(), his=his)
    for method, params in (
        ("chat.history", {"sessionKey": key}),
        ("chat.startup", {"sessionKey": key}),
        ("chat.send", {"sessionKey": key, "message": "x"}),
        ("agent", {"sessionKey": key, "message": "x"}),
        ("chat.abort", {"sessionKey": key}),
        ("sessions.describe", {"key": key}),
        ("sessions.messages.subscribe", {"key": key}),
        ("sessions.patch", {"key": key, "pinned": True}),
        ("sessions.create", {"key": key}),
        ("sessions.list", {"spawnedBy": key}),
    ):
        with pytest.raises(RequestError) as refused:
            await bob.request(method, params)
        assert refused.value.detail_code in {"FOREIGN_KEY", "MALFORMED_FRAME"}
    assert secret not in "".join(bob.received)
    assert secret in str(await alice.request("chat.history", {"sessionKey": "main"}))


async def test_short_keys_are_the_own_ones(two: tuple[RawClient, RawClient, str, str]) -> None:
    alice, _, hers, _ = two
    await alice.chat("notes", "in notes")
    for written in (
        "notes",
        "NOTES",
        f"user:{hers}:notes",
        "agent:helpdesk:notes",
        "agent:main:notes",
        f"{PREFIX}{hers}:notes",
    ):
        described = await alice.request("sessions.describe", {"key": written})
        assert described["session"]["key"] == f"{PREFIX}{hers}:notes"


async def test_what_is_nobodys_in_the_agent_reaches_nobody(
    shared: House, two: tuple[RawClient, RawClient, str, str]
) -> None:
    """The operator uses the same agent, in sessions outside every user's corner: users get nothing of it."""
    alice, _, hers, _ = two
    await alice.request("sessions.subscribe")
    told = f"operators{uuid.uuid4().hex}"
    async with RawClient.admin(shared.gateway) as admin:
        for key in ("agent:helpdesk:main", "agent:helpdesk:subagent:3f2b", f"agent:helpdesk:user:{hers}x:main"):
            await admin.chat(key, f"{told} {key}")
        seen = [frame for frame in admin.events if frame["event"] == "chat" and told in json.dumps(frame)]
        assert {frame["payload"]["agentId"] for frame in seen} == {"helpdesk"}, "these events are the agent's"
    await alice.chat("main", "afterwards")
    assert told not in str(await alice.request("chat.history", {"sessionKey": "agent:helpdesk:main"}))
    assert told not in "".join(alice.received)


async def test_pages_and_counts_are_of_the_own_sessions(two: tuple[RawClient, RawClient, str, str]) -> None:
    alice, bob, hers, _ = two
    for client, count in ((alice, 3), (bob, 4)):
        for number in range(count):
            await client.request("sessions.create", {"key": f"s{number}"})
    first = await alice.request("sessions.list", {"limit": 2})
    assert (first["count"], first["totalCount"], first["hasMore"]) == (2, 3, True)
    rest = await alice.request("sessions.list", {"limit": 2, "offset": first["nextOffset"]})
    assert (rest["count"], rest["hasMore"]) == (1, False)
    keys = {row["key"] for row in (*first["sessions"], *rest["sessions"])}
    assert keys == {f"{PREFIX}{hers}:s{number}" for number in range(3)}


async def test_no_word_asks_about_others_sessions(two: tuple[RawClient, RawClient, str, str]) -> None:
    """Search and labels look over the whole agent, so an answer, or a refusal, would tell of others'."""
    alice, bob, _, _ = two
    await alice.chat("main", "hello")
    for method, params in (
        ("sessions.list", {"search": "hello"}),
        ("sessions.patch", {"key": "main", "label": "taken?"}),
        ("sessions.create", {"key": "x", "label": "taken?"}),
    ):
        with pytest.raises(RequestError) as refused:
            await bob.request(method, params)
        assert refused.value.detail_code == "AGENT_SHARED"


async def test_a_session_without_a_key_is_made_in_the_own_corner(two: tuple[RawClient, RawClient, str, str]) -> None:
    alice, bob, hers, _ = two
    made = await alice.request("sessions.create")
    assert made["key"].startswith(f"{PREFIX}{hers}:dashboard:")
    assert await alice.chat(made["key"], "in the new one")
    assert (await alice.request("sessions.list"))["count"] == 1
    assert (await bob.request("sessions.list"))["count"] == 0


async def test_runs_belong_to_whom_the_key_names(two: tuple[RawClient, RawClient, str, str]) -> None:
    alice, bob, _, _ = two
    run = f"run-{uuid.uuid4()}"
    asked = {"sessionKey": "slow", "message": "[[long 20]][[slow 20 100]]", "idempotencyKey": run}
    await alice.request("chat.send", asked)
    for method, params in (("agent.wait", {"timeoutMs": 500}), ("chat.abort", {"sessionKey": "slow"})):
        with pytest.raises(RequestError) as refused:
            await bob.request(method, {"runId": run, **params})
        assert refused.value.detail_code == "FOREIGN_KEY"
    assert await bob.chat("main", "a run of his own", idempotencyKey=run) == "a run of his own"
    aborted = await alice.request("chat.abort", {"sessionKey": "slow", "runId": run})
    assert aborted["runIds"] == [run]
    await alice.wait_for(is_end_of(run))


async def test_runs_are_counted_for_their_user(two: tuple[RawClient, RawClient, str, str]) -> None:
    alice, bob, _, _ = two
    slow = "[[long 20]][[slow 20 400]]"
    runs = [
        (await alice.request("chat.send", {"sessionKey": f"s{number}", "message": slow}))["runId"] for number in (1, 2)
    ]
    with pytest.raises(RequestError) as refused:
        await alice.request("chat.send", {"sessionKey": "s3", "message": slow})
    assert refused.value.detail_code == "TOO_MANY_RUNS"
    assert await bob.chat("main", "not his limit") == "not his limit"
    for number, run in enumerate(runs, 1):
        await alice.request("chat.abort", {"sessionKey": f"s{number}", "runId": run})
        await alice.wait_for(is_end_of(run))
    for _ in range(40):
        with contextlib.suppress(RequestError):
            assert await alice.chat("s3", "counted off again") == "counted off again"
            return
        await asyncio.sleep(0.25)
    pytest.fail("the ended runs still count")


async def test_what_acts_on_the_agent_is_closed_and_hidden(
    house: House, two: tuple[RawClient, RawClient, str, str]
) -> None:
    """The same methods are there for who has an agent of their own."""
    of_both = [row for row in TABLE.methods.values() if not (row.since or row.until)]
    closed = sorted(row.name for row in of_both if closed_in_shared_agent(row))
    assert {"agents.files.get", "agents.workspace.list", "memory.search", "sessions.files.get", "tools.catalog"} <= {
        *closed
    }
    async with house.client("ann") as ann:
        assert {*closed} - {*ann.hello["features"]["methods"]} <= {row.name for row in of_both if row.as_admin}
    alice = two[0]
    assert not {*closed} & {*alice.hello["features"]["methods"]}
    for method in closed:
        with pytest.raises(RequestError) as refused:
            await alice.request(method, {"agentId": "helpdesk"} if "agentId" in TABLE.methods[method].params else {})
        assert refused.value.detail_code == "AGENT_SHARED"


async def test_the_agent_is_written_once_closed(shared: House, two: tuple[RawClient, RawClient, str, str]) -> None:
    async with RawClient.admin(shared.gateway) as admin:
        entries = (await admin.request("config.get"))["sourceConfig"]["agents"]["entries"]
    assert not [name for name in entries if name.startswith("u-")]
    entry = entries["helpdesk"]
    assert entry["workspace"] == str(shared.gateway.workspaces / "helpdesk" / "workspace")
    assert entry["tools"]["deny"] == ["*"]
    assert "allow" not in entry["tools"]
    assert entry["contextInjection"] == "never"
    assert entry["memory"]["search"] == {"enabled": False, "rememberAcrossConversations": False}
    assert (shared.gateway.workspaces / "helpdesk" / "workspace").stat().st_mode & 0o777 == 0o700
    assert not [folder.name for folder in shared.gateway.workspaces.iterdir() if folder.name.startswith("u-")]


IDS = re.compile(r"\w*(?:[iI]ds?|[cC]ursor|reference|hash)")
READING = re.compile(r"\.(?:get|list|history|search|preview|resolve|describe|startup|logs)$")


def ids_in(value: Any, name: str = "") -> set[str]:
    """Every text that stands where an id, a cursor or the like does."""
    if isinstance(value, dict):
        return {one for member, below in value.items() for one in ids_in(below, member)}
    if isinstance(value, list):
        return {one for below in value for one in ids_in(below, name)}
    return {value} if isinstance(value, str) and IDS.fullmatch(name) and len(value) >= 6 else set()


def calls_with(ids: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every open method about a session, with each of `ids` in each parameter that takes any text; the session is the caller's."""
    for name, row in TABLE.methods.items():
        keys = [one for one, rule in row.params.items() if rule in {Rule.KEY, Rule.EXISTING_KEY}]
        if closed_in_shared_agent(row) or row.starts_run or not keys:
            continue
        for one, rule in row.params.items():
            if rule is Rule.PASS:
                yield from ((name, {keys[0]: "main", one: each}) for each in ids)


async def answers(client: RawClient, calls: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """What each method said, all its answers in one text; refusals too."""
    said: dict[str, list[str]] = {}
    for method, params in calls:
        try:
            answer = json.dumps(await client.request(method, params))
        except RequestError as refused:
            answer = json.dumps(refused.error)
        said.setdefault(method, []).append(answer)
    return {method: "\n".join(texts) for method, texts in said.items()}


async def test_ids_of_hers_lead_bob_nowhere(two: tuple[RawClient, RawClient, str, str]) -> None:
    """Both have their sessions in one store of the gateway: an id of a message or a run is as near as the own one."""
    alice, bob, hers, _ = two
    mark = f"hers{uuid.uuid4().hex}"
    await alice.request("sessions.subscribe")
    await alice.chat("main", f"{mark} one")
    await alice.chat("main", f"{mark} two")
    await bob.chat("main", "his own")
    await alice.request("sessions.list", {"includeDerivedTitles": True, "includeLastMessage": True})
    history = await alice.request("chat.history", {"sessionKey": "main"})
    ids = sorted(one for one in ids_in([frame.get("payload") for frame in alice.frames]) if hers not in one)[:40]
    assert len(ids) >= 8, "messages, runs, sessions and what else there is"
    calls = list(calls_with(ids))
    told = await answers(alice, [call for call in calls if READING.search(call[0])])
    assert {"chat.message.get", "chat.history"} <= {method for method, text in told.items() if mark in text}
    refused = await answers(bob, calls)
    assert len(refused) > 20
    assert [method for method, text in refused.items() if mark in text or hers in text] == []
    assert (await alice.request("chat.history", {"sessionKey": "main"}))["messages"] == history["messages"]


def leave(workspace: Path, mark: str) -> dict[str, str]:
    """What a gateway itself writes of a conversation, or an agent of its user: file → the word in it."""
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    names = ("MEMORY.md", "USER.md", "AGENTS.md", "SOUL.md", f"memory/{today}.md", f"memory/{today}-1201.md")
    words = {}
    for name in names:
        words[name] = f"{mark}{uuid.uuid4().hex}"
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text(f"- {words[name]}\n")
    return words


async def test_nothing_that_one_left_is_put_into_the_others_prompt(
    shared: House, two: tuple[RawClient, RawClient, str, str]
) -> None:
    alice, _, hers, _ = two
    left = leave(shared.gateway.workspaces / "helpdesk" / "workspace", "left")
    name = f"open{uuid.uuid4().hex[:8]}"
    openly = leave(shared.gateway.workspaces / name, "open")
    async with RawClient.admin(shared.gateway) as admin:
        await add_agents(admin, {name: {"workspace": str(shared.gateway.workspaces / name)}})
        await admin.chat(f"agent:{name}:user:{hers}:main", "hello")
        assert {"MEMORY.md", "USER.md"} <= {place for place, word in openly.items() if word in prompts(shared, name)}
    for key in ("main", "fresh"):
        await alice.chat(key, "hello")
    await alice.request("sessions.reset", {"key": "main"})
    await alice.chat("main", "hello again")
    await alice.chat("main", "/reset soft and tell")
    said = prompts(shared, "helpdesk")
    assert "hello again" in said
    assert [place for place, word in left.items() if word in said] == []


def prompts(house: House, agent: str) -> str:
    return "\n".join(json.dumps(call.body) for call in house.model.calls if f":{agent}:" in call.turn.session)


def tool(name: str, **arguments: Any) -> str:
    return f"[[tool {name} {json.dumps(arguments)}]]"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read", {"path": "MEMORY.md"}),
        ("write", {"path": "left-behind.md", "content": "for the next"}),
        ("exec", {"command": "ls"}),
        ("memory_search", {"query": "secret"}),
        ("memory_get", {"path": "MEMORY.md"}),
        ("sessions_list", {}),
        ("sessions_history", {"sessionKey": "agent:helpdesk:main"}),
        ("session_status", {}),
        ("cron", {"action": "list"}),
    ],
)
async def test_the_agent_has_no_tool(
    shared: House, two: tuple[RawClient, RawClient, str, str], name: str, arguments: dict[str, Any]
) -> None:
    alice = two[0]
    for asked in (tool(name, **arguments), tool("tool_call", id=name, args=arguments), tool("tool_search", query=name)):
        answer = await alice.chat("main", asked)
        assert "not found" in answer
    assert shared.model.calls[-1].body.get("tools", []) == []
    assert not (shared.gateway.workspaces / "helpdesk" / "workspace" / "left-behind.md").exists()


async def test_a_gateway_that_would_tell_serves_nobody(shared: House) -> None:
    """While the gateway puts an agent's daily notes into prompts, its users cannot share one. 2026.8.2 restarts to take that in."""
    async with shared.client("nobody"):
        """Somebody new would be told only that no gateway is ready."""
    await _patched(shared, {"agents": {"defaults": {"startupContext": {"enabled": True}}}})
    try:
        refusals = [refused async for refused in _until(shared, "GATEWAY_OPEN")]
        assert "startupContext" in refusals[-1].error["message"]
    finally:
        await _patched(shared, CLOSED)
    await shared.sidecar.wait_ready()


async def _patched(shared: House, patch: Frame) -> None:
    async with RawClient.admin(shared.gateway) as admin:
        await patch_config(admin, patch)


async def _until(shared: House, detail_code: str) -> AsyncIterator[RequestError]:
    for _ in range(200):
        try:
            async with shared.client("nobody"):
                pass
        except RequestError as refused:
            yield refused
            if refused.detail_code == detail_code:
                return
        await asyncio.sleep(0.1)
    pytest.fail(f"it was never refused with {detail_code}")
