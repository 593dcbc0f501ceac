"""The reference: a relay of aiohttp's WebSockets, as well as one can write it, that looks at nothing.

aiohttp's reader cuts the frames (bytes, not text: no decoding), each is framed again, and what comes in one tick of the loop goes
out by one write. With `orjson` each frame is parsed and written again besides, as a relay does that has to look inside.

`python -m loadtest.peers PORT UPSTREAM coalesced|orjson`
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Callable

import aiohttp
import orjson
import uvloop
from aiohttp import web

from tests.stack.gateway import USER_HEADER

MAX_FRAME = 25 * 1024 * 1024

Look = Callable[[bytes], bytes]
LOOKS: dict[str, Look] = {
    "coalesced": lambda data: data,
    "orjson": lambda data: orjson.dumps(orjson.loads(data)),
}


class Relay:
    """`accept` is an aiohttp handler: one connection to `upstream` for each that comes."""

    def __init__(self, upstream: str, look: Look) -> None:
        self._upstream = upstream
        self._look = look
        self._session: aiohttp.ClientSession | None = None

    async def accept(self, request: web.Request) -> web.WebSocketResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        headers = {USER_HEADER: request.headers.get(USER_HEADER, "")}
        client = web.WebSocketResponse(compress=False, max_msg_size=MAX_FRAME, decode_text=False)
        await client.prepare(request)
        async with self._session.ws_connect(
            self._upstream, headers=headers, max_msg_size=MAX_FRAME, decode_text=False
        ) as gateway:
            up = asyncio.create_task(_up(client, gateway))
            try:
                await self._down(gateway, request)
            finally:
                up.cancel()
                await asyncio.gather(up, return_exceptions=True)
        return client

    async def _down(self, gateway: aiohttp.ClientWebSocketResponse[bool], request: web.Request) -> None:
        pending: list[bytes] = []
        transport, protocol, loop = request.transport, request.protocol, asyncio.get_running_loop()

        def flush() -> None:
            if transport is not None and not transport.is_closing():
                transport.write(b"".join(pending))
            pending.clear()

        async for message in gateway:
            if not pending:
                loop.call_soon(flush)
            pending.append(_framed(self._look(message.data)))
            if protocol.writing_paused:
                await protocol._drain_helper()


_SHORT, _MEDIUM, _LONG = struct.Struct("!BB").pack, struct.Struct("!BBH").pack, struct.Struct("!BBQ").pack


def _framed(data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        return _SHORT(0x81, size) + data
    return (_MEDIUM(0x81, 126, size) if size < 65536 else _LONG(0x81, 127, size)) + data


async def _up(client: web.WebSocketResponse, gateway: aiohttp.ClientWebSocketResponse[bool]) -> None:
    """The few that a client sends."""
    try:
        async for message in client:
            await gateway.send_frame(message.data, aiohttp.WSMsgType.TEXT)
    finally:
        await gateway.close()


async def serve(port: int, upstream: str, look: Look) -> None:
    application = web.Application()
    application.add_routes([web.get("/", Relay(upstream, look).accept)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loops:
        loops.run(serve(int(sys.argv[1]), sys.argv[2], LOOKS[sys.argv[3]]))
