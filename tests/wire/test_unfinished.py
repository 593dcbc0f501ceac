"""A message that is begun has to end in time: what came of it is kept in memory."""

from __future__ import annotations

import pytest

from sidecar.protocol.websocket import Opcode, close_payload, encode
from sidecar.wire import wire
from tests.wire.loops import on_each_loop
from tests.wire.peers import RawPeer, serving

MASK = b"mask"
WHOLE = encode(Opcode.TEXT, b"x" * 100, MASK)


@on_each_loop
async def test_a_message_that_does_not_end_ends_the_connection() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "MESSAGE_SECONDS", 0.2)
        async with serving() as (url, queue), RawPeer.connect(url) as peer:
            await queue.get()
            peer.writer.write(WHOLE[:50])
            assert await peer.frame() == (Opcode.CLOSE, close_payload(1008, "a message took too long"))


@on_each_loop
async def test_one_that_ends_does_not() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await queue.get()
        peer.writer.write(WHOLE[:50])
        await peer.writer.drain()
        peer.writer.write(WHOLE[50:])
        peer.writer.write(encode(Opcode.PING, b"there?", MASK))
        assert await peer.frame() == (Opcode.PONG, b"there?")
        assert served.wire._unfinished is None
        assert served.wire.open
