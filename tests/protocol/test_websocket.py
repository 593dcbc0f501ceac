"""Whatever is sent comes out again, however the stream is cut; whatever is not a frame ends it with the right code."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol.websocket import (
    CloseCode,
    FrameReader,
    Message,
    Opcode,
    WebSocketError,
    accept_key,
    apply_mask,
    close_code,
    close_payload,
    encode,
    new_key,
)

MASK = b"\x37\xfa\x21\x3d"
MIB = 1 << 20


def frame(opcode: int, payload: bytes, mask: bytes = b"", *, final: bool = True, reserved: int = 0) -> bytes:
    """A frame by the letter of RFC 6455 §5.2, written apart from the code under test."""
    size = len(payload)
    short, extended = (
        (size, b"")
        if size < 126
        else (126, size.to_bytes(2, "big"))
        if size < 2**16
        else (127, size.to_bytes(8, "big"))
    )
    head = bytes([final << 7 | reserved << 4 | opcode, bool(mask) << 7 | short]) + extended
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if mask else head + payload


@dataclass(frozen=True, slots=True)
class Sent:
    """One message: its pieces, and the control frames between them."""

    opcode: int
    pieces: Sequence[bytes]
    between: Sequence[tuple[int, bytes]]

    @property
    def payload(self) -> bytes:
        return b"".join(self.pieces)

    def frames(self, mask: bytes) -> list[bytes]:
        last = len(self.pieces) - 1
        frames = [frame(self.opcode, self.pieces[0], mask, final=last == 0)]
        for at, piece in enumerate(self.pieces[1:], 1):
            frames += [frame(opcode, payload, mask) for opcode, payload in self.between]
            frames.append(frame(Opcode.CONTINUATION, piece, mask, final=at == last))
        return frames

    def messages(self) -> list[tuple[int, bytes]]:
        return [*self.between] * (len(self.pieces) - 1) + [(self.opcode, self.payload)]


SIZES = st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 127, 65534, 65535, 65536, 65540, 70_000]))
payloads = st.builds(lambda size, salt: bytes((at * 7 + salt) & 0xFF for at in range(size)), SIZES, st.integers(0, 255))
controls = st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE]), st.binary(max_size=125))
wholes = st.builds(lambda payload: [payload], payloads)
in_pieces = st.lists(payloads, min_size=2, max_size=4)
messages = st.one_of(
    st.builds(
        Sent,
        st.sampled_from([Opcode.TEXT, Opcode.BINARY]),
        st.one_of(wholes, in_pieces),
        st.lists(controls, max_size=2),
    ),
    st.builds(lambda control: Sent(control[0], [control[1]], []), controls),
)
masks = st.one_of(st.just(b""), st.binary(min_size=4, max_size=4))


def cut(stream: bytes, sizes: Iterable[int]) -> list[bytes]:
    """`stream` in chunks of the given sizes, and what is left in one."""
    chunks, at = [], 0
    for size in sizes:
        chunks.append(stream[at : at + size])
        at += size
    return [chunk for chunk in [*chunks, stream[at:]] if chunk]


def read(reader: FrameReader, chunks: Iterable[bytes]) -> tuple[list[Message], CloseCode | None]:
    found: list[Message] = []
    try:
        for chunk in chunks:
            found.extend(reader.feed(chunk))
    except WebSocketError as error:
        return found, error.websocket_code
    return found, None


def shown(found: Iterable[Message]) -> list[tuple[int, bytes]]:
    return [(message.opcode, message.payload) for message in found]


@given(st.lists(messages, max_size=6), masks, st.lists(st.integers(1, 70_000) | st.integers(1, 12), max_size=30))
def test_any_messages_in_any_chunks(sent: list[Sent], mask: bytes, sizes: list[int]) -> None:
    frames = [one for message in sent for one in message.frames(mask)]
    reader = FrameReader(masked=bool(mask), max_size=MIB)
    found, code = read(reader, cut(b"".join(frames), sizes))
    assert code is None
    assert shown(found) == [one for message in sent for one in message.messages()]
    slices = [message.buffer[message.frame_start : message.end] for message in found if message.frame_start >= 0]
    whole = [one for one in frames if one[0] & 0x80 and one[0] & 0x0F and not mask]
    assert slices == whole


@given(st.lists(st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), payloads), max_size=5), masks)
def test_what_we_encode_is_by_the_letter(sent: list[tuple[int, bytes]], mask: bytes) -> None:
    stream = b"".join(encode(opcode, payload, mask) for opcode, payload in sent)
    assert stream == b"".join(frame(opcode, payload, mask) for opcode, payload in sent)
    assert shown(read(FrameReader(masked=bool(mask), max_size=MIB), [stream])[0]) == sent


def test_byte_by_byte() -> None:
    sent = [(Opcode.TEXT, b"x" * size) for size in (0, 1, 125, 126, 300, 70_000)]
    for mask in (b"", MASK):
        stream = b"".join(encode(opcode, payload, mask) for opcode, payload in sent)
        found, code = read(FrameReader(masked=bool(mask), max_size=MIB), (bytes([byte]) for byte in stream))
        assert (shown(found), code) == (sent, None)


@given(st.binary(max_size=80), st.booleans(), st.lists(st.integers(1, 9), max_size=20), st.integers(0, 60))
def test_total_over_bytes_and_chunks_do_not_matter(
    stream: bytes, masked: bool, sizes: list[int], max_size: int
) -> None:
    at_once = read(FrameReader(masked=masked, max_size=max_size), [stream])
    in_chunks = read(FrameReader(masked=masked, max_size=max_size), cut(stream, sizes))
    assert (shown(at_once[0]), at_once[1]) == (shown(in_chunks[0]), in_chunks[1])
    assert all(len(message.payload) <= max(max_size, 125) for message in at_once[0])


def _headers(masked: bool) -> st.SearchStrategy[bytes]:
    first = st.sampled_from([0x81, 0x82, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0x83])
    second = st.sampled_from([0, 1, 2, 125, 126, 127]).map(lambda length: length | masked << 7)
    extended = st.sampled_from([b"", b"\x00\x02", b"\xff\xff", b"\x00" * 7 + b"\x03", b"\x80" + b"\x00" * 7])
    parts = st.tuples(st.builds(bytes, st.tuples(first, second)), extended, st.binary(max_size=6))
    return st.lists(parts.map(b"".join), max_size=6).map(b"".join)


@given(st.booleans(), st.data(), st.lists(st.integers(1, 9), max_size=20))
def test_headers_of_every_kind_in_any_chunks(masked: bool, data: st.DataObject, sizes: list[int]) -> None:
    stream = data.draw(_headers(masked))
    at_once = read(FrameReader(masked=masked, max_size=100), [stream])
    in_chunks = read(FrameReader(masked=masked, max_size=100), cut(stream, sizes))
    assert (shown(at_once[0]), at_once[1]) == (shown(in_chunks[0]), in_chunks[1])


@pytest.mark.parametrize(
    ("masked", "stream", "code"),
    [
        pytest.param(True, frame(Opcode.TEXT, b"x"), CloseCode.PROTOCOL_ERROR, id="client without a mask"),
        pytest.param(False, frame(Opcode.TEXT, b"x", MASK), CloseCode.PROTOCOL_ERROR, id="server with a mask"),
        pytest.param(
            False, frame(Opcode.TEXT, b"x" * 200, MASK), CloseCode.PROTOCOL_ERROR, id="server with a mask, longer"
        ),
        pytest.param(False, frame(Opcode.TEXT, b"xyz", reserved=4), CloseCode.PROTOCOL_ERROR, id="compressed"),
        pytest.param(True, frame(Opcode.TEXT, b"x", MASK, reserved=1), CloseCode.PROTOCOL_ERROR, id="reserved bit"),
        pytest.param(True, frame(0x3, b"x", MASK), CloseCode.PROTOCOL_ERROR, id="reserved opcode"),
        pytest.param(True, frame(0xB, b"x", MASK), CloseCode.PROTOCOL_ERROR, id="reserved control opcode"),
        pytest.param(True, frame(Opcode.PING, b"x" * 126, MASK), CloseCode.PROTOCOL_ERROR, id="long ping"),
        pytest.param(True, frame(Opcode.CLOSE, b"", MASK, final=False), CloseCode.PROTOCOL_ERROR, id="close in pieces"),
        pytest.param(
            True, frame(Opcode.CONTINUATION, b"x", MASK), CloseCode.PROTOCOL_ERROR, id="continuation of nothing"
        ),
        pytest.param(
            False,
            frame(Opcode.TEXT, b"", final=False) + frame(Opcode.TEXT, b"xyz"),
            CloseCode.PROTOCOL_ERROR,
            id="text between the pieces",
        ),
        pytest.param(True, frame(Opcode.TEXT, b"x" * 1001, MASK), CloseCode.TOO_BIG, id="too big"),
        pytest.param(False, frame(Opcode.TEXT, b"x" * 1001), CloseCode.TOO_BIG, id="too big from a server"),
        pytest.param(True, b"\x81\xff\x80" + bytes(7), CloseCode.TOO_BIG, id="longer than a signed length"),
        pytest.param(
            False,
            frame(Opcode.TEXT, b"x" * 600, final=False) + frame(Opcode.CONTINUATION, b"x" * 401),
            CloseCode.TOO_BIG,
            id="too big in sum",
        ),
        pytest.param(
            True,
            frame(Opcode.TEXT, b"", MASK, final=False) + frame(Opcode.CONTINUATION, b"", MASK, final=False) * 5000,
            CloseCode.TOO_BIG,
            id="pieces without end",
        ),
    ],
)
def test_what_breaks_the_rules(masked: bool, stream: bytes, code: CloseCode) -> None:
    for chunks in ([stream], [stream[:1], stream[1:]]):
        assert read(FrameReader(masked=masked, max_size=1000), chunks) == ([], code)


@pytest.mark.parametrize("mask", [b"", MASK])
def test_a_message_that_was_begun_is_known(mask: bytes) -> None:
    reader = FrameReader(masked=bool(mask), max_size=1000)
    pieces = frame(Opcode.TEXT, b"xyz", mask, final=False), frame(Opcode.CONTINUATION, b"xyz", mask)
    states = [(len(list(reader.feed(chunk))), reader.unfinished) for chunk in (pieces[0], pieces[1][:3], pieces[1][3:])]
    assert states == [(0, True), (0, True), (1, False)]
    ping = frame(Opcode.PING, b"xyz", mask)
    states = [(len(list(reader.feed(chunk))), reader.unfinished) for chunk in (ping[:1], ping[1:], ping)]
    assert states == [(0, True), (1, False), (1, False)]


def test_what_came_before_the_break_is_delivered() -> None:
    reader = FrameReader(masked=False, max_size=1000)
    found, code = read(reader, [frame(Opcode.TEXT, b"one") + frame(Opcode.PING, b"") + frame(0x3, b"")])
    assert (shown(found), code) == ([(Opcode.TEXT, b"one"), (Opcode.PING, b"")], CloseCode.PROTOCOL_ERROR)


def test_a_size_is_refused_before_the_bytes_are_there() -> None:
    with pytest.raises(WebSocketError, match="at most 1000 bytes"):
        list(FrameReader(masked=True, max_size=1000).feed(frame(Opcode.TEXT, b"x" * 1001, MASK)[:4]))


@pytest.mark.parametrize("mask", [b"", MASK])
def test_the_limit_is_exact(mask: bytes) -> None:
    halves = frame(Opcode.TEXT, b"x" * 500, mask, final=False) + frame(Opcode.CONTINUATION, b"x" * 500, mask)
    stream = frame(Opcode.TEXT, b"x" * 1000, mask) + halves * 2
    found, code = read(FrameReader(masked=bool(mask), max_size=1000), [stream])
    assert (shown(found), code) == ([(Opcode.TEXT, b"x" * 1000)] * 3, None)


def test_a_ping_between_the_pieces_of_the_longest_message() -> None:
    """It belongs to no message, so it does not count to the size of one."""
    stream = (
        frame(Opcode.TEXT, b"x" * 1000, MASK, final=False)
        + frame(Opcode.PING, b"x" * 125, MASK)
        + frame(Opcode.CONTINUATION, b"", MASK)
    )
    found, code = read(FrameReader(masked=True, max_size=1000), [stream])
    assert (shown(found), code) == ([(Opcode.PING, b"x" * 125), (Opcode.TEXT, b"x" * 1000)], None)


@pytest.mark.parametrize("mask", [b"", MASK])
def test_the_limit_may_change_between_two_messages_of_one_read(mask: bytes) -> None:
    one, large = frame(Opcode.TEXT, b"hello", mask), frame(Opcode.TEXT, b"x" * 2000, mask)
    reader = FrameReader(masked=bool(mask), max_size=1000)
    stream = reader.feed(one + large)
    assert next(stream).payload == b"hello"
    reader.max_size = 2000
    assert [message.payload for message in stream] == [b"x" * 2000]
    reader.max_size = 1999
    assert read(reader, [large]) == ([], CloseCode.TOO_BIG)


@given(st.binary(max_size=70) | payloads, st.binary(min_size=4, max_size=4))
def test_masking(payload: bytes, mask: bytes) -> None:
    masked = apply_mask(payload, mask)
    assert masked == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert apply_mask(masked, mask) == payload


@given(st.integers(1000, 4999), st.text(max_size=200))
def test_a_close_frame_fits_and_is_text(code: int, reason: str) -> None:
    body = close_payload(code, reason)
    assert len(body) <= 125
    assert close_code(body) == code
    assert reason.startswith(body[2:].decode())


def test_a_close_frame_without_a_body() -> None:
    assert close_code(b"") == close_code(b"\x03") == 1005
    assert close_payload(1000, "") == b"\x03\xe8"
    assert close_payload(1008, "é" * 100)[2:].decode() == "é" * 61


def test_the_handshake_of_the_rfc() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert base64.b64decode(new_key(lambda size: bytes(range(size)))) == bytes(range(16))


def test_every_code_is_sent_as_it_is() -> None:
    assert {int(code) for code in CloseCode} <= {*range(1000, 1004), *range(1007, 1016), *range(4000, 5000)}
    assert all(close_code(close_payload(code, code.name)) == code for code in CloseCode)
