"""Take an upgraded connection out of aiohttp's hands.

aiohttp parses the request, we drive the socket: its own WebSocket writes once per frame and fixes the message size before the
handshake. What is used of it is not public, so aiohttp is pinned to a minor release, and tests/relay/test_takeover.py holds it
to what is said here.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from sidecar.errors import SidecarError


def take_over(request: web.Request) -> tuple[asyncio.Transport, bytes]:
    """The transport, and the bytes that came behind the request. aiohttp forgets the connection, as if the peer had left.

    The handler must return any response afterwards; it is not sent. Raises SidecarError where the peer has left already.
    """
    protocol, transport = request.protocol, request.transport
    if transport is None or transport.is_closing():
        raise SidecarError("the client left during the upgrade")
    tail = protocol._message_tail  # noqa: SLF001 - see the module's docstring
    protocol._message_tail = b""  # noqa: SLF001
    protocol.transport = None
    protocol.connection_lost(None)
    transport.resume_reading()
    return transport, tail
