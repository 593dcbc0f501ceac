"""Between the sidecar and its gateway: counts the connections, and keeps what was said upstream.

A plain TCP pipe, so neither side can tell. What goes upstream is kept as text: the head of the upgrade as it came, then
the WebSocket messages with their masks taken off.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

from sidecar.protocol.websocket import FrameReader

CHUNK = 64 * 1024
MAX_MESSAGE = 32 * 1024 * 1024


class Tap:
    """`async with Tap(port) as tap:`; `tap.url` is the gateway's, one pipe away."""

    def __init__(self, gateway_port: int) -> None:
        self.accepted = 0
        """Connections ever made."""
        self.open = 0
        self.sent: list[str] = []
        """Everything that went upstream: heads and messages, in order."""
        self._gateway_port = gateway_port
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Tap:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        self.accepted += 1
        self.open += 1
        try:
            with contextlib.suppress(OSError):
                await self._pipe(reader, writer)
        finally:
            self.open -= 1
            self._pipes.discard(task)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._gateway_port)
        legs = [
            asyncio.create_task(self._up(reader, upstream_writer)),
            asyncio.create_task(_copy(upstream_reader, writer)),
        ]
        try:
            await asyncio.wait(legs, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for leg in legs:
                leg.cancel()
            await asyncio.gather(*legs, return_exceptions=True)
            for end in (writer, upstream_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.sent.append(head.decode())
        writer.write(head)
        frames = FrameReader(masked=True, max_size=MAX_MESSAGE)
        while data := await reader.read(CHUNK):
            self.sent += [message.payload.decode(errors="replace") for message in frames.feed(data)]
            writer.write(data)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
