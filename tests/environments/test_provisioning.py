"""Users' agents in a real gateway's configuration: gathered, once, closed, and mended; whoever dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from sidecar.environments.provisioning import Wanted
from sidecar.errors import GatewayAway, GatewayOpen
from sidecar.gateways.admin import State
from sidecar.gateways.configuration import AgentOptions, closed_agent
from sidecar.gateways.options import GatewayOptions
from sidecar.gateways.rpc import RequestRefused
from sidecar.storage.redis import RedisStore
from tests.environments.replica import Replica, replica, wanted
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

        async def operate() -> None:
            for number in range(5):
                with contextlib.suppress(RequestError):
                    await patch_config(operator, {"agents": {"entries": {f"ops{number}": {"name": "Ops"}}}})

        writing = asyncio.create_task(operate())
        for number in range(3):
            await ensured(one, f"beside{number}")
        await writing
        await as_wanted(one, *(f"beside{number}" for number in range(3)))
        assert any(name.startswith("ops") for name in await one.entries())


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
        assert not all(task.done() and task.exception() is None for task in asking), "nobody was told yes"
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    async with replica(options, store) as next_one:
        await ensured(next_one, *names)
        await as_wanted(next_one, *names)
        entries = await next_one.entries()
        assert sorted(name for name in entries if "crash" in name) == [f"u-{name}" for name in names]


async def test_an_agent_that_an_operator_opened_is_closed_when_its_user_comes_again(
    own_gateway: stack.Gateway, options: GatewayOptions, store: RedisStore
) -> None:
    async with replica(options, store) as one, RawClient.admin(own_gateway) as operator:
        await ensured(one, "tampered")
        opened = {"tools": {"allow": None, "alsoAllow": ["exec"], "exec": {"security": "full"}}}
        patch = {"agents": {"entries": {"u-tampered": opened}}}
        base = (await operator.request("config.get"))["hash"]
        replaced = ["agents.entries.u-tampered.tools.allow"]
        await operator.request("config.patch", {"raw": json.dumps(patch), "baseHash": base, "replacePaths": replaced})
        assert (await one.entries())["u-tampered"]["tools"]["alsoAllow"] == ["exec"]
        async with asyncio.timeout(PATIENCE_S):
            while "alsoAllow" in (await one.entries())["u-tampered"]["tools"]:
                await ensured(one, "tampered")
                await asyncio.sleep(0.1)
        await as_wanted(one, "tampered")


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
