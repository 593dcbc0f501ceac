"""`Wire` over real sockets, against a peer made of bytes."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.protocol.websocket import Opcode, close_payload, encode
from sidecar.wire.wire import WRITE_HIGH_WATER
from tests.wire.loops import on_each_loop
from tests.wire.peers import MASK, RawPeer, Serving, serving

LARGEST = 25 * 1024 * 1024


async def accepted(queue: asyncio.Queue[Serving]) -> Serving:
    return await queue.get()


@on_each_loop
async def test_texts_go_both_ways_in_order() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        peer.writer.write(b"".join(encode(Opcode.TEXT, b"%d" % number, MASK) for number in range(500)))
        await served.receiver.until(lambda: len(served.receiver.texts) == 500)
        assert served.receiver.texts == [b"%d" % number for number in range(500)]
        served.wire.send("grüße".encode())
        assert await peer.frame() == (Opcode.TEXT, "grüße".encode())


@on_each_loop
async def test_a_ping_is_answered_with_its_own_words() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        peer.send(Opcode.PING, b"are you there")
        assert await peer.frame() == (Opcode.PONG, b"are you there")
        peer.send(Opcode.PONG, b"nobody asked")
        peer.send(Opcode.TEXT, b"behind")
        await served.receiver.until(lambda: bool(served.receiver.texts))
        assert served.receiver.texts == [b"behind"]


@on_each_loop
async def test_we_close_and_the_peer_answers() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        served.wire.close(1012, "drain")
        served.wire.close(1000, "a second time")
        served.wire.send(b"after the close frame nothing is sent")
        assert not served.wire.open
        assert await peer.frame() == (Opcode.CLOSE, close_payload(1012, "drain"))
        peer.send(Opcode.TEXT, b"too late")
        peer.send(Opcode.CLOSE, close_payload(1012, ""))
        with pytest.raises(EOFError):
            await peer.frame()
        await served.wire.wait_closed()
        assert served.receiver.closed == [1012]
        assert served.receiver.texts == []


@on_each_loop
async def test_the_peer_closes_and_gets_its_own_code_back() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        peer.send(Opcode.TEXT, b"last words")
        peer.send(Opcode.CLOSE, close_payload(4000, "bye"))
        peer.send(Opcode.TEXT, b"never read")
        assert await peer.frame() == (Opcode.CLOSE, close_payload(4000, ""))
        assert await peer.gone()
        await served.wire.wait_closed()
        assert served.receiver.texts == [b"last words"]
        assert served.receiver.closed == [4000]


@on_each_loop
async def test_a_close_without_a_code_is_1005() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        peer.send(Opcode.CLOSE, b"")
        assert await peer.frame() == (Opcode.CLOSE, b"")
        await served.wire.wait_closed()
        assert served.receiver.closed == [1005]


@on_each_loop
async def test_a_peer_that_never_answers_the_close_is_cut() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        served.wire.close(1000)
        assert await peer.frame() == (Opcode.CLOSE, close_payload(1000, ""))
        await served.wire.wait_closed()
        assert served.receiver.closed == [1006]
        assert await peer.gone()


@on_each_loop
async def test_a_peer_that_closes_and_does_not_take_what_waits_is_cut() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        while served.transport.get_write_buffer_size() < WRITE_HIGH_WATER // 2:
            served.wire.send(b"x" * 65536)
            await asyncio.sleep(0)
        peer.send(Opcode.CLOSE, close_payload(1000, ""))
        await served.wire.wait_closed()
        assert served.receiver.closed == [1000]


@on_each_loop
async def test_abort_ends_at_once() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        served.wire.abort()
        served.wire.send(b"into the void")
        served.wire.pause()
        served.wire.resume()
        served.wire.close(1000)
        assert await peer.gone()
        await served.wire.wait_closed()
        assert served.receiver.closed == [1006]
        assert not served.wire.open


@on_each_loop
async def test_a_peer_that_vanishes_is_1006() -> None:
    async with serving() as (url, queue):
        async with RawPeer.connect(url) as peer:
            served = await accepted(queue)
            peer.writer.write(encode(Opcode.TEXT, b"half a frame", MASK)[:-3])
            await peer.writer.drain()
        await served.wire.wait_closed()
        assert served.receiver.closed == [1006]
        assert served.receiver.texts == []


@on_each_loop
async def test_a_half_closed_peer_is_gone() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        peer.writer.write_eof()
        assert await peer.gone()
        await served.wire.wait_closed()
        assert served.receiver.closed == [1006]


@on_each_loop
async def test_while_paused_nothing_is_read_and_nothing_is_lost() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        served.wire.pause()
        payload = b"x" * 65536
        sent = 0
        while not (sent and peer.writer.transport.get_write_buffer_size() > 4 * len(payload)):
            peer.send(Opcode.TEXT, payload)
            sent += 1
            await asyncio.sleep(0)
        assert served.receiver.texts == []
        served.wire.resume()
        await served.receiver.until(lambda: len(served.receiver.texts) == sent)
        assert all(one == payload for one in served.receiver.texts)


@on_each_loop
async def test_a_message_may_come_byte_by_byte() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        whole = encode(Opcode.TEXT, b"slowly", MASK) + encode(Opcode.TEXT, b"y" * 300, MASK)
        for at in range(len(whole)):
            peer.writer.write(whole[at : at + 1])
            await peer.writer.drain()
            await asyncio.sleep(0.0005)
        await served.receiver.until(lambda: len(served.receiver.texts) == 2)
        assert served.receiver.texts == [b"slowly", b"y" * 300]


@on_each_loop
async def test_a_message_may_come_in_fragments_with_a_ping_between() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        first, last = encode(Opcode.TEXT, b"one ", MASK), encode(Opcode.CONTINUATION, b"two", MASK)
        peer.writer.write(bytes((first[0] & 0x7F,)) + first[1:] + encode(Opcode.PING, b"p", MASK) + last)
        await served.receiver.until(lambda: bool(served.receiver.texts))
        assert served.receiver.texts == [b"one two"]
        assert await peer.frame() == (Opcode.PONG, b"p")


@on_each_loop
async def test_the_largest_message_passes_and_one_byte_more_does_not() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        served.wire.max_size = LARGEST
        payload = b"0123456789abcdef" * (LARGEST // 16)
        peer.send(Opcode.TEXT, payload)
        await served.receiver.until(lambda: bool(served.receiver.texts))
        assert served.receiver.texts == [payload]
        peer.send(Opcode.TEXT, payload + b"!")
        opcode, body = await peer.frame()
        assert (opcode, body[:2]) == (Opcode.CLOSE, (1009).to_bytes(2, "big"))


@on_each_loop
async def test_what_is_no_text_frame_of_a_client_closes_with_its_code() -> None:
    wrong = {
        1002: (encode(Opcode.TEXT, b"unmasked"), b"\xf1\x80\x00\x00\x00\x00"),
        1003: (encode(Opcode.BINARY, b"binary", MASK),),
        1009: (encode(Opcode.TEXT, b"x" * (1024 * 1024 + 1), MASK),),
    }
    async with serving() as (url, queue):
        for code, frames in wrong.items():
            for frame in frames:
                async with RawPeer.connect(url) as peer:
                    served = await accepted(queue)
                    peer.writer.write(encode(Opcode.TEXT, b"before", MASK) + frame)
                    opcode, body = await peer.frame()
                    assert (opcode, int.from_bytes(body[:2], "big")) == (Opcode.CLOSE, code)
                    assert served.receiver.texts == [b"before"]


@on_each_loop
async def test_unsent_data_is_told_and_told_again_when_it_is_gone() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        sent = 0
        while not served.receiver.writable:
            served.wire.send(b"x" * 65536)
            sent += 1
        assert served.receiver.writable == [False]
        for _ in range(sent):
            assert await peer.frame() == (Opcode.TEXT, b"x" * 65536)
        await served.receiver.until(lambda: len(served.receiver.writable) > 1)
        assert served.receiver.writable == [False, True]


@on_each_loop
async def test_a_flood_of_pings_that_is_not_read_costs_no_memory() -> None:
    async with serving() as (url, queue), RawPeer.connect(url) as peer:
        served = await accepted(queue)
        flood = encode(Opcode.PING, b"p" * 125, MASK) * 500
        for _ in range(400):
            peer.writer.write(flood)
            await peer.writer.drain()
        peer.send(Opcode.TEXT, b"the end")
        await served.receiver.until(lambda: bool(served.receiver.texts))
        assert served.transport.get_write_buffer_size() < 2 * WRITE_HIGH_WATER
        frame = await peer.frame()
        while frame[0] == Opcode.PONG and served.transport.get_write_buffer_size():
            frame = await peer.frame()
        peer.send(Opcode.PING, b"still answered")
        while frame != (Opcode.PONG, b"still answered"):
            frame = await peer.frame()
