"""Everything that can die is killed while alice and bob chat: who notices what, and what is left behind (nothing).

| what dies | a client that streams | whoever asks meanwhile | `/readyz` | how it comes back |
|---|---|---|---|---|
| gateway, SIGKILL | closed, 1012 | `connect` refused, retryable, `startup-sidecars` | 503 | when the gateway is back |
| Valkey, SIGKILL | nothing | new runs refused, retryable, `STORAGE_UNAVAILABLE` | 503 | restarted; claims are kept |
| PostgreSQL, SIGKILL | nothing | new users refused, retryable; known ones come in | 503 | restarted |
| a client, no close frame | (others) nothing | its gateway connection closes, its run goes on | 200 | |
| sidecar, SIGTERM | closed, 1012, within `drain_seconds` | no new socket | 503, gone | exit status 0 |
| sidecar, SIGKILL | connection lost; the run goes on | | gone | engines end with it; a start finds its data |

An engine is back within a second, so "meanwhile" is made longer here: its folder is taken away for a moment, as by a lost disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from sidecar.quota.runs import SETTLE_MS
from tests.live.conftest import House
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.proc import Holdings, children, eventually, holdings, is_alive
from tests.stack.raw import ClosedError, RawClient, RequestError, is_end_of, text_of
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

SLOW = "[[long 40]][[slow 40 100]]"
"""Four seconds."""
ANSWER = " ".join(f"w{number}" for number in range(40))
PATIENCE_S = 60.0


@pytest_asyncio.fixture(scope="module")
async def fragile(
    model: EchoModel, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A house of our own, to be broken and mended by each test."""
    folder = tmp_path_factory.mktemp("fragile")
    async with (
        Gateway(GatewayOptions(folder=folder / "gateway", model_url=model.url)) as gateway,
        Sidecar(SidecarOptions(folder / "sidecar", gateway, identity_provider.issuer)) as sidecar,
    ):
        house = House(gateway, model, identity_provider, sidecar)
        for user in ("alice", "bob"):
            async with house.client(user) as client:
                await client.chat("main", "hello")
        yield house


@pytest_asyncio.fixture(autouse=True)
async def _nothing_is_left(fragile: House) -> AsyncIterator[None]:
    """The sidecar holds as many sockets and children after each test as before it."""
    before = await settled(fragile)
    yield
    after = before
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while (after := await settled(fragile)) != before:
                await asyncio.sleep(0.1)
    assert (after.sockets, after.children) == (before.sockets, before.children)


async def settled(house: House) -> Holdings:
    """Counted once nobody is connected and the gateway is reached. Mends what a failed test left broken."""
    if not house.gateway.running:
        await house.gateway.start()
    if house.sidecar._process is None or house.sidecar._process.returncode is not None:
        await house.sidecar.start()
    await house.sidecar.wait_ready()
    held = holdings(house.sidecar.pid)
    steady = 0
    async with asyncio.timeout(PATIENCE_S):
        while steady < 10:
            await asyncio.sleep(0.05)
            now = holdings(house.sidecar.pid)
            steady = steady + 1 if (now.sockets, now.children) == (held.sockets, held.children) else 0
            held = now
    return Holdings(held.sockets, held.children, 0)


@dataclass(frozen=True, slots=True)
class Run:
    """One that streams."""

    id: str
    key: str


async def begin(client: RawClient) -> Run:
    """Start a run in a session of its own and wait for the first words of its answer.

    Of its own, since a killed gateway goes on by itself with the turn that was interrupted, and queues what follows it.
    """
    since, key = len(client.frames), f"session-{uuid.uuid4().hex}"
    run: str = (await client.request("chat.send", {"sessionKey": key, "message": SLOW}))["runId"]
    await client.wait_for(lambda frame: is_delta(frame, run), since=since)
    return Run(run, key)


def is_delta(frame: dict[str, Any], run: str) -> bool:
    payload = frame.get("payload") or {}
    return frame.get("event") == "chat" and payload.get("runId") == run and payload.get("state") == "delta"


async def whole(client: RawClient, run: Run) -> str:
    """Wait for the run's end; what it said. The client has seen every event."""
    end = await client.wait_for(is_end_of(run.id), timeout=PATIENCE_S)
    assert client.has_no_gap()
    assert end["payload"]["state"] == "final", end
    return text_of(end["payload"]["message"])


async def refused(ask: Callable[[], Awaitable[object]]) -> RequestError:
    """The refusal that comes within some time; what is answered before it is passed over."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await ask()
            except RequestError as error:
                return error
            await asyncio.sleep(0.02)


async def in_the_end(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask until it is answered; every refusal before says that trying again helps."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await ask()
            except RequestError as error:
                if error.error.get("retryable") is not True:
                    raise
            except (ClosedError, aiohttp.ClientError):
                pass
            else:
                return
            await asyncio.sleep(0.1)


async def may_start(client: RawClient, runs: int) -> None:
    """What ended while Redis was away is counted no more: as many may run at once as ever. Leaves none behind."""
    keys = [f"session-{uuid.uuid4().hex}" for _ in range(runs)]
    async with asyncio.timeout(PATIENCE_S):
        for key in keys:
            while not await may_start_one(client, key):
                await asyncio.sleep(0.1)
    for key in keys:
        await client.request("chat.abort", {"sessionKey": key})


async def may_start_one(client: RawClient, key: str) -> bool:
    try:
        await client.request("chat.send", {"sessionKey": key, "message": SLOW})
    except RequestError as error:
        if error.detail_code != "TOO_MANY_RUNS":
            raise
        return False
    return True


def engine(house: House, program: str) -> int:
    """The pid of the sidecar's own engine."""
    found = [pid for pid in children(house.sidecar.pid) if program in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(found) == 1, found
    return found[0]


def folder_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/cwd").readlink()


@contextlib.contextmanager
def lost(pid: int) -> Any:
    """SIGKILL an engine, and keep it from coming back for so long."""
    folder = folder_of(pid)
    away = folder.with_name(folder.name + "-away")
    folder.rename(away)
    try:
        folder.touch()
        os.kill(pid, signal.SIGKILL)
        yield
    finally:
        folder.unlink()
        away.rename(folder)


async def test_the_gateway_is_killed(fragile: House) -> None:
    async with fragile.client("alice") as alice, fragile.client("bob") as bob:
        runs = [await begin(client) for client in (alice, bob)]
        assert len({run.id for run in runs}) == 2
        pid = fragile.gateway.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert [await client.wait_closed() for client in (alice, bob)] == [1012, 1012]
    body = await not_ready(fragile)
    assert not body["checks"]["gateways"]["ok"]
    assert body["checks"]["postgres"]["ok"]
    assert body["checks"]["redis"]["ok"]
    with pytest.raises(RequestError) as turned_away:
        async with fragile.client("alice"):
            pass
    assert turned_away.value.error["retryable"] is True
    assert turned_away.value.error["details"]["reason"] == "startup-sidecars"
    await fragile.gateway.stop()
    await fragile.gateway.start()
    await in_the_end(lambda: greeted(fragile, "alice"))
    async with fragile.client("alice") as alice, fragile.client("bob") as bob:
        replies = await asyncio.gather(alice.chat("new", "still here"), bob.chat("new", "me too"))
        assert list(replies) == ["still here", "me too"]


async def not_ready(house: House) -> dict[str, Any]:
    """What `/readyz` says once it is 503."""
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await house.sidecar.readiness())[0] != 503:
            await asyncio.sleep(0.02)
    return answer[1]


async def greeted(house: House, user: str) -> None:
    async with house.client(user):
        pass


async def test_valkey_is_killed(fragile: House) -> None:
    async with fragile.client("alice") as alice, fragile.client("bob") as bob:
        runs = [await begin(client) for client in (alice, bob)]
        killed = engine(fragile, "valkey-server")
        with lost(killed):
            error = await refused(lambda: alice.request("chat.send", {"sessionKey": "other", "message": "quick"}))
            assert error.detail_code == "STORAGE_UNAVAILABLE"
            assert error.error["retryable"] is True
            assert (await bob.request("chat.history", {"sessionKey": "main"}))["messages"]
            assert not (await not_ready(fragile))["checks"]["redis"]["ok"]
            assert [await whole(client, run) for client, run in ((alice, runs[0]), (bob, runs[1]))] == [ANSWER] * 2
            await greeted(fragile, "bob")
        await in_the_end(lambda: alice.request("chat.send", {"sessionKey": "other", "message": "quick"}))
        assert await bob.chat("other", "me too") == "me too"
        await may_start(alice, 3)
    await fragile.sidecar.wait_ready()
    assert engine(fragile, "valkey-server") != killed


async def test_postgresql_is_killed(fragile: House) -> None:
    async with fragile.client("alice") as alice:
        run = await begin(alice)
        killed = engine(fragile, "postgres")
        with lost(killed):
            await eventually(lambda: not is_alive(killed))
            await greeted(fragile, "bob")
            with pytest.raises(RequestError) as turned_away:
                await greeted(fragile, "carol")
            assert turned_away.value.detail_code == "STORAGE_UNAVAILABLE"
            assert turned_away.value.error["retryable"] is True
            assert not (await not_ready(fragile))["checks"]["postgres"]["ok"]
            async with fragile.client("bob") as bob:
                assert await bob.chat("main", "as ever") == "as ever"
            assert await whole(alice, run) == ANSWER
        await in_the_end(lambda: greeted(fragile, "carol"))
    await fragile.sidecar.wait_ready()
    assert engine(fragile, "postgres") != killed


async def test_a_client_is_killed(fragile: House) -> None:
    open_before = holdings(fragile.sidecar.pid).sockets
    async with fragile.client("bob") as bob:
        run_of_bob = await begin(bob)
        alice = await raw_alice(fragile)
        run = await begin(alice)
        await eventually(lambda: holdings(fragile.sidecar.pid).sockets == open_before + 4)
        cut(alice)
        await eventually(lambda: holdings(fragile.sidecar.pid).sockets == open_before + 2)
        assert await whole(bob, run_of_bob) == ANSWER
        await alice.close()
    async with fragile.client("alice") as again:
        await said_in_history(again, run)


async def raw_alice(house: House) -> RawClient:
    """A client that lives until it is cut."""
    stack = contextlib.AsyncExitStack()
    client = await stack.enter_async_context(house.client("alice"))
    LEFT_OPEN.append(stack)
    return client


LEFT_OPEN: list[contextlib.AsyncExitStack] = []


@pytest_asyncio.fixture(autouse=True)
async def _no_client_is_left() -> AsyncIterator[None]:
    yield
    while LEFT_OPEN:
        await LEFT_OPEN.pop().aclose()


def cut(client: RawClient) -> None:
    """As a machine that loses its power: no close frame."""
    connection = client._socket._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()


async def said_in_history(client: RawClient, run: Run) -> None:
    """The run that nobody listened to has ended as any other."""
    async with asyncio.timeout(PATIENCE_S):
        while ANSWER not in str(await client.request("chat.history", {"sessionKey": run.key})):
            await asyncio.sleep(0.2)


async def test_the_sidecar_is_asked_to_stop(fragile: House) -> None:
    async with fragile.client("alice") as alice, fragile.client("bob") as bob:
        run = await begin(alice)
        engines = children(fragile.sidecar.pid)
        stopping = asyncio.create_task(fragile.sidecar.stop())
        assert [await client.wait_closed() for client in (alice, bob)] == [1012, 1012]
        with pytest.raises(aiohttp.ClientError):
            async with fragile.client("alice"):
                pass
        await stopping
    assert fragile.sidecar._process is not None
    assert fragile.sidecar._process.returncode == 0
    assert not any(map(is_alive, engines))
    await fragile.sidecar.start()
    async with fragile.client("alice") as alice:
        await said_in_history(alice, run)


async def test_the_sidecar_is_killed(fragile: House) -> None:
    async with fragile.client("alice") as alice, fragile.client("bob") as bob:
        run = await begin(alice)
        engines = children(fragile.sidecar.pid)
        assert len(engines) == 2
        os.kill(fragile.sidecar.pid, signal.SIGKILL)
        assert [await client.wait_closed() for client in (alice, bob)] == [1006, 1006]
        await eventually(lambda: not any(map(is_alive, engines)))
    await fragile.sidecar.kill()
    writes = fragile.sidecar.log.count('"agents_written"')
    await fragile.sidecar.start()
    async with fragile.client("alice") as alice, fragile.client("bob") as bob:
        await said_in_history(alice, run)
        with pytest.raises(RequestError) as foreign:
            await bob.request("agent.wait", {"runId": run.id})
        assert foreign.value.detail_code == "FOREIGN_KEY", "the claim outlived its sidecar"
        assert (await alice.request("agent.wait", {"runId": run.id, "timeoutMs": 10_000}))["runId"] == run.id
        assert await bob.chat("main", "and on") == "and on"
    assert fragile.sidecar.log.count('"agents_written"') == writes, "the agents are known, nothing was written again"


@pytest.mark.parametrize("way", ["the sidecar is stopped", "the sidecar is killed", "the gateway is killed"])
async def test_a_turn_that_ended_just_before_is_counted_no_more(fragile: House, way: str) -> None:
    """Its end may have reached nobody; three may run at once."""
    victim: Gateway | Sidecar = fragile.sidecar if "sidecar" in way else fragile.gateway
    async with fragile.client("alice") as one, fragile.client("alice") as two:
        assert await one.chat("main", "hello") == "hello"
        assert await two.chat("program", "hello") == "hello"
        await (victim.kill() if "killed" in way else victim.stop())
    await victim.start()
    await fragile.sidecar.wait_ready()
    async with fragile.client("alice") as alice:
        keys = [f"session-{uuid.uuid4().hex}" for _ in range(3)]
        async with asyncio.timeout(
            2 * SETTLE_MS / 1000
        ):  # what was counted just now may live, though no gateway lists it yet
            for key in keys:
                while not await may_start_one(alice, key):
                    await asyncio.sleep(0.5)
        for key in keys:
            await alice.request("chat.abort", {"sessionKey": key})
