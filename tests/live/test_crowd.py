"""A crowd at random: everybody works, comes and goes, and pries at the others, and nobody is told anything of anybody else.

`make watch` has twenty users do so for five minutes. What is done follows from `WATCH_SEED`, which is printed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.live.conftest import House
from tests.live.leaks import leaks
from tests.live.person import CAPS, SCOPES, Person
from tests.live.prying import CLOSED, FOREIGN, REFUSED, WAITS, foreign_params, kinds_of
from tests.live.stranger import Stranger, stranger
from tests.policy.people import TABLE
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import RawClient, RequestError, is_end_of
from tests.stack.sidecar import Sidecar, SidecarOptions

USERS = int(os.environ.get("WATCH_USERS", "5"))
SECONDS = float(os.environ.get("WATCH_SECONDS", "15"))
SEED = os.environ.get("WATCH_SEED") or str(random.SystemRandom().randrange(10**9))
PATIENCE_S = 120.0

pytestmark = [pytest.mark.live, pytest.mark.deep, pytest.mark.timeout(300 + 2 * SECONDS)]

TOOLS = ["read", "write", "edit", "sessions_spawn"]
SESSIONS = ("main", "work", "play", "other")
READINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sessions.list", {}),
    ("sessions.list", {"includeGlobal": True, "includeUnknown": True, "search": "mark"}),
    ("sessions.search", {"query": "mark"}),
    ("sessions.preview", {"keys": list(SESSIONS)}),
    ("sessions.usage", {"agentScope": "all"}),
    ("usage.cost", {"agentScope": "all"}),
    ("tasks.list", {}),
    ("agents.list", {}),
    ("agents.files.list", {}),
    ("agents.workspace.list", {}),
    ("artifacts.list", {"sessionKey": "main"}),
    ("cron.list", {"includeDisabled": True}),
    ("system-presence", {}),
    ("users.list", {}),
    ("last-heartbeat", {}),
    ("status", {}),
)


@dataclass
class Wanderer:
    """A user who does one thing after the other, at random."""

    person: Person
    dice: random.Random
    connect: Callable[[], Awaitable[RawClient]]
    others: list[Wanderer] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def client(self) -> RawClient:
        return self.person.client

    @property
    def mark(self) -> str:
        return self.person.marks["text"]

    def word(self) -> str:
        return f"{self.mark}x{self.dice.randrange(10**6)}"

    def session(self) -> str:
        return self.dice.choice(SESSIONS)

    async def wander(self, until: float) -> None:
        steps = [
            self.talk,
            self.talk,
            self.use_tools,
            self.attach,
            self.abort,
            self.arrange,
            self.end_session,
            self.read,
        ]
        steps += [self.read, self.pry, self.pry, self.pry, self.come_again, self.delegate]
        while time.monotonic() < until:
            step = self.dice.choice(steps)
            try:
                await step()
                self.done[step.__name__] += 1
            except RequestError as error:  # busy, gone meanwhile: as it may happen to anybody
                self.failed[f"{step.__name__} {error}"] += 1
            await asyncio.sleep(self.dice.random())

    async def talk(self) -> None:
        word = self.word()
        if word not in await self.chat(self.session(), f"{word} [[reply {word}]]"):
            self.wrong.append(f"no answer to {word}")

    async def use_tools(self) -> None:
        word = self.word()
        written, read = {"path": f"{word}.txt", "content": f"in it {word}"}, {"path": f"{word}.txt"}
        await self.chat(self.session(), f"[[tool write {json.dumps(written)}]] [[tool read {json.dumps(read)}]]")

    async def attach(self) -> None:
        content = base64.b64encode(self.word().encode()).decode()
        attached = {"type": "file", "mimeType": "text/plain", "fileName": f"{self.word()}.txt", "content": content}
        await self.chat(self.session(), self.word(), attachments=[attached])

    async def delegate(self) -> None:
        await self.chat(self.session(), self.person.tool("sessions_spawn", task=self.word(), label=self.word()))

    async def abort(self) -> None:
        key, since, word = self.session(), len(self.client.frames), self.word()
        sent = {"sessionKey": key, "message": f"[[slow 300 40]] [[reply {word}{' on' * 300}]]"}
        run = (await self.client.request("chat.send", {**sent, "idempotencyKey": self.new_run()}))["runId"]
        await asyncio.sleep(self.dice.random() * 3)
        ended = await self.client.request("chat.abort", {"sessionKey": key, "runId": run}, timeout=PATIENCE_S)
        if run not in ended.get("runIds", ()):  # else that is its end: one that had said nothing yet has no event
            await self.client.wait_for(is_end_of(run), since=since, timeout=PATIENCE_S)

    async def arrange(self) -> None:
        key = self.word()
        await self.client.request("sessions.create", {"key": key, "label": self.word()}, timeout=PATIENCE_S)
        await self.client.request("sessions.patch", {"key": key, "label": self.word()}, timeout=PATIENCE_S)
        user = {"name": "USER.md", "content": f"# The user\n{self.word()}\n"}
        await self.client.request("agents.files.set", user, timeout=PATIENCE_S)

    async def end_session(self) -> None:
        method = self.dice.choice(("sessions.reset", "sessions.delete"))
        await self.client.request(method, {"key": self.dice.choice(SESSIONS[1:])}, timeout=PATIENCE_S)

    async def read(self) -> None:
        method, params = self.dice.choice((*READINGS, ("chat.history", {"sessionKey": self.session()})))
        await self.client.request(method, params, timeout=PATIENCE_S)

    async def pry(self) -> None:
        """Ask for what is another's, on a connection of its own: who is refused often is answered slowly."""
        other = self.dice.choice(self.others).person
        asks = [(row, asked) for row in TABLE.methods.values() if row.name not in WAITS
                for asked in foreign_params(row, self.person, other)]  # fmt: skip
        client = await self.connect()
        self.person.others.append(client)
        for row, (about, params) in self.dice.sample(asks, 5):
            try:
                await client.request(row.name, params, timeout=PATIENCE_S)
                if row.answer is None:
                    self.wrong.append(f"{row.name} {about}: was answered")
            except RequestError as error:
                self.done[error.detail_code] += 1
                if row.answer is None and error.detail_code not in {FOREIGN, REFUSED, CLOSED}:
                    self.wrong.append(f"{row.name} {about}: {error}")
        await client.close()

    async def come_again(self) -> None:
        self.person.others.append(self.client)
        await self.client.close()
        self.person.client = await self.connect()
        await listen(self.person.client)

    async def chat(self, key: str, message: str, **params: Any) -> str:
        return await self.client.chat(key, message, idempotencyKey=self.new_run(), timeout=PATIENCE_S, **params)

    def new_run(self) -> str:
        self.person.runs.append(f"run-{uuid.UUID(int=self.dice.getrandbits(128)).hex}")
        self.person.known_run = self.person.runs[0]
        return self.person.runs[-1]


async def listen(client: RawClient) -> None:
    await client.request("sessions.subscribe", timeout=PATIENCE_S)
    for key in SESSIONS:
        await client.request("sessions.messages.subscribe", {"key": key}, timeout=PATIENCE_S)


@dataclass(frozen=True)
class Scene:
    house: House
    crowd: list[Wanderer]
    stranger: Stranger


@pytest_asyncio.fixture(scope="module")
async def scene(
    model: EchoModel, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """The crowd, when all of it is done."""
    print(f"\nWATCH_SEED={SEED} WATCH_USERS={USERS} WATCH_SECONDS={SECONDS}")
    folder = tmp_path_factory.mktemp("crowd")
    async with Gateway(GatewayOptions(folder / "gateway", model.url)) as gateway:
        settings = {"environments": {"root": str(gateway.workspaces), "tools_allow": TOOLS}}
        options = SidecarOptions(folder / "sidecar", gateway, identity_provider.issuer, settings=settings)
        async with Sidecar(options) as sidecar, stranger(gateway) as strange, contextlib.AsyncExitStack() as stack:
            house = House(gateway, model, identity_provider, sidecar)
            crowd = [await wanderer(house, number, stack) for number in range(USERS)]
            for one in crowd:
                one.others = [other for other in crowd if other is not one]
            await strange.listen(*(one.person for one in crowd))
            await asyncio.gather(*(one.chat("main", f"{one.mark} begins") for one in crowd))
            until = time.monotonic() + SECONDS
            await asyncio.gather(*(one.wander(until) for one in crowd))
            yield Scene(house, crowd, strange)


async def wanderer(house: House, number: int, stack: contextlib.AsyncExitStack) -> Wanderer:
    dice = random.Random(f"{SEED} {number}")
    login = f"wanderer{uuid.uuid4().hex[:10]}"
    token = await house.token(login)

    async def connect() -> RawClient:
        coming = RawClient.connect(house.sidecar.url, {"token": token}, caps=list(CAPS), scopes=list(SCOPES))
        return await stack.enter_async_context(coming)

    workspace = house.gateway.workspaces / f"u-{login}" / "workspace"
    person = Person(login, token, await connect(), workspace, house.gateway.options.version)
    person.ids = {kind: uuid.UUID(int=dice.getrandbits(128)).hex for kind in kinds_of(TABLE)}
    await listen(person.client)
    return Wanderer(person, dice, connect)


def words_of(one: Wanderer) -> dict[str, str]:
    runs = {f"run {at}": run for at, run in enumerate(one.person.runs)}
    return {"mark": one.mark, "login": one.person.login, **runs}


def test_everybody_did_something(scene: Scene) -> None:
    done = sum((one.done for one in scene.crowd), Counter[str]())
    print(f"\ndone: {dict(done)}\nfailed: {dict(sum((one.failed for one in scene.crowd), Counter[str]()))}")
    assert all(one.done.total() for one in scene.crowd)
    assert done["talk"]
    assert done[FOREIGN]


def test_what_was_anothers_was_refused(scene: Scene) -> None:
    assert [what for one in scene.crowd for what in one.wrong] == []


def test_all_of_it_was_to_be_heard_at_the_gateway(scene: Scene) -> None:
    """The control: without the sidecar whoever listens is told of everybody."""
    words = {one.person.login: one.mark for one in scene.crowd}
    assert leaks(scene.stranger.heard, words) == [f"{login} as it is" for login in words]


def test_nobody_was_told_anything_of_anybody_else(scene: Scene) -> None:
    for one in scene.crowd:
        assert leaks(one.person.received, {"own": one.mark})
        for other in one.others:
            assert leaks(one.person.received, words_of(other)) == [], f"{one.person.login} of {other.person.login}"


async def test_nor_were_the_operators_monitors(scene: Scene) -> None:
    metrics = await scene.house.sidecar.metrics()
    for one in scene.crowd:
        assert leaks([metrics], words_of(one)) == []
        assert leaks([scene.house.sidecar.log], {"mark": one.mark}) == []


def test_nothing_went_wrong_inside(scene: Scene) -> None:
    assert "Traceback" not in scene.house.sidecar.log
    assert '"level": "error"' not in scene.house.sidecar.log
    assert '"level":"error"' not in scene.house.sidecar.log
