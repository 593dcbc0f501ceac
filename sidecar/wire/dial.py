"""The client's half of the opening handshake: TCP or TLS, one `GET` with `Upgrade`, and the bytes that came behind the answer."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from sidecar.errors import GatewayAway
from sidecar.protocol.websocket import accept_key, new_key
from sidecar.wire.wire import GATEWAYS_MESSAGES, Inbox, Wire

MAX_HEAD = 16 * 1024


@dataclass(frozen=True, slots=True)
class Dialled:
    """An open WebSocket of ours and where its first messages wait."""

    wire: Wire
    inbox: Inbox


async def dial(
    url: str, headers: Mapping[str, str], *, max_size: int, timeout: float, failed: Callable[[Exception], None]
) -> Dialled:
    """Open a WebSocket to `url` (`ws://` or `wss://`). Raises GatewayAway, whatever the reason."""
    parts = urlsplit(url)
    tls = _tls() if parts.scheme == "wss" else None
    host, port = parts.hostname or "", parts.port or (443 if tls else 80)
    key = new_key(os.urandom)
    request = _request(parts.path or "/", parts.netloc.rpartition("@")[2], key, headers)
    loop = asyncio.get_running_loop()
    head: asyncio.Future[bytes] = loop.create_future()
    inbox = Inbox(GATEWAYS_MESSAGES)
    transport: asyncio.Transport | None = None
    try:
        async with asyncio.timeout(timeout):
            transport, opening = await loop.create_connection(lambda: _Opening(head), host, port, ssl=tls)
            transport.write(request)
            _check_answer(await head, key)
    except (OSError, TimeoutError, GatewayAway) as error:
        if transport is not None:
            transport.abort()
        raise (
            error if isinstance(error, GatewayAway) else GatewayAway(f"the gateway does not answer: {_why(error)}")
        ) from None
    except BaseException:
        if transport is not None:
            transport.abort()
        raise
    wire = Wire(client=True, max_size=max_size, receiver=inbox, failed=failed)
    opening.hand_over(wire)
    return Dialled(wire, inbox)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reading the trusted certificates takes 25 ms: once is enough."""
    return ssl.create_default_context()


def _why(error: Exception) -> str:
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__


def _request(path: str, netloc: str, key: str, headers: Mapping[str, str]) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    for name, value in headers.items():
        if not (name + value).isascii() or not value.isprintable():
            raise GatewayAway(f"the header {name} cannot carry its value")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _check_answer(head: bytes, key: str) -> None:
    status, *lines = head.decode("latin-1").split("\r\n")
    words = status.split(" ", 2)
    code = words[1] if len(words) > 1 else "?"
    if code != "101":
        raise GatewayAway(f"the gateway refused the upgrade with HTTP {code}", details={"status": code})
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if fields.get("sec-websocket-accept") != accept_key(key):
        raise GatewayAway("what answers at the gateway's address is no WebSocket server")


class _Opening(asyncio.Protocol):
    """Reads the answer's head, then hands the transport, and the bytes behind the head, to the wire."""

    def __init__(self, head: asyncio.Future[bytes]) -> None:
        self._head = head
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if self._head.done():
            return
        if end >= 0:
            self._head.set_result(self._received[:end])
            self._received = self._received[end + 4 :]
        elif len(self._received) > MAX_HEAD:
            self._head.set_exception(GatewayAway("the gateway's answer to the upgrade has no end"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason is the same for the caller
        self._transport = None
        if not self._head.done():
            self._head.set_exception(GatewayAway("the gateway closed the connection during the upgrade"))

    def hand_over(self, wire: Wire) -> None:
        if self._transport is None:
            raise GatewayAway("the gateway closed the connection during the upgrade")
        self._transport.set_protocol(wire)
        wire.connection_made(self._transport)
        if self._received:
            wire.data_received(self._received)
