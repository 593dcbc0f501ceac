"""People who use a gateway in every way that costs, and what happens to those who keep the books meanwhile.

`Crowd` works through two sidecars and past them, `Misfortune` kills, stops and empties whatever stands in the house.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio

from sidecar.storage.embedded import EmbeddedEngines
from tests.stack.gateway import Gateway, GatewayOptions, provider
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import ClosedError, RawClient, RequestError, is_end_of
from tests.stack.sidecar import Sidecar, SidecarOptions

PATIENCE_S = 60.0
UNREAD_S = 5.0
"""So far behind its model a gateway is seen to be on a busy machine: what was served then is lost with it."""

SESSIONS = ("main", "work", "play")
MISSING = '[[tool read {"path": "none.txt"}]]'
AWAY = (RequestError, ClosedError, TimeoutError, OSError, aiohttp.ClientError)
"""What a client meets while something is down."""


def _unwatched(engine: str, kind: str, text: str) -> None:
    """Nobody cares for what the engines say."""


@dataclass(frozen=True, slots=True)
class Town:
    """Two sidecars before one gateway, and the stores that they share."""

    gateway: Gateway
    model: EchoModel
    identity_provider: IdentityProvider
    sidecars: Sequence[Sidecar]
    postgres: EmbeddedEngines
    valkey: EmbeddedEngines

    @contextlib.asynccontextmanager
    async def client(self, login: str, sidecar: Sidecar) -> AsyncIterator[RawClient]:
        token = await self.identity_provider.token_for(login, lifetime=3600)
        async with RawClient.connect(sidecar.url, {"token": token}) as client:
            yield client


@contextlib.asynccontextmanager
async def town(folder: Path, model: EchoModel, identity_provider: IdentityProvider) -> AsyncIterator[Town]:
    options = GatewayOptions(
        folder=folder / "gateway",
        model_url=model.url,
        extra={
            "models": {"providers": {"other": provider(model.url, "other-key")}},
            "gateway": {"http": {"endpoints": {"chatCompletions": {"enabled": True}}}},
        },
    )
    async with (
        EmbeddedEngines(folder / "postgres", _unwatched, redis=False) as postgres,
        EmbeddedEngines(folder / "valkey", _unwatched, postgres=False) as valkey,
        Gateway(options) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        storage = {"database_url": postgres.database_url, "redis_url": valkey.redis_url, "secret": uuid.uuid4().hex * 2}
        settings: dict[str, dict[str, Any]] = {
            "storage": storage,
            "environments": {"tools_allow": ["read", "write", "sessions_spawn"]},
            "quota": {"daily_tokens": 10**9, "concurrent_runs": 20, "on_redis_failure": "open"},
        }
        sidecars = [
            await stack.enter_async_context(
                Sidecar(SidecarOptions(folder / name, gateway, identity_provider.issuer, settings))
            )
            for name in ("left", "right")
        ]
        yield Town(gateway, model, identity_provider, sidecars, postgres, valkey)


@dataclass
class Crowd:
    """Each of them does one thing after another until `turns` were taken by the gateway."""

    town: Town
    logins: Sequence[str]
    turns: int
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    """What was begun, by its name; `away` where something was down."""

    taken: int = 0

    async def work(self) -> None:
        await asyncio.gather(*(self._one(login, random.Random(self.chance.random())) for login in self.logins))

    async def _one(self, login: str, chance: random.Random) -> None:
        person = Spender(self, login, chance)
        while self.taken < self.turns:
            try:
                async with self.town.client(login, chance.choice(self.town.sidecars)) as client:
                    await person.spend(client)
            except AWAY:
                self.done["away"] += 1
                await asyncio.sleep(1)


class Spender:
    """One user."""

    def __init__(self, crowd: Crowd, login: str, chance: random.Random) -> None:
        self._crowd = crowd
        self._login = login
        self._chance = chance
        self._agent = f"u-{login}"

    async def spend(self, client: RawClient) -> None:
        """Some acts on one connection."""
        acts: Sequence[tuple[Callable[[RawClient], Awaitable[None]], int]] = (
            (self.plain, 5),
            (self.cached, 3),
            (self.tools, 4),
            (self.other_model, 2),
            (self.sub_agent, 2),
            (self.job, 2),
            (self.fork, 2),
            (self.queue, 2),
            (self.steer, 2),
            (self.by_agent, 2),
            (self.over_http, 2),
            (self.leave, 2),
            (self.abort, 4),
            (self.fail, 1),
            (self.compact, 1),
        )
        for act in self._chance.choices([act for act, _ in acts], [weight for _, weight in acts], k=4):
            if self._crowd.taken >= self._crowd.turns:
                return
            self._crowd.done[act.__name__] += 1
            await act(client)
            if act == self.leave:
                return

    async def plain(self, client: RawClient) -> None:
        await self._chat(client, self._key(), "hello there")

    async def cached(self, client: RawClient) -> None:
        await self._chat(client, self._key(), f"hello again [[cached {self._chance.randrange(1, 5000)}]]")

    async def tools(self, client: RawClient) -> None:
        await self._chat(client, self._key(), f"{MISSING} {MISSING} [[cached 100]]")

    async def other_model(self, client: RawClient) -> None:
        await client.request("sessions.patch", {"key": "other", "model": "other/fake-1"})
        await self._chat(client, "other", "hello to the other one")

    async def sub_agent(self, client: RawClient) -> None:
        spawn = {"id": "sessions_spawn", "args": {"task": "at work", "label": uuid.uuid4().hex[:8]}}
        await self._chat(client, self._key(), f"[[tool tool_call {json.dumps(spawn)}]]")
        self._crowd.taken += 1

    async def job(self, client: RawClient) -> None:
        job = {
            "name": uuid.uuid4().hex,
            "agentId": self._agent,
            "schedule": {"kind": "every", "everyMs": 86_400_000},
            "sessionTarget": "isolated",
            "wakeMode": "now",
            "payload": {"kind": "agentTurn", "message": "at work by the clock"},
            "delivery": {"mode": "none"},
        }
        async with RawClient.admin(self._crowd.town.gateway) as admin:
            made = await admin.request("cron.add", job)
            await admin.request("cron.run", {"id": made["id"], "mode": "force"})
        self._crowd.taken += 1

    async def fork(self, client: RawClient) -> None:
        made = await client.request("sessions.create", {"parentSessionKey": "main", "fork": True})
        await self._chat(client, made["key"], "in the fork")

    async def queue(self, client: RawClient) -> None:
        key = self._key()
        first = await self._say(client, key, "[[long 10]][[slow 10 60]]")
        await self._say(client, key, "behind it", queueMode="followup")
        await client.wait_for(is_end_of(first), timeout=PATIENCE_S)

    async def steer(self, client: RawClient) -> None:
        key = self._key()
        await self._say(client, key, f"{MISSING} [[long 10]][[slow 10 60]]")
        await self._say(client, key, "rather so", queueMode="steer")

    async def by_agent(self, client: RawClient) -> None:
        run = str(uuid.uuid4())
        await client.request("agent", {"message": "by the other method", "idempotencyKey": run})
        self._crowd.taken += 1
        await client.request("agent.wait", {"runId": run, "timeoutMs": 20_000}, timeout=PATIENCE_S)

    async def over_http(self, _: RawClient) -> None:
        """Straight at the gateway, past every sidecar."""
        gateway = self._crowd.town.gateway
        body = {"model": f"openclaw/{self._agent}", "messages": [{"role": "user", "content": "over HTTP"}]}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session,
            session.post(
                f"{gateway.http_url}/v1/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {gateway.password}"},
            ) as answer,
        ):
            if answer.status != 200:
                raise RequestError("/v1/chat/completions", {"code": str(answer.status), "message": await answer.text()})
        self._crowd.taken += 1

    async def leave(self, client: RawClient) -> None:
        await self._say(client, self._key(), "[[long 20]][[slow 20 60]]")

    async def abort(self, client: RawClient) -> None:
        key, since = self._key(), len(client.frames)
        run = await self._say(client, key, "[[long 60]][[slow 60 60]]")
        if self._chance.random() < 0.7:  # else before its first word, or nearly

            def is_delta(frame: dict[str, Any]) -> bool:
                payload = frame.get("payload") or {}
                return frame.get("event") == "chat" and payload.get("runId") == run and payload.get("state") == "delta"

            await client.wait_for(is_delta, since=since, timeout=PATIENCE_S)
        await client.request("chat.abort", {"sessionKey": key, "runId": run})
        await client.wait_for(is_end_of(run), since=since, timeout=PATIENCE_S)

    async def fail(self, client: RawClient) -> None:
        """The answer breaks off in the middle; the gateway asks once more."""
        with contextlib.suppress(RequestError):
            await self._chat(client, f"broken-{uuid.uuid4().hex[:8]}", "[[long 20]][[slow 20 20]][[fail 500 1]]")

    async def compact(self, client: RawClient) -> None:
        """Calls of which no transcript has a word."""
        await client.request("sessions.compact", {"key": self._key()}, timeout=PATIENCE_S)

    def _key(self) -> str:
        return self._chance.choice(SESSIONS)

    async def _chat(self, client: RawClient, key: str, message: str) -> None:
        since = len(client.frames)
        run = await self._say(client, key, message)
        await client.wait_for(is_end_of(run), since=since, timeout=PATIENCE_S)

    async def _say(self, client: RawClient, key: str, message: str, **params: Any) -> str:
        asked = {"sessionKey": key, "message": message, "idempotencyKey": str(uuid.uuid4()), **params}
        run = str((await client.request("chat.send", asked, timeout=PATIENCE_S))["runId"])
        self._crowd.taken += 1
        return run


@dataclass
class Misfortune:
    """One thing after another goes wrong, spread over the crowd's work."""

    crowd: Crowd
    kills: int
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)

    lost: list[tuple[float, float]] = field(default_factory=list)
    """From when to when a gateway went down: what a model served then it may not have written down."""

    async def strike(self) -> None:
        blows = [self.sidecar_killed] * self.kills + [self.postgres_stopped] * 2
        blows += [self.redis_emptied, self.redis_restarted, self.gateway_restarted]
        self.chance.shuffle(blows)
        for number, blow in enumerate(blows):
            at = self.crowd.turns * (number + 1) / (len(blows) + 1)
            while self.crowd.taken < at:
                await asyncio.sleep(0.1)
            await blow()
            self.done[blow.__name__] += 1

    async def sidecar_killed(self) -> None:
        sidecar = self.crowd.town.sidecars[self.done["sidecar_killed"] % 2]
        await sidecar.kill()
        await asyncio.sleep(self.chance.random())
        await sidecar.start()

    async def postgres_stopped(self) -> None:
        await self.crowd.town.postgres.stop()
        await asyncio.sleep(4)
        await self.crowd.town.postgres.start()

    async def redis_emptied(self) -> None:
        async with redis.asyncio.from_url(self.crowd.town.valkey.redis_url) as client:
            await client.flushall()

    async def redis_restarted(self) -> None:
        await self.crowd.town.valkey.stop()
        await asyncio.sleep(2)
        await self.crowd.town.valkey.start()

    async def gateway_restarted(self) -> None:
        began = time.time() - UNREAD_S
        await self.crowd.town.gateway.stop()
        self.lost.append((began, time.time()))
        await self.crowd.town.gateway.start()
