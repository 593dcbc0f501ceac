"""Bob watches while alice works, with everything that a client may do, and the other way round.

Nothing of the one is in what the other receives, in what the sidecar's HTTP shows, or in its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import sidecar
from sidecar.policy.rules import Own, Rule
from sidecar.policy.table import MethodRow, Table, read_table
from tests.live.conftest import House
from tests.live.leaks import leaks
from tests.stack.raw import RawClient, RequestError, is_end_of

pytestmark = pytest.mark.live

TABLE: Table = read_table((Path(sidecar.__file__).parent / "policy" / "gateway-2026.9.toml").read_bytes())
PLACES = ("text", "file-name", "tool-argument", "tool-output", "label", "session-key", "aborted-text", "agent-text")
OWN_RUN = Own("run")
KEYS = {Rule.KEY, Rule.EXISTING_KEY, Rule.EXISTING_KEYS}
PATHS = (
    *("/", "/healthz", "/readyz", "/metrics", "/ws", "/control-ui-config.json", "/v1/models", "/api/sessions", "/logs"),
    *("/sessions/{key}/history", "/avatar/{agent}", "/chat/{agent}/main", "/__openclaw__/workspace-icon/{key}"),
)


@dataclass
class Person:
    """One who works, and watches the other."""

    name: str
    token: str
    client: RawClient
    workspace: Path
    marks: dict[str, str] = field(default_factory=lambda: {place: f"mark{uuid.uuid4().hex[:14]}" for place in PLACES})
    runs: list[str] = field(default_factory=list)
    known_run: str = field(default_factory=lambda: f"known-{uuid.uuid4().hex}")
    """The id of one run, which the other knows from somewhere."""

    @property
    def agent(self) -> str:
        return f"u-{self.name}"

    @property
    def key(self) -> str:
        return f"agent:{self.agent}:main"

    async def chat(self, key: str, message: str) -> str:
        run = uuid.uuid4().hex
        self.runs.append(run)
        return await self.client.chat(key, message, idempotencyKey=run)

    async def work(self) -> None:
        """Mark everything that can be marked."""
        marks = self.marks
        await self.client.request("sessions.subscribe")
        await self.client.chat("main", "one run of which the other knows", idempotencyKey=self.known_run)
        (self.workspace / "found.txt").write_text(marks["tool-output"])
        assert marks["text"] in await self.chat("main", marks["text"])
        written = {"path": f"{marks['file-name']}.txt", "content": marks["tool-argument"]}
        told = await self.chat("main", f'[[tool write {json.dumps(written)}]] [[tool read {{"path": "found.txt"}}]]')
        assert marks["tool-output"] in told
        await self.client.request("sessions.create", {"key": marks["session-key"]})
        await self.client.request("sessions.patch", {"key": marks["session-key"], "label": marks["label"]})
        await self.chat(marks["session-key"], "in a session with a telling name")
        await self._by_agent()
        await self._abort()

    async def _by_agent(self) -> None:
        run = uuid.uuid4().hex
        self.runs.append(run)
        await self.client.request("agent", {"message": self.marks["agent-text"], "idempotencyKey": run})
        await self.client.request("agent.wait", {"runId": run, "timeoutMs": 20_000})

    async def _abort(self) -> None:
        run, since = uuid.uuid4().hex, len(self.client.frames)
        self.runs.append(run)
        mark = self.marks["aborted-text"]
        message = f"[[slow 400 40]] [[reply {mark}{' on' * 400}]]"
        await self.client.request("chat.send", {"sessionKey": "main", "message": message, "idempotencyKey": run})
        await self.client.wait_for(lambda frame: mark in json.dumps(frame.get("payload")), since=since)
        await self.client.request("chat.abort", {"sessionKey": "main", "runId": run})
        await self.client.wait_for(is_end_of(run), since=since)

    async def own_words(self) -> dict[str, str]:
        """What nobody else may see, besides the marks."""
        listed = await self.client.request("sessions.list")
        ids = {f"session-id-{at}": row["sessionId"] for at, row in enumerate(listed["sessions"]) if "sessionId" in row}
        assert ids
        profiles = {profile for text in self.client.received for profile in _PROFILE.findall(text)}
        return {
            **self.marks,
            **ids,
            **{f"run-{at}": run for at, run in enumerate(self.runs)},
            **{f"profile-{at}": profile for at, profile in enumerate(sorted(profiles))},
            "name": self.name,
            "workspace": str(self.workspace),
        }


_PROFILE = re.compile(r'"(?:recipientProfileId|senderProfileId|profileId)":"([^"]{6,})"')


@dataclass
class Scene:
    house: House
    alice: Person
    bob: Person
    direct: RawClient
    """On the gateway itself: what it tells to any connection that asks."""


@pytest.fixture(params=["house", "token_house"], scope="module")
def either(request: pytest.FixtureRequest) -> House:
    house: House = request.getfixturevalue(request.param)
    return house


@pytest_asyncio.fixture(scope="module")
async def scene(either: House) -> AsyncIterator[Scene]:
    """Both have worked, and pried, at the same time."""
    house = either
    async with contextlib.AsyncExitStack() as stack:
        alice, bob = [await stack.enter_async_context(somebody(house, name)) for name in ("anna", "bert")]
        direct = await stack.enter_async_context(RawClient.admin(house.gateway))
        await direct.request("sessions.subscribe")
        await asyncio.gather(alice.work(), bob.work(), pry(alice, bob, direct), pry(bob, alice, direct))
        yield Scene(house, alice, bob, direct)


@contextlib.asynccontextmanager
async def somebody(house: House, name: str) -> AsyncIterator[Person]:
    login = f"{name}{uuid.uuid4().hex[:8]}"
    token = await house.token(login)
    async with RawClient.connect(house.sidecar.url, {"token": token}) as client:
        yield Person(login, token, client, house.gateway.workspaces / f"u-{login}" / "workspace")


async def pry(one: Person, other: Person, direct: RawClient) -> None:
    """Every method of the table with the own things and with the other's; every method of the gateway that is not in it."""
    for row in TABLE.methods.values():
        await asked(one, row, {})
        for name, theirs in foreign(row, other).items():
            answer = await asked(one, row, {name: theirs})
            if row.answer is None:
                assert answer == "FOREIGN_KEY", (row.name, name)
    for method in direct.hello["features"]["methods"]:
        if method not in TABLE.methods:
            row, theirs = MethodRow(method), {"sessionKey": other.key, "agentId": other.agent}
            assert await asked(one, row, theirs) == "METHOD_NOT_ALLOWED"
    # A run may be called what another's is called; it is a run of one's own then.
    assert await asked(one, TABLE.methods["chat.send"], {"idempotencyKey": other.known_run}) == ""


async def asked(one: Person, row: MethodRow, over: dict[str, Any]) -> str:
    """The detail code of the refusal, empty where there was none. A run is waited for, so that few run at once."""
    params = params_of(row, one, over)
    try:
        await one.client.request(row.name, params)
        if row.starts_run:
            await one.client.request("agent.wait", {"runId": params["idempotencyKey"], "timeoutMs": 20_000})
    except RequestError as error:
        return error.detail_code
    return ""


def params_of(row: MethodRow, one: Person, over: dict[str, Any]) -> dict[str, Any]:
    """The caller's own in every place that has a rule; `over` goes over it."""
    params: dict[str, Any] = {}
    for name, rule in row.params.items():
        if rule is Rule.TEXT:
            params[name] = "[[reply pried]]"
        elif rule in KEYS:
            key = f"agent:{one.agent}:pried"  # where nobody works
            params[name] = [key] if rule is Rule.EXISTING_KEYS else key
        elif rule is Rule.AGENT:
            params[name] = one.agent
        elif rule == OWN_RUN:
            params[name] = one.known_run
        elif rule is Rule.NEW_RUN:
            params[name] = uuid.uuid4().hex
    return params | over


def foreign(row: MethodRow, other: Person) -> dict[str, Any]:
    """For each place, the other's."""
    theirs = dict.fromkeys(KEYS, other.key) | {Rule.AGENT: other.agent, OWN_RUN: other.known_run}
    return {
        name: [theirs[rule]] if rule is Rule.EXISTING_KEYS else theirs[rule]
        for name, rule in row.params.items()
        if rule in theirs
    }


async def test_the_gateway_would_have_told(scene: Scene) -> None:
    """The control: without the sidecar in between, all of it goes to whoever listens, or asks."""
    for person in (scene.alice, scene.bob):
        await scene.direct.request("sessions.list", {"agentId": person.agent})
        found = leaks(scene.direct.received, await person.own_words())
        for place in (*PLACES, "session-id-0", "name"):
            assert any(leak.startswith(f"{place} ") for leak in found), place


async def test_neither_received_anything_of_the_other(scene: Scene) -> None:
    secrets = secrets_of(scene)
    for one, other in ((scene.alice, scene.bob), (scene.bob, scene.alice)):
        assert leaks(one.client.received, await other.own_words()) == []
        assert leaks(one.client.received, secrets) == []
        assert {f"{place} as it is" for place in ("text", "tool-argument", "label")} <= {
            *leaks(one.client.received, one.marks)
        }


async def test_neither_agent_was_told_anything_of_the_other(scene: Scene) -> None:
    """What a gateway puts into a prompt is told to the agent's user for the asking."""
    for one, other in ((scene.alice, scene.bob), (scene.bob, scene.alice)):
        prompts = [json.dumps(call.body) for call in scene.house.model.calls if call.turn.agent == one.agent]
        assert prompts
        assert leaks(prompts, await other.own_words()) == []


async def test_the_web_side_shows_nothing_of_anybody(scene: Scene) -> None:
    shown = await everything_over_http(scene)
    for person in (scene.alice, scene.bob):
        assert leaks(shown, await person.own_words()) == []
    assert leaks(shown, secrets_of(scene)) == []


async def everything_over_http(scene: Scene) -> list[str]:
    """Status lines left out: headers and bodies, as bob may ask for them, and what operators' monitors see."""
    sidecar, alice = scene.house.sidecar, scene.alice
    shown = [await sidecar.metrics()]
    assert "openclaw_sidecar_frames_relayed_total" in shown[0]
    headers = {"Authorization": f"Bearer {scene.bob.token}", "x-openclaw-session-key": alice.key}
    async with aiohttp.ClientSession(headers=headers) as session:
        for path in PATHS:
            place = path.format(key=alice.key, agent=alice.agent)
            async with session.get(sidecar.http_url + place, allow_redirects=False) as answer:
                shown.append(f"{answer.headers} {await answer.text()}".replace(place, ""))
        for path in ("/tools/invoke", "/v1/chat/completions", "/v1/responses", "/api/openclaw"):
            body = {"tool": "sessions_list", "model": f"openclaw/{alice.agent}", "messages": []}
            async with session.post(sidecar.http_url + path, json=body) as answer:
                shown.append(f"{answer.headers} {await answer.text()}")
    return shown


async def test_the_log_holds_no_word_of_anybody(scene: Scene) -> None:
    """Who connected stands in it, and what they were refused; not what they said, nor their keys."""
    log = scene.house.sidecar.log
    assert '"denied"' in log
    assert scene.alice.agent in log
    for person in (scene.alice, scene.bob):
        tokens = {f"token-{at}": part for at, part in enumerate(person.token.split("."))}
        assert leaks([log], {**person.marks, **tokens}) == []
    assert leaks([log], secrets_of(scene)) == []


def secrets_of(scene: Scene) -> dict[str, str]:
    gateway = scene.house.gateway
    return {
        "secret": gateway.token or gateway.password,
        "state": str(gateway.state_dir),
        "configuration": str(gateway.config_path),
        "seal": (scene.house.sidecar.options.folder / "data" / "secret").read_text().strip(),
    }
