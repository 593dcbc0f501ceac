"""Users' agents in a real gateway's configuration: gathered, once, closed, and mended; whoever dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from sidecar.environments.openness import Wanted
from sidecar.errors import GatewayAway, GatewayOpen, StorageAway
from sidecar.gateways.admin import State
from sidecar.gateways.configuration import AgentOptions, closed_agent, replaced_arrays
from sidecar.gateways.options import GatewayOptions
from sidecar.gateways.rpc import RequestRefused
from sidecar.storage.redis import RedisStore
from sidecar.telemetry.facts import AgentsOpen
from tests.environments.replica import ROOT, Replica, replica, wanted
from tests.stack import gateway as stack
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import RawClient, RequestError, patch_config
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

PATIENCE_S = 90.0


@pytest_asyncio.fixture(scope="module")
async def own_gateway(model: EchoModel, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[stack.Gateway]:
    """Of this module alone: its configuration is opened and tampered with."""
    folder = tmp_path_factory.mktemp("own-gateway")
    async with stack.Gateway(stack.GatewayOptions(folder=folder, model_url=model.url)) as running:
        yield running


@pytest.fixture
def options(own_gateway: stack.Gateway) -> GatewayOptions:
    return GatewayOptions(id="main", url=own_gateway.url, auth="trusted-proxy", password=own_gateway.password)


async def ensured(one: Replica, *names: str) -> None:
    """All are there; asked again where the gateway was busy."""

    async def ensure(name: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(GatewayAway):
                    await one.maker.ensure(wanted(name))
                    return
                await asyncio.sleep(0.2)

    await asyncio.gather(*map(ensure, names))


async def as_wanted(one: Replica, *names: str) -> None:
    """The gateway's configuration holds exactly what a user's agent is."""
    configuration = await one.admin.configuration()
    entries = configuration.source["agents"]["entries"]
    for name in names:
        want: Wanted = wanted(name)
        closed = closed_agent(want.slug, want.workspace, AgentOptions(), configuration.effective)
        assert {part: entries[want.slug].get(part) for part in closed} == closed


async def test_who_waits_is_gathered_and_who_is_there_costs_no_write(
    options: GatewayOptions, store: RedisStore
) -> None:
    names = [f"gather{number}" for number in range(8)]
    async with replica(options, store) as one:
        await ensured(one, *names, *names)
        await as_wanted(one, *names)
        assert sum(one.written) == len(names)
        assert len(one.written) <= 2
        assert "main" in await one.entries(), "the operator's agent is still there"
        written = len(one.written)
        await ensured(one, *names)
        assert len(one.written) == written
    async with replica(options, store) as another:
        await ensured(another, *names)
        assert another.written == []


async def test_two_replicas_lose_nobody(options: GatewayOptions, store: RedisStore) -> None:
    async with replica(options, store) as one, replica(options, store) as two:
        left, right = [f"pair{number}" for number in range(6)], [f"pair{number}" for number in range(3, 9)]
        await asyncio.gather(ensured(one, *left), ensured(two, *right))
        await as_wanted(one, *left, *right)
        assert len(one.written) + len(two.written) <= 4


async def test_an_operator_who_writes_at_the_same_time_loses_nothing_either(
    own_gateway: stack.Gateway, options: GatewayOptions, store: RedisStore
) -> None:
    async with replica(options, store) as one, RawClient.admin(own_gateway) as operator:
        written: list[str] = []

        async def operate() -> None:
            for name in (f"ops{number}" for number in range(5)):
                with contextlib.suppress(RequestError):  # somebody else wrote meanwhile, and they read that
                    await patch_config(operator, {"agents": {"entries": {name: {"name": "Ops"}}}})
                    written.append(name)

        writing = asyncio.create_task(operate())
        for number in range(3):
            await ensured(one, f"beside{number}")
        await writing
        await as_wanted(one, *(f"beside{number}" for number in range(3)))
        assert written
        assert set(written) <= set(await one.entries())


async def test_a_writer_that_dies_half_way_is_no_harm(
    options: GatewayOptions, store: RedisStore, redis_client: Redis
) -> None:
    names = [f"crash{number}" for number in range(4)]
    async with replica(options, store) as dying:
        asking = [asyncio.create_task(dying.maker.ensure(wanted(name))) for name in names]
        async with asyncio.timeout(PATIENCE_S):
            while not await redis_client.keys("oc:*config-write:main*"):
                await asyncio.sleep(0.005)
        dying.writer.cancel()
        await asyncio.gather(dying.writer, return_exceptions=True)
        assert not any(task.done() and task.exception() is None for task in asking), "nobody was told yes"
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    async with replica(options, store) as next_one:
        await ensured(next_one, *names)
        await as_wanted(next_one, *names)
        entries = await next_one.entries()
        assert sorted(name for name in entries if "crash" in name) == [f"u-{name}" for name in names]


OPENED = {"tools": {"allow": None, "alsoAllow": ["exec"], "exec": {"security": "full"}}}


async def tamper(operator: RawClient, change: Mapping[str, Any], *slugs: str) -> None:
    """As an operator changes agents by RPC."""
    base = await operator.request("config.get")
    patch = {"agents": {"entries": {slug: dict(change) for slug in slugs}}}
    replaced = replaced_arrays(base["sourceConfig"], patch)
    params = {"raw": json.dumps(patch), "baseHash": base["hash"], "replacePaths": replaced}
    await operator.request("config.patch", params)


async def closed_again(one: Replica, *names: str) -> None:
    """Nobody comes and asks for them."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(AssertionError, GatewayAway, GatewayOpen):
                await as_wanted(one, *names)
                for name in names:
                    one.maker.require_closed(f"u-{name}")
                return
            await asyncio.sleep(0.1)


async def is_refused(one: Replica, name: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                one.maker.require_closed(f"u-{name}")
            except GatewayOpen:
                return
            await asyncio.sleep(0.02)


async def test_agents_that_somebody_opens_are_closed_at_once_by_one_of_the_replicas(
    own_gateway: stack.Gateway, options: GatewayOptions, store: RedisStore
) -> None:
    names = ("tampered", "tampered2", "untouched")
    async with replica(options, store) as one, replica(options, store) as two, RawClient.admin(own_gateway) as operator:
        await ensured(one, *names)
        await closed_again(two, *names)
        before = [*one.written, *two.written]
        await tamper(operator, OPENED, "u-tampered", "u-tampered2")
        await asyncio.gather(closed_again(one, *names), closed_again(two, *names))
        assert sorted([*one.written, *two.written]) == sorted([*before, 2]), "both in one write of one replica"
        assert one.told_open == two.told_open == [2, 0]
        [told, *_] = [fact for fact in one.facts if isinstance(fact, AgentsOpen)]
        assert "u-tampered (" in told.agents
        assert "tools.alsoAllow" in told.agents
        assert "u-untouched" not in told.agents
        entries = await one.entries()
        assert "alsoAllow" not in entries["u-tampered"]["tools"]


async def test_an_agent_that_is_opened_in_the_file_is_closed_too(
    own_gateway: stack.Gateway, options: GatewayOptions, store: RedisStore
) -> None:
    async with replica(options, store) as one:
        await ensured(one, "edited", "neighbour")
        config = json.loads(own_gateway.config_path.read_text())
        entry = config["agents"]["entries"]["u-edited"]
        entry |= {"cwd": f"{ROOT}/u-neighbour/workspace", "workspace": f"{ROOT}/u-neighbour/workspace", "name": "Ed"}
        own_gateway.config_path.write_text(json.dumps(config))
        await is_refused(one, "edited")
        await closed_again(one, "edited")
        after = (await one.entries())["u-edited"]
        assert "cwd" not in after
        assert after["name"] == "Ed", "what is a matter of taste stays"


async def test_what_was_opened_while_no_sidecar_ran_is_closed_when_one_comes_up(
    own_gateway: stack.Gateway, options: GatewayOptions, store: RedisStore
) -> None:
    async with replica(options, store) as one:
        await ensured(one, "asleep", "moved", "stranger")
    async with RawClient.admin(own_gateway) as operator:
        await tamper(operator, OPENED, "u-asleep")
        await tamper(operator, {"workspace": "/elsewhere", **OPENED}, "u-moved", "u-stranger")

    async def roster() -> dict[str, str]:
        return {"u-moved": wanted("moved").workspace, "u-gone": wanted("gone").workspace}

    async with replica(options, store, roster=roster) as next_one:
        await closed_again(next_one, "asleep", "moved")
        entries = await next_one.entries()
        assert entries["u-stranger"]["workspace"] == "/elsewhere", "neither here nor in the database: not ours"
        assert "u-gone" not in entries, "who is not there is not made"


async def test_a_roster_that_cannot_be_read_at_first_is_asked_for_again(
    own_gateway: stack.Gateway, options: GatewayOptions, store: RedisStore
) -> None:
    async with replica(options, store) as one:
        await ensured(one, "latecomer")
    async with RawClient.admin(own_gateway) as operator:
        await tamper(operator, {"workspace": "/elsewhere", **OPENED}, "u-latecomer")
    asked = 0

    async def roster() -> dict[str, str]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise StorageAway("PostgreSQL does not answer")
        return {"u-latecomer": wanted("latecomer").workspace}

    async with replica(options, store, roster=roster) as one:
        await closed_again(one, "latecomer")
        assert asked == 2


async def test_who_opens_an_agent_again_and_again_is_not_fought_and_gets_no_runs(
    own_gateway: stack.Gateway, options: GatewayOptions, store: RedisStore
) -> None:
    async with replica(options, store) as one, RawClient.admin(own_gateway) as operator:
        await ensured(one, "fought")
        before = len(one.written)
        for _ in range(3):
            with contextlib.suppress(RequestError):
                await tamper(operator, OPENED, "u-fought")
            await is_refused(one, "fought")
            if len(one.written) - before >= 2:
                break
            await closed_again(one, "fought")
        await is_refused(one, "fought")
        written = len(one.written)
        with pytest.raises(GatewayOpen) as refused:
            await one.maker.ensure(wanted("fought"))
        assert refused.value.retry_after_ms
        await ensured(one, "newcomer")
        assert len(one.written) - written <= 2
        await closed_again(one, "fought")
        assert len(one.written) - before <= 6


async def test_an_agent_that_cannot_be_closed_runs_nothing_until_it_is(
    own_gateway: stack.Gateway, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`$include` of two files: the gateway refuses to write what comes from them (2026.9.6)."""
    folder = tmp_path_factory.mktemp("unclosable")
    auth = {"token": await identity_provider.token_for("una")}
    async with (
        Sidecar(SidecarOptions(folder, own_gateway, identity_provider.issuer)) as sidecar,
        RawClient.connect(sidecar.url, auth) as una,
    ):
        assert await una.chat("main", "closed") == "closed"
        good = own_gateway.config_path.read_text()
        config = json.loads(good)
        config["agents"]["entries"]["u-una"] = {"workspace": config["agents"]["entries"]["u-una"]["workspace"]}
        for name, part in (("all", config["agents"]["entries"]), ("more", {})):
            (own_gateway.options.folder / f"{name}.json5").write_text(json.dumps(part))
        config["agents"]["entries"] = {"$include": ["./all.json5", "./more.json5"]}
        own_gateway.config_path.write_text(json.dumps(config))
        try:
            refused = await _until_refused(una)
            assert refused.detail_code == "GATEWAY_OPEN"
            assert refused.error["retryable"] is True
            assert 'openclaw_sidecar_agents_open{gateway="main"} 1.0' in await sidecar.metrics()
            async with asyncio.timeout(PATIENCE_S):
                while "agents_refused" not in sidecar.log:
                    await asyncio.sleep(0.1)
            assert "agents_open" in sidecar.log
            assert "u-una (tools" in sidecar.log
            assert (await una.request("chat.history", {"sessionKey": "main"}))["messages"], "reading goes on"
            with pytest.raises(RequestError) as turned_away:
                await _come(sidecar, auth)
            assert turned_away.value.detail_code == "GATEWAY_OPEN"
        finally:
            own_gateway.config_path.write_text(good)
        async with asyncio.timeout(PATIENCE_S):
            while 'openclaw_sidecar_agents_open{gateway="main"} 0.0' not in await sidecar.metrics():
                await asyncio.sleep(0.1)
        assert await una.chat("main", "and on") == "and on"


async def _until_refused(client: RawClient) -> RequestError:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await client.chat("main", "still running")
            except RequestError as refused:
                return refused


async def test_open_session_tools_close_the_sidecar_and_closing_them_opens_it_again(
    own_gateway: stack.Gateway,
    options: GatewayOptions,
    store: RedisStore,
    identity_provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    strict = SidecarOptions(tmp_path_factory.mktemp("strict"), own_gateway, identity_provider.issuer)
    lenient = SidecarOptions(
        tmp_path_factory.mktemp("lenient"),
        own_gateway,
        identity_provider.issuer,
        gateway_settings={"allow_open_gateway": True},
    )
    auth = {"token": await identity_provider.token_for("tess")}
    async with (
        Sidecar(strict) as careful,
        Sidecar(lenient) as careless,
        RawClient.connect(careful.url, auth) as tess,
        RawClient.admin(own_gateway) as operator,
    ):
        assert await tess.chat("main", "closed") == "closed"
        await patch_config(operator, {"tools": stack.SESSION_TOOLS["open"]})
        async with replica(options, store, state=State.OPEN) as one:
            with pytest.raises(GatewayOpen):
                await one.maker.ensure(wanted("tess"))
        async with asyncio.timeout(PATIENCE_S):
            while (await careful.readiness())[0] != 503:
                await asyncio.sleep(0.05)
        for asking in (
            tess.request("chat.send", {"sessionKey": "main", "message": "open"}),
            _come(careful, auth),
        ):
            with pytest.raises(RequestError) as refused:
                await asking
            assert refused.value.detail_code == "GATEWAY_OPEN"
            assert "tools.agentToAgent.enabled" in str(refused.value)
            assert "tools.sessions.visibility" in str(refused.value)
        async with RawClient.connect(careless.url, auth) as here:
            assert await here.chat("main", "let in") == "let in"
        await patch_config(operator, {"tools": stack.SESSION_TOOLS["closed"]})
        await careful.wait_ready()
        assert await tess.chat("main", "and on, on the same socket") == "and on, on the same socket"


async def _come(sidecar: Sidecar, auth: dict[str, str]) -> None:
    async with RawClient.connect(sidecar.url, auth):
        pass


@pytest.mark.deep
async def test_a_gateway_that_takes_no_more_writes_for_now_is_waited_for(
    options: GatewayOptions, store: RedisStore
) -> None:
    async with replica(options, store) as one:
        refused: dict[str, object] = {}
        for _ in range(40):
            try:
                await one.admin.request("config.patch", {"raw": "{}", "baseHash": "stale"})
            except RequestRefused as error:
                refused = dict(error.error)
        assert "rate limit" in str(refused["message"])
        assert isinstance(refused["retryAfterMs"], int)
        await ensured(one, "patient")
        await as_wanted(one, "patient")
        assert one.written == [1]
