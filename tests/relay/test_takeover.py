"""What `take_over` relies on in aiohttp, held against the installed release. Red here means: look before raising the pin."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from sidecar.errors import SidecarError
from sidecar.relay.takeover import take_over
from tests.stack.proc import eventually

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GET = b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"
KEEP_ALIVE_S = 1.0


class Shout(asyncio.Protocol):
    """Answers everything in capitals."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Server:
    """An aiohttp application that gives its upgraded connections away."""

    def __init__(self) -> None:
        self.taken: list[Shout] = []
        self.refused: list[SidecarError] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.port = 0
        app = web.Application()
        app.router.add_get("/", self._upgrade)
        app.router.add_get("/plain", self._plain)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=30, keepalive_timeout=KEEP_ALIVE_S)

    @property
    def known(self) -> int:
        """Connections that aiohttp would close."""
        assert self.runner.server is not None
        return len(self.runner.server.connections)

    async def _plain(self, _: web.Request) -> web.Response:
        return web.Response(text="plain")

    async def _upgrade(self, request: web.Request) -> web.Response:
        self.entered.set()
        await self.gate.wait()
        try:
            transport, tail = take_over(request)
        except SidecarError as error:
            self.refused.append(error)
            return web.Response(status=500)
        protocol = Shout(transport)
        transport.set_protocol(protocol)
        transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        self.taken.append(protocol)
        if tail:
            protocol.data_received(tail)
        return web.Response(text="never sent")


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Server]:
    server = Server()
    await server.runner.setup()
    await web.TCPSite(server.runner, "127.0.0.1", 0).start()
    server.port = server.runner.addresses[0][1]
    try:
        yield server
    finally:
        await server.runner.cleanup()
        for protocol in server.taken:
            protocol.transport.abort()
            await protocol.lost.wait()


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)


async def shouted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: bytes) -> None:
    writer.write(word)
    assert await asyncio.wait_for(reader.readexactly(len(word)), 10) == word.upper()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> object:
    """aiohttp must not log anything that it would show an operator."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_bytes_behind_the_upgrade_arrive() -> None:
    async with running() as server, connected(server) as (reader, writer):
        writer.write(UPGRADE + b"behind")
        assert (await head(reader)).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(6) == b"BEHIND"
        await shouted(reader, writer, b"more")


async def test_more_bytes_behind_the_upgrade_than_aiohttp_keeps_arrive_too() -> None:
    many = b"x" * 1_000_000
    async with running() as server, connected(server) as (reader, writer):
        server.gate.clear()
        writer.write(UPGRADE)
        await server.entered.wait()
        writer.write(many)
        await asyncio.sleep(0.1)  # aiohttp stops reading after 64 KiB
        server.gate.set()
        await head(reader)
        assert await asyncio.wait_for(reader.readexactly(len(many)), 10) == many.upper()


async def test_the_answer_of_the_handler_is_not_sent() -> None:
    async with running() as server, connected(server) as (reader, writer):
        writer.write(UPGRADE)
        assert await head(reader) == b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
        await shouted(reader, writer, b"first bytes after the head")


async def test_aiohttp_forgets_the_connection() -> None:
    async with running() as server, connected(server) as (reader, writer):
        writer.write(UPGRADE)
        await head(reader)
        await shouted(reader, writer, b"a turn of the loop")
        assert server.known == 0


async def test_an_upgrade_may_follow_other_requests() -> None:
    async with running() as server, connected(server) as (reader, writer):
        writer.write(GET)
        assert b"200 OK" in await head(reader)
        await reader.readexactly(5)
        assert server.known == 1
        writer.write(GET + UPGRADE + b"tail")
        assert b"200 OK" in await head(reader)
        await reader.readexactly(5)
        assert (await head(reader)).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(4) == b"TAIL"


async def test_timers_for_idle_connections_do_not_close_it() -> None:
    async with running() as server, connected(server) as (reader, writer), connected(server) as (idle, idle_writer):
        for lines, to in ((reader, writer), (idle, idle_writer)):
            to.write(GET)
            await head(lines)
            await lines.readexactly(5)
        writer.write(UPGRADE)
        await head(reader)
        assert await asyncio.wait_for(idle.read(), 10) == b"", "the connection that stayed with aiohttp ends"
        await asyncio.sleep(2 * KEEP_ALIVE_S)
        await shouted(reader, writer, b"still here")


async def test_the_end_of_aiohttp_neither_closes_it_nor_waits_for_it() -> None:
    async with running() as server, connected(server) as (reader, writer):
        writer.write(UPGRADE)
        await head(reader)
        await asyncio.wait_for(server.runner.cleanup(), 10)
        await shouted(reader, writer, b"outlived")


async def test_no_task_of_aiohttp_is_left() -> None:
    before = asyncio.all_tasks()
    async with running() as server, connected(server) as (reader, writer):
        writer.write(UPGRADE)
        await head(reader)
        await shouted(reader, writer, b"settle")
        assert asyncio.all_tasks() == before


async def test_flow_control_is_ours_afterwards() -> None:
    async with running() as server, connected(server) as (reader, writer):
        writer.write(UPGRADE)
        await head(reader)
        transport = server.taken[0].transport
        assert transport.is_reading()
        transport.pause_reading()
        writer.write(b"waits")
        await asyncio.sleep(0.05)
        transport.resume_reading()
        assert await asyncio.wait_for(reader.readexactly(5), 10) == b"WAITS"


async def test_a_peer_that_left_before_is_told_apart() -> None:
    async with running() as server:
        server.gate.clear()
        async with connected(server) as (_, writer):
            writer.write(UPGRADE)
            await server.entered.wait()
        await asyncio.sleep(0.1)
        server.gate.set()
        await eventually(lambda: bool(server.refused) and server.known == 0)
        assert server.taken == []
        assert [error.message for error in server.refused] == ["the client left during the upgrade"]


def test_the_release_is_one_that_this_file_was_run_against() -> None:
    wanted = next(line for line in importlib.metadata.requires("openclaw-sidecar") or [] if line.startswith("aiohttp"))
    assert "<" in wanted, f"aiohttp must be pinned below its next minor release, not {wanted}"
    assert importlib.metadata.version("aiohttp").startswith("3.14.")
