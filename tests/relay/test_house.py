"""Who may come in, as what, and how many: refusals before and behind the upgrade, and how a full house empties."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.relay.conftest import IN_ALL, OTHER_ORIGIN, PER_USER, STRANGERS, USERS, Narrow
from tests.stack.proc import eventually, holdings
from tests.stack.raw import RawClient, RequestError
from tests.stack.sidecar import Sidecar, SidecarOptions

ELSEWHERE = "127.0.0.2"
"""Not a trusted proxy."""


async def upgrade(narrow: Narrow, *, source: str = "127.0.0.1", **headers: str) -> tuple[int, str]:
    """Try to open a socket and close it again: HTTP status, and the `detail_code` where it was refused."""
    async with stranger(narrow, source=source, **headers) as outcome:
        return outcome


@contextlib.asynccontextmanager
async def stranger(narrow: Narrow, *, source: str = "127.0.0.1", **headers: str) -> AsyncIterator[tuple[int, str]]:
    """A socket that never shows a token, as long as the context lasts. An empty header is left out."""
    fields = {
        "host": "x",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    reader, writer = await asyncio.open_connection("127.0.0.1", narrow.sidecar.port, local_addr=(source, 0))
    try:
        lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value]
        writer.write(("GET / HTTP/1.1\r\n" + "".join(lines) + "\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split(" ", 2)[1])
        if status == 101:
            yield status, ""
        else:
            size = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
            refused: dict[str, Any] = json.loads(await reader.readexactly(size))
            yield status, refused["error"]["details"]["code"]
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture(autouse=True)
async def _nobody_is_left(narrow: Narrow) -> AsyncIterator[None]:
    """Whatever a test does, the sidecar holds as much afterwards as before."""
    before = holdings(narrow.sidecar.pid)
    yield
    await eventually(lambda: holdings(narrow.sidecar.pid).sockets <= before.sockets)
    assert holdings(narrow.sidecar.pid).children == before.children


async def test_pages_of_other_origins_are_refused(narrow: Narrow) -> None:
    for origin, expected in (
        (narrow.sidecar.http_url, (101, "")),
        (OTHER_ORIGIN, (101, "")),
        (OTHER_ORIGIN.upper().replace("HTTPS", "https"), (101, "")),
        ("https://evil.example.com", (403, "ORIGIN_NOT_ALLOWED")),
        (OTHER_ORIGIN + ".evil.example.com", (403, "ORIGIN_NOT_ALLOWED")),
        ("http://chat.example.com", (403, "ORIGIN_NOT_ALLOWED")),
        ("null", (403, "ORIGIN_NOT_ALLOWED")),
    ):
        assert await upgrade(narrow, origin=origin) == expected, origin


async def test_what_is_no_upgrade_is_told_what_to_do(narrow: Narrow) -> None:
    assert await upgrade(narrow, upgrade="") == (426, "UPGRADE_REQUIRED")
    assert await upgrade(narrow, upgrade="h2c") == (426, "UPGRADE_REQUIRED")
    assert await upgrade(narrow, sec_websocket_version="8") == (426, "UPGRADE_REQUIRED")
    assert await upgrade(narrow, sec_websocket_key="") == (426, "UPGRADE_REQUIRED")


async def test_strangers_of_one_address_are_few(narrow: Narrow) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(STRANGERS):
            status, _ = await stack.enter_async_context(stranger(narrow, source=ELSEWHERE))
            assert status == 101
        assert await upgrade(narrow, source=ELSEWHERE) == (429, "TOO_MANY_CONNECTIONS")
        assert await upgrade(narrow, source=ELSEWHERE, x_forwarded_for="203.0.113.9") == (429, "TOO_MANY_CONNECTIONS")
        assert await upgrade(narrow, source="127.0.0.3") == (101, "")
    for _ in range(200):
        if await upgrade(narrow, source=ELSEWHERE) == (101, ""):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the places of those who left are not free again")


async def test_a_trusted_proxy_says_whose_address_it_is(narrow: Narrow) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(STRANGERS):
            status, _ = await stack.enter_async_context(stranger(narrow, x_forwarded_for="203.0.113.1"))
            assert status == 101
        full = (429, "TOO_MANY_CONNECTIONS")
        assert await upgrade(narrow, x_forwarded_for="203.0.113.1") == full
        assert await upgrade(narrow, x_forwarded_for="198.51.100.7, 203.0.113.1") == full, "only the last hop is known"
        assert await upgrade(narrow, x_forwarded_for="203.0.113.1, 127.0.0.1") == full, "a second proxy of ours"
        assert await upgrade(narrow, x_forwarded_for="203.0.113.1, 203.0.113.2") == (101, "")
        assert await upgrade(narrow, x_forwarded_for="203.0.113.2") == (101, "")
        assert await upgrade(narrow) == (101, "")


async def test_whoever_signed_in_is_no_stranger(narrow: Narrow) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(STRANGERS + 1):
            await stack.enter_async_context(narrow.client(USERS[number // PER_USER]))
        assert await upgrade(narrow) == (101, "")


async def test_one_user_has_so_many_sockets(narrow: Narrow) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(PER_USER):
            await stack.enter_async_context(narrow.client("ann"))
        with pytest.raises(RequestError) as refused:
            await stack.enter_async_context(narrow.client("ann"))
        assert refused.value.detail_code == "TOO_MANY_CONNECTIONS"
        assert refused.value.error["retryable"] is True
        await stack.enter_async_context(narrow.client("ben"))
    async with narrow.client("ann") as (client, _):
        assert client.hello["type"] == "hello-ok"


async def test_one_user_has_so_many_sockets_also_when_all_come_at_once(narrow: Narrow) -> None:
    token = await narrow.token("crowd")
    outcomes: list[str] = []
    everybody_asked = asyncio.Barrier(PER_USER + 1)

    async def come() -> None:
        try:
            async with RawClient.connect(narrow.sidecar.url, {"token": token}):
                outcomes.append("in")
                await everybody_asked.wait()
        except RequestError as refused:
            outcomes.append(refused.detail_code)
            await everybody_asked.wait()

    async with asyncio.timeout(30):
        await asyncio.gather(*(come() for _ in range(PER_USER + 1)))
    assert sorted(outcomes) == ["TOO_MANY_CONNECTIONS"] + ["in"] * PER_USER


async def test_the_house_has_so_many_sockets(narrow: Narrow) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(IN_ALL):
            await stack.enter_async_context(narrow.client(USERS[number // PER_USER]))
        assert await upgrade(narrow) == (429, "TOO_MANY_CONNECTIONS")
    for _ in range(200):
        if await upgrade(narrow) == (101, ""):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the places of those who left are not free again")


async def test_a_token_may_come_as_a_subprotocol_and_is_not_said_again(narrow: Narrow) -> None:
    token = await narrow.token("cleo")
    offered = ("openclaw", f"bearer.{token}")
    async with RawClient.open(narrow.sidecar.url, protocols=offered) as client:
        hello = await client.greet(connect_without_token())
        assert hello["snapshot"]["sessionDefaults"]["mainSessionKey"] == "agent:u-cleo:main"
        assert client._socket.protocol == "openclaw"
        assert token not in "\n".join(client.received)
    assert token not in narrow.sidecar.log


async def test_a_stranger_costs_one_socket(narrow: Narrow) -> None:
    before = narrow.stub.upgrades
    async with RawClient.open(narrow.sidecar.url) as silent, RawClient.open(narrow.sidecar.url) as liar:
        await silent.wait_for(lambda frame: frame.get("event") == "connect.challenge")
        with pytest.raises(RequestError) as refused:
            await liar.greet({**connect_without_token(), "auth": {"token": "e30.e30.e30"}})
        assert refused.value.detail_code == "AUTH_TOKEN_MISMATCH"
        assert await liar.wait_closed() == 1008
    assert narrow.stub.upgrades == before


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x" * (64 * 1024 + 1), 1009),
        (json.dumps({"type": "req", "id": "1", "method": "chat.history", "params": {}}), 1008),
        ("not JSON", 1008),
    ],
    ids=["too large", "not connect", "no frame"],
)
async def test_the_first_frame_is_a_small_connect(narrow: Narrow, text: str, code: int) -> None:
    async with RawClient.open(narrow.sidecar.url) as client:
        await client.send_text(text)
        assert await client.wait_closed() == code


async def test_a_flood_before_connect_is_closed(narrow: Narrow) -> None:
    async with RawClient.open(narrow.sidecar.url) as client:
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                await client.send_text(json.dumps({"type": "req", "id": "1", "method": "connect", "params": {}}))
        assert await client.wait_closed() in {1006, 1008}


async def test_draining_lets_nobody_in_and_closes_everybody(narrow: Narrow, tmp_path: Any) -> None:
    options = SidecarOptions(
        tmp_path,
        narrow.stub.gateway(tmp_path),
        narrow.identity_provider.issuer,
        settings={"server": {"drain_seconds": 3}},
    )
    async with Sidecar(options) as sidecar, contextlib.AsyncExitStack() as stack:
        token = await narrow.token("dan")
        clients = [await stack.enter_async_context(RawClient.connect(sidecar.url, {"token": token})) for _ in range(12)]
        silent = await stack.enter_async_context(RawClient.open(sidecar.url))
        upstreams = narrow.stub.of("u-dan")
        assert len(upstreams) == len(clients)
        stopping = asyncio.create_task(sidecar.stop())
        assert await clients[0].wait_closed() == 1012
        refused = []
        with contextlib.suppress(aiohttp.ClientError):
            async with RawClient.open(sidecar.url):
                refused.append("not refused")
        assert refused == []
        assert [await client.wait_closed() for client in clients] == [1012] * len(clients)
        await silent.wait_closed()
        await stopping
        assert sidecar._process is not None
        assert sidecar._process.returncode == 0
        for upstream in upstreams:
            await upstream.closed.wait()


def connect_without_token() -> dict[str, Any]:
    return {
        "minProtocol": 3,
        "maxProtocol": 4,
        "client": {"id": "gateway-client", "version": "1.0.0", "platform": "linux", "mode": "backend"},
        "role": "operator",
        "scopes": ["operator.read", "operator.write"],
        "caps": [],
    }
