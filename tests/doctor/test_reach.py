"""This host's own addresses, and whether a gateway answers at one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from sidecar.doctor.reach import _answers, is_here, own_addresses, reach

TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 192.0.2.0
        /24 link UNICAST
     |-- 192.0.2.7
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
Local:
     |-- 192.0.2.7
        /32 host LOCAL
"""
INET6 = """00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 04 40 00 82     eth0
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
"""
OWN = ["192.0.2.7", "fd00::2", "fe80::fc:ff:fe00:1%eth0"]


def test_own_addresses_are_those_of_the_kernel_without_loopback(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(TRIE)
    (tmp_path / "if_inet6").write_text(INET6)
    assert own_addresses(tmp_path) == OWN
    assert own_addresses(tmp_path / "nowhere") == []
    assert "127.0.0.1" not in own_addresses()


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("ws://127.0.0.1:1", True),
        ("ws://localhost:1/", True),
        ("ws://[::1]:1", True),
        ("wss://192.0.2.7", True),
        ("ws://[fd00::2]:1", True),
        ("ws://192.0.2.8:1", False),
        ("ws://name.invalid:1", False),
    ],
)
async def test_a_gateway_is_here_if_all_its_addresses_are(url: str, here: bool) -> None:
    assert await is_here(url, OWN) is here


@contextlib.asynccontextmanager
async def listening(answer: bytes | None) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        if answer is not None:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_who_greets_as_a_gateway_answers() -> None:
    async def gateway(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await socket.send_str('{"type":"event","event":"connect.challenge","payload":{"nonce":"n","ts":1}}')
        await socket.receive()
        return socket

    application = web.Application()
    application.router.add_get("/", gateway)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    failures: list[Exception] = []
    assert await _answers("ws", "127.0.0.1", port, failures.append)
    found = await reach(f"ws://elsewhere.invalid:{port}", ["127.0.0.1"], failures.append)
    assert found.answered == found.tried == ("127.0.0.1",)
    assert (await reach(f"ws://127.0.0.1:{port}", ["127.0.0.1"], failures.append)).tried == ()
    await runner.cleanup()
    assert not await _answers("ws", "127.0.0.1", port, failures.append)
    assert failures == []


@pytest.mark.parametrize(
    ("answer", "answers"), [(b"HTTP/1.1 403 Forbidden\r\n\r\n", True), (b"SSH-2.0-x\r\n\r\n", False), (None, False)]
)
async def test_who_refuses_the_upgrade_is_there_and_who_says_nothing_is_not(
    answer: bytes | None, answers: bool
) -> None:
    async with listening(answer) as port:
        assert await _answers("ws", "127.0.0.1", port, lambda _: None) is answers


async def test_behind_tls_whoever_takes_the_connection_counts() -> None:
    async with listening(None) as port:
        assert await _answers("wss", "127.0.0.1", port, lambda _: None)
    assert not await _answers("wss", "127.0.0.1", port, lambda _: None)
