"""Limits, as a user meets them: before a turn, in the middle of one, and from whatever they have that runs by itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from sidecar.storage.engines.running import running_database_url, running_redis_url
from tests.live.conftest import House
from tests.live.test_usage import billed, chat, data_dir, new_login, rows, served, settled
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import RawClient, RequestError, is_end_of
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

PATIENCE_S = 30.0
LIMIT = 60_000
ORIGIN = "http://127.0.0.1:8080"
SETTINGS: dict[str, Mapping[str, Any]] = {
    "quota": {"daily_tokens": LIMIT, "monthly_cost_usd": 0.0, "concurrent_runs": 8, "estimate_tokens": 15_000},
    "environments": {"tools_allow": ["read", "write", "sessions_spawn"]},
    "server": {"public_url": ORIGIN, "drain_seconds": 2},
}


@pytest_asyncio.fixture(scope="module", params=["2026.9.6", pytest.param("2026.8.2", marks=pytest.mark.deep)])
async def metered(
    request: pytest.FixtureRequest,
    model: EchoModel,
    identity_provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("quota")
    options = GatewayOptions(folder / "gateway", model.url, version=request.param, allowed_origins=[ORIGIN])
    async with (
        Gateway(options) as gateway,
        Sidecar(SidecarOptions(folder / "sidecar", gateway, identity_provider.issuer, SETTINGS)) as sidecar,
    ):
        yield House(gateway, model, identity_provider, sidecar)


async def refused(client: RawClient, key: str = "main", message: str = "hello") -> RequestError:
    with pytest.raises(RequestError) as error:
        await client.request("chat.send", chat(key, message))
    return error.value


async def until_refused(house: House, login: str, client: RawClient, key: str = "main") -> tuple[int, RequestError]:
    """Chat until a limit says no: how many turns there were."""
    for turns in range(40):
        try:
            await client.chat(key, "hello")
        except RequestError as error:
            return turns, error
        async with asyncio.timeout(PATIENCE_S):  # what the turn had reserved is free again
            while (await standing(house, login))["reserved"]:
                await asyncio.sleep(0.1)
    raise AssertionError("nothing was refused")


async def alerts(house: House, agent: str) -> list[str]:
    connection = await asyncpg.connect(running_database_url(data_dir(house)))
    try:
        found = await connection.fetch(
            "select alert_type from quota_alerts join user_openclaw_environments using (user_id) "
            "where profile_name = $1 order by id",
            agent,
        )
        return [row["alert_type"] for row in found]
    finally:
        await connection.close()


async def test_who_has_used_their_tokens_reads_how_many_and_until_when(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        turns, error = await until_refused(metered, login, alice)
    assert turns >= 2
    used = sum(row["tokens_total"] for row in await settled(metered, agent))
    details = error.error["details"]
    assert (details["code"], details["limit"], details["used"]) == ("DAILY_TOKENS_EXCEEDED", LIMIT, used)
    assert used + details["needed"] > LIMIT >= used
    assert details["resetsAt"] % 86_400_000 == 0
    assert f"{used:,} of your {LIMIT:,} tokens" in error.error["message"]
    assert "(UTC)" in error.error["message"]
    assert not error.error.get("retryable")
    async with metered.client(login) as alice:
        assert (await refused(alice)).detail_code == "DAILY_TOKENS_EXCEEDED"
        history = await alice.request("chat.history", {"sessionKey": "main"})
        assert history["messages"], "reading goes on"
    page = {"id": "openclaw-control-ui", "version": "2026.9.6", "platform": "web", "mode": "webchat"}
    async with metered.client(login, client=page, headers={"Origin": ORIGIN}) as alice:
        asked = chat("main", "hello")
        answer = await alice.request("chat.send", asked)
        ended = await alice.wait_for(is_end_of(asked["idempotencyKey"]))
    assert answer == {"runId": asked["idempotencyKey"], "status": "started"}
    assert (ended["payload"]["state"], ended["payload"]["sessionKey"]) == ("error", f"agent:{agent}:main")
    assert f"of your {LIMIT:,} tokens" in ended["payload"]["errorMessage"], "a banner, not a tooltip"


async def test_a_turn_that_passes_the_limit_is_stopped_and_says_why(metered: House) -> None:
    login, agent = new_login()
    steps = " ".join('[[tool read {"path": "none.txt"}]]' for _ in range(20))
    async with metered.client(login) as alice:
        await alice.request("chat.send", chat("main", f"{steps} [[long 400]][[slow 400 20]]"))
        told = await heard(alice, "This turn was stopped")
        alerted = [frame["payload"] for frame in alice.events if frame["event"] == "quota.alert"]
    assert [(one["type"], one["limit"]) for one in alerted][:2] == [
        ("daily_tokens_80", LIMIT),
        ("daily_tokens_90", LIMIT),
    ]
    assert f"of your {LIMIT:,} tokens" in told
    found = await written(metered, agent)
    used = sum(row["tokens_total"] for row in found)
    most = max(row["tokens_total"] for row in found)
    assert LIMIT <= used < LIMIT + 2 * most, "at most the call in which it was passed, and one that had begun"
    assert await alerts(metered, agent) == ["daily_tokens_80", "daily_tokens_90", "daily_tokens_100"]
    async with metered.client(login) as alice:
        history = await alice.request("chat.history", {"sessionKey": "main"})
        assert "This turn was stopped" in str(history["messages"]), "it is there after a reload"


STEPS = "[[wait 1000]] " + " ".join(['[[tool read {"path": "none.txt"}]]'] * 20)
"""A model that thinks for a second each time: longer than it takes to stop a run."""


async def queued(client: RawClient) -> None:
    for number in range(3):
        await client.request("chat.send", chat("main", f"{STEPS} {number}") | {"queueMode": "followup"})


async def steered(client: RawClient) -> None:
    for number in range(3):
        await client.request("chat.send", chat("main", f"{STEPS} {number}") | {"queueMode": "steer"})


async def sub_agents(client: RawClient) -> None:
    spawns = [spawn(client, f"{STEPS} {label}", label) for label in "abc"]
    await client.request("chat.send", chat("main", " ".join(spawns)))


def spawn(client: RawClient, task: str, label: str) -> str:
    """A directive; 2026.9 hides the tool behind `tool_call`."""
    arguments = {"task": task, "label": label}
    if client.hello["server"]["version"].startswith("2026.8."):
        return f"[[tool sessions_spawn {json.dumps(arguments)}]]"
    return f"[[tool tool_call {json.dumps({'id': 'sessions_spawn', 'args': arguments})}]]"


@pytest.mark.parametrize("begin", [queued, sub_agents, pytest.param(steered, marks=pytest.mark.deep)])
async def test_whatever_runs_takes_one_call_past_the_limit_at_most(
    metered: House, begin: Callable[[RawClient], Awaitable[None]]
) -> None:
    """Also what nobody asked leave for: turns behind or within another, and those that an agent starts."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        await begin(alice)
        await heard(alice, "This turn was stopped")
    await still(metered, agent)
    found = await written(metered, agent)
    used = list(itertools.accumulate(row["tokens_total"] for row in found))
    assert used[-1] >= LIMIT
    later = Counter(row["request_id"] for row in found[sum(one < LIMIT for one in used) + 1 :])
    print(f"{begin.__name__}: {len(found)} calls, {used[-1] - LIMIT:,} tokens past the limit, in {dict(later)}")
    assert max(later.values(), default=0) <= 1


async def still(house: House, agent: str) -> None:
    """Nothing of the user's has called the model for three seconds."""
    since, count = time.monotonic(), -1
    async with asyncio.timeout(2 * PATIENCE_S):
        while time.monotonic() < since + 3:
            await asyncio.sleep(0.1)
            mine = [call for call in house.model.calls if call.turn.agent == agent]
            if len(mine) != count or any(call.outcome == "running" for call in mine):
                since, count = time.monotonic(), len(mine)


async def written(house: House, agent: str) -> list[asyncpg.Record]:
    """The user's rows, once each call that the model ended has one: an estimate, where the run was stopped at that moment."""
    async with asyncio.timeout(PATIENCE_S):
        while len(found := await rows(house, agent)) < served(house, agent)[0]:
            await asyncio.sleep(0.1)
        return found


async def heard(client: RawClient, words: str) -> str:
    """The text of the `chat` event that holds these words."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for text in client.received:
                if words in text and '"event":"chat"' in text:
                    return text
            await asyncio.sleep(0.05)


async def test_what_was_stopped_is_estimated(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        run = chat("main", "[[long 400]][[slow 400 20]]")
        await alice.request("chat.send", run)
        await streamed(alice, run["idempotencyKey"])
        await alice.request("chat.abort", {"sessionKey": "main"})
    found = await rows(metered, agent)
    async with asyncio.timeout(PATIENCE_S):
        while not any(row["source"] == "estimate" for row in found):
            await asyncio.sleep(0.1)
            found = await rows(metered, agent)
    [estimate] = [row for row in found if row["source"] == "estimate"]
    counts = metered.model.counted(agent)
    real = counts.prompt + counts.completion - sum(billed(found)[1:])
    assert counts.aborts == 1
    print(f"an aborted call took {real} tokens, the estimate says {estimate['tokens_total']}")
    assert 0.5 * real < estimate["tokens_total"] < 2 * real
    assert "stopped" in estimate["metadata"]


async def streamed(client: RawClient, run_id: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not any(run_id in text and '"state":"delta"' in text for text in client.received):
            await asyncio.sleep(0.05)


async def test_what_a_killed_sidecar_had_set_aside_is_free_again(metered: House) -> None:
    """The runs end while nobody looks on; whoever leads next asks the gateway which of them still live."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        for number in range(2):
            await alice.request("chat.send", chat(f"s{number}", "[[long 10]][[slow 10 300]]"))
        await until_open(metered, agent, 2)
        assert (await standing(metered, login))["reserved"] >= 2 * 5000
        await metered.sidecar.kill()
    async with asyncio.timeout(PATIENCE_S):
        while any(call.outcome == "running" for call in metered.model.calls):
            await asyncio.sleep(0.1)
    await metered.sidecar.start()
    found = await settled(metered, agent, lambda found: len(found) == 3)
    used = sum(row["tokens_total"] for row in found)
    async with asyncio.timeout(PATIENCE_S):
        while (now := await standing(metered, login))["reserved"] or now["used"] != used:
            await asyncio.sleep(0.2)


async def until_open(house: House, agent: str, count: int) -> None:
    """So many runs of the user's have begun, and PostgreSQL knows it."""
    connection = await asyncpg.connect(running_database_url(data_dir(house)))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await connection.fetchval("select count(*) from usage_open_runs where slug = $1", agent) < count:
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def standing(house: House, login: str, quota: str = "daily_tokens") -> dict[str, Any]:
    """What `GET /api/openclaw/quota` says of the user's quota."""
    headers = {"Authorization": f"Bearer {await house.token(login)}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{house.sidecar.http_url}/api/openclaw/quota") as answer,
    ):
        told: dict[str, Any] = (await answer.json())["quotas"][quota]
        return told


async def test_fifty_clients_of_one_user_through_two_sidecars(
    metered: House, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is admitted fits, and all that fits is."""
    login, agent = new_login()
    async with another(metered, tmp_path_factory.mktemp("second")) as other:
        both = [metered, other]
        outcomes = await asyncio.gather(*(one_turn(both[number % 2], login, number) for number in range(50)))
        admitted = [one for one in outcomes if one == "ok"]
        assert len(admitted) == LIMIT // 15_000
        assert set(outcomes) == {"ok", "DAILY_TOKENS_EXCEEDED"}
        await settled(metered, agent, lambda found: len(found) == len(admitted))


async def test_the_turns_of_a_day_are_counted_exactly(metered: House, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of all that runs those that the user asked for, whichever sidecar they came through."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", spawn(alice, "at work", "a"))
        slow = chat("main", "[[long 10]][[slow 10 60]]")
        await alice.request("chat.send", slow)
        await alice.request("chat.send", chat("main", "behind it") | {"queueMode": "followup"})
        await alice.request("chat.send", slow)
        assert (await standing(metered, login, "api_calls"))["used"] == 3
    await still(metered, agent)
    await operator(metered, "set", await user_id(metered, agent), "daily_tokens", "0")
    await operator(metered, "set", await user_id(metered, agent), "api_calls", "8")
    async with another(metered, tmp_path_factory.mktemp("third")) as other:
        both = [metered, other]
        for house in both:
            await until_limited(house, login, 8)
        outcomes = await asyncio.gather(*(one_turn(both[number % 2], login, number) for number in range(20)))
        assert Counter(outcomes) == {"ok": 5, "API_CALLS_EXCEEDED": 15}
        told = [await standing(house, login, "api_calls") for house in both]
        assert [(one["used"], one["limit"]) for one in told] == [(8, 8)] * 2
    async with metered.client(login) as alice:
        details = (await refused(alice)).error["details"]
    assert (details["code"], details["used"], details["limit"]) == ("API_CALLS_EXCEEDED", 8, 8)


async def until_limited(house: House, login: str, limit: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await standing(house, login, "api_calls"))["limit"] != limit:
            await asyncio.sleep(0.2)


async def user_id(house: House, agent: str) -> str:
    connection = await asyncpg.connect(running_database_url(data_dir(house)))
    try:
        asked = "select user_id from user_openclaw_environments where profile_name = $1"
        return str(await connection.fetchval(asked, agent))
    finally:
        await connection.close()


async def operator(house: House, *words: str) -> None:
    """`sidecar quota …`, beside the sidecar that runs."""
    command = (sys.executable, "-m", "sidecar.cli.main", "quota", *words, "--config", str(house.sidecar.config_path))
    process = await asyncio.create_subprocess_exec(*command)
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


@contextlib.asynccontextmanager
async def another(house: House, folder: Path) -> AsyncIterator[House]:
    """A second sidecar beside the first, before the same gateway."""
    settings = {**SETTINGS, "storage": shared_storage(house)}
    async with Sidecar(SidecarOptions(folder, house.gateway, house.sidecar.options.issuer, settings)) as sidecar:
        yield House(house.gateway, house.model, house.identity_provider, sidecar)


def shared_storage(house: House) -> dict[str, str]:
    folder = data_dir(house)
    return {
        "database_url": running_database_url(folder),
        "redis_url": running_redis_url(folder),
        "secret": (folder / "secret").read_text().strip(),
    }


async def one_turn(house: House, login: str, number: int) -> str:
    """As every client does, again where a gateway has too many newcomers at once."""
    for _ in range(10):
        try:
            async with house.client(login) as client:
                return await asked(client, number)
        except RequestError as error:
            if error.code != "UNAVAILABLE":
                raise
            await asyncio.sleep(1)
    raise AssertionError("could not connect")


async def asked(client: RawClient, number: int) -> str:
    try:
        await client.request("chat.send", chat(f"s{number}", f"[[long 10]][[slow 10 300]] {number}"))
    except RequestError as error:
        return error.detail_code
    return "ok"
