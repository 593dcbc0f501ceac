"""One leg: a WebSocket whose opening handshake is over, in either direction."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol, cast

from sidecar.protocol.websocket import (
    CloseCode,
    FrameReader,
    Message,
    Opcode,
    WebSocketError,
    close_code,
    close_payload,
    encode,
)

HANDSHAKE_HIGH_WATER = 64 * 1024
WRITE_HIGH_WATER = 1024 * 1024
"""Bytes of unsent data at which the other leg stops reading; less until it is known who is there."""

MESSAGE_SECONDS = 120.0
"""How long a peer may take for one message: what it sent of it is kept in memory."""

CLOSING_SECONDS = 2.0
_TEXT = int(Opcode.TEXT)
DEAD_PEER_MS = 60_000
"""Unacknowledged data older than this ends the connection: a peer that vanished without a FIN."""


class Receiver(Protocol):
    """What a wire tells the one who uses it. Nothing here may block or raise."""

    def on_messages(self, messages: Iterator[Message]) -> None:
        """The text messages of one read, in order. The iterator may end early: the wire then closes itself."""

    def on_writable(self, writable: bool) -> None:
        """False: too much is unsent, stop producing; True: go on."""

    def on_closed(self, code: int) -> None:
        """The connection is gone; `code` as the peer said it, 1006 where it said none. Comes exactly once."""


class Wire(asyncio.Protocol):
    """`client`: whether we are the client of this connection, and so mask what we send."""

    def __init__(self, *, client: bool, max_size: int, receiver: Receiver, failed: Callable[[Exception], None]) -> None:
        self.receiver = receiver
        self._client = client
        self._reader = FrameReader(masked=not client, max_size=max_size)
        self._failed = failed
        self._transport: asyncio.Transport | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._unfinished: asyncio.TimerHandle | None = None
        self._code = 1006
        self.writable = True
        """False while too much is unsent; the receiver hears of every change."""

        self._done = asyncio.get_running_loop().create_future()

    # --- towards the receiver -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HANDSHAKE_HIGH_WATER)
        _detect_dead_peer(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.receiver.on_messages(self._texts(data))
        except WebSocketError as error:
            self.close(error.websocket_code, error.message)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not leave a half-judged stream open
            self._failed(error)
            self.close(CloseCode.INTERNAL_ERROR, "internal error")
        if self._reader.unfinished or self._unfinished is not None:
            self._watch_unfinished()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.writable = False
        self.receiver.on_writable(False)

    def resume_writing(self) -> None:
        self.writable = True
        self.receiver.on_writable(True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the code says what there is to say
        for timer in (self._closing, self._unfinished):
            if timer is not None:
                timer.cancel()
        self._transport = None
        self.receiver.on_closed(self._code)
        if not self._done.done():
            self._done.set_result(None)

    def _texts(self, data: bytes) -> Iterator[Message]:
        for message in self._reader.feed(data):
            if message.opcode == _TEXT:
                if self._closing is None:
                    yield message
            elif message.opcode == Opcode.PING:
                if self.writable:  # a flood of pings from a peer that reads no answers must not fill our memory
                    self.write(self._encoded(Opcode.PONG, message.payload))
            elif message.opcode == Opcode.CLOSE:
                self._peer_closes(message.payload)
                return
            elif message.opcode == Opcode.BINARY:
                raise WebSocketError(CloseCode.UNSUPPORTED_DATA, "frames are text")

    def _peer_closes(self, payload: bytes) -> None:
        self._code = close_code(payload)
        if self._closing is None:
            self.write(self._encoded(Opcode.CLOSE, payload[:2]))
            self._closing = asyncio.get_running_loop().call_later(CLOSING_SECONDS, self.abort)
        if self._transport is not None:
            self._transport.close()

    # --- from whoever uses it -----------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        return self._transport is not None and self._closing is None and not self._transport.is_closing()

    @property
    def max_size(self) -> int:
        """Bytes of the largest message taken; may be changed at any time."""
        return self._reader.max_size

    @max_size.setter
    def max_size(self, size: int) -> None:
        self._reader.max_size = size

    def greeted(self) -> None:
        """Who is there is known: more may wait for them."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def write(self, data: bytes) -> None:
        """Send frames that are encoded already. Silently nothing on a connection that is gone or closing."""
        if self._closing is None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def send(self, payload: bytes) -> None:
        """Send one text message."""
        self.write(self._encoded(Opcode.TEXT, payload))

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self, code: int, reason: str = "") -> None:
        """Begin to close; the peer has `CLOSING_SECONDS` to answer. Repeated calls do nothing."""
        if self._closing is not None or self._transport is None:
            return
        self.write(self._encoded(Opcode.CLOSE, close_payload(code, reason)))
        self._closing = asyncio.get_running_loop().call_later(CLOSING_SECONDS, self.abort)
        self.resume()

    def abort(self) -> None:
        """End at once, unsent data lost."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._done)

    def _watch_unfinished(self) -> None:
        """A message that is begun has to end in time."""
        if self._unfinished is not None:
            if not self._reader.unfinished:
                self._unfinished.cancel()
                self._unfinished = None
            return
        self._unfinished = asyncio.get_running_loop().call_later(
            MESSAGE_SECONDS, self.close, CloseCode.POLICY_VIOLATION, "a message took too long"
        )

    def _encoded(self, opcode: int, payload: bytes) -> bytes:
        return encode(opcode, payload, os.urandom(4) if self._client else b"")


STRANGERS_MESSAGES = 16
GATEWAYS_MESSAGES = 100_000


class Inbox:
    """A receiver for a handshake: one message after the other, awaited.

    Keeps `limit` of them and closes a peer that sends more: a stranger has no reason to, a busy gateway has.
    """

    def __init__(self, limit: int = STRANGERS_MESSAGES) -> None:
        self._limit = limit
        self._messages: deque[Message] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.closed_with: int | None = None

    def on_messages(self, messages: Iterator[Message]) -> None:
        self._messages.extend(messages)
        if len(self._messages) > self._limit:
            raise WebSocketError(CloseCode.POLICY_VIOLATION, "too many frames before the handshake is over")
        self._wake()

    def on_writable(self, writable: bool) -> None:
        pass

    def on_closed(self, code: int) -> None:
        self.closed_with = code
        self._wake()

    def take_all(self) -> list[Message]:
        """What came and was not awaited; for the receiver that follows."""
        left = list(self._messages)
        self._messages.clear()
        return left

    async def next(self, timeout: float) -> bytes:
        """The next message's payload. Raises TimeoutError, or ConnectionResetError once the peer is gone."""
        async with asyncio.timeout(timeout):
            while not self._messages:
                if self.closed_with is not None:
                    raise ConnectionResetError(f"closed with {self.closed_with}")
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        return self._messages.popleft().payload

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _detect_dead_peer(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
