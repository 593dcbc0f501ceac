"""The other end of a connection, over loopback sockets: a `Wire` that serves, and a peer made of plain bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import cast

from sidecar.protocol.websocket import FrameReader, Message, Opcode, accept_key, encode
from sidecar.wire.wire import Wire

MASK = b"\x01\x02\x03\x04"
MAX_SIZE = 1024 * 1024


class Recorder:
    """A receiver that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.writable: list[bool] = []
        self.closed: list[int] = []
        self._news = asyncio.Event()

    def on_messages(self, messages: Iterator[Message]) -> None:
        self._news.set()
        for message in messages:
            self.texts.append(message.payload)

    def on_writable(self, writable: bool) -> None:
        self.writable.append(writable)
        self._news.set()

    def on_closed(self, code: int) -> None:
        self.closed.append(code)
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for it; whoever calls is bounded."""
        while not holds():
            self._news.clear()
            await self._news.wait()


@dataclass(slots=True)
class Serving:
    """One accepted connection, upgraded."""

    wire: Wire
    receiver: Recorder
    transport: asyncio.Transport
    head: str


class _Upgrading(asyncio.Protocol):
    """Reads a request's head, answers 101 (with `behind` in the same write), and hands the transport to a wire."""

    def __init__(self, accepted: asyncio.Queue[Serving], behind: bytes, max_size: int) -> None:
        self._accepted = accepted
        self._behind = behind
        self._max_size = max_size
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end or self._transport is None:
            return
        transport, receiver = self._transport, Recorder()
        transport.write(switching(head.decode()) + self._behind)
        wire = Wire(client=False, max_size=self._max_size, receiver=receiver, failed=_failed)
        transport.set_protocol(wire)
        wire.connection_made(transport)
        self._accepted.put_nowait(Serving(wire, receiver, transport, head.decode()))
        if rest:
            wire.data_received(rest)


def _failed(error: Exception) -> None:
    raise AssertionError("the wire found a defect in its receiver") from error


def switching(request_head: str) -> bytes:
    fields = dict(line.split(": ", 1) for line in request_head.split("\r\n")[1:])
    key = {name.lower(): value for name, value in fields.items()}["sec-websocket-key"]
    lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
    return ("\r\n".join((*lines, f"Sec-WebSocket-Accept: {accept_key(key)}")) + "\r\n\r\n").encode()


@contextlib.asynccontextmanager
async def serving(
    *, behind: bytes = b"", max_size: int = MAX_SIZE
) -> AsyncIterator[tuple[str, asyncio.Queue[Serving]]]:
    """`(ws:// URL, accepted connections)`. What is still open is aborted at the end, and seen to close."""
    accepted: asyncio.Queue[Serving] = asyncio.Queue()
    kept: list[Serving] = []

    class Kept(asyncio.Queue[Serving]):
        def put_nowait(self, item: Serving) -> None:
            kept.append(item)
            accepted.put_nowait(item)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Upgrading(Kept(), behind, max_size), "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", accepted
    finally:
        server.close()
        for one in kept:
            one.wire.abort()
            await one.wire.wait_closed()
        await server.wait_closed()


class RawPeer:
    """A WebSocket client made of bytes: it does what it is told and nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = FrameReader(masked=False, max_size=64 * 1024 * 1024)
        self._got: list[tuple[int, bytes]] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url: str, path: str = "/", **headers: str) -> AsyncIterator[RawPeer]:
        """Past the upgrade. Raises ConnectionRefusedError, AssertionError where it is refused."""
        host, port = url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            fields = {
                "Host": f"{host}:{port}",
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
            } | {name.replace("_", "-"): value for name, value in headers.items()}
            request = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            writer.write(request.encode() + b"\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def send(self, opcode: int, payload: bytes) -> None:
        self.writer.write(encode(opcode, payload, MASK))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: `(opcode, payload)`. Raises EOFError once the other end is gone."""
        while not self._got:
            data = await self.reader.read(65536)
            if not data:
                raise EOFError
            self._got += [(message.opcode, message.payload) for message in self._frames.feed(data)]
        return self._got.pop(0)

    async def gone(self) -> bool:
        """True: the other end closes or resets; frames before that are left unread."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            return True
        return True


def text(payload: bytes) -> bytes:
    """A server's text frame."""
    return encode(Opcode.TEXT, payload)
