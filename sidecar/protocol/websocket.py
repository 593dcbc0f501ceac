"""RFC 6455 framing, without a socket: bytes in, messages out, and back.

A relay wants two things that no library gives at once: the frames of one read as offsets into the bytes that came, so that
unchanged ones are sent on by one write without being copied or encoded again, and a size limit that grows after the
handshake. Extensions are never negotiated (a gateway never does, seen on 2026.2.6 to 2026.9.6), so RSV bits are errors.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Callable, Iterator

from sidecar.errors import SidecarError


class Opcode(enum.IntEnum):
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(enum.IntEnum):
    """The codes that we send (RFC 6455 §7.4.1, and 4000–4999 for private use as the gateway does)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013


class WebSocketError(SidecarError):
    """The peer broke the framing; the connection closes with `code`."""

    def __init__(self, code: CloseCode, message: str) -> None:
        super().__init__(message, detail_code="WEBSOCKET_PROTOCOL")
        self.websocket_code = code


class Message:
    """One whole message, `buffer[start:end]`. `frame_start` is where its only frame begins; -1: it came in pieces, or masked."""

    __slots__ = ("buffer", "end", "frame_start", "opcode", "start")

    def __init__(self, opcode: int, buffer: bytes, start: int, end: int, frame_start: int = -1) -> None:
        self.opcode = opcode
        self.buffer = buffer
        self.start = start
        self.end = end
        self.frame_start = frame_start

    @property
    def payload(self) -> bytes:
        return self.buffer[self.start : self.end]


class FrameReader:
    """Cuts a byte stream into messages. `masked`: whether frames must be (from a client) or must not be (from a server)."""

    __slots__ = ("_fragments", "_gathered", "_kind", "_masked", "_missing", "_parts", "max_size")

    def __init__(self, *, masked: bool, max_size: int) -> None:
        self.max_size = max_size
        self._masked = masked
        self._parts: list[bytes] = []
        self._missing = 0
        self._fragments: list[bytes] = []
        self._gathered = 0
        self._kind = 0

    @property
    def unfinished(self) -> bool:
        """Is a message begun and not ended?"""
        return bool(self._parts or self._kind)

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes, in order. Raises WebSocketError where the peer broke the rules; then feed no more."""
        data = self._behind_parts(data)
        position, size, plain = 0, len(data), not self._masked
        while position < size:
            if plain and data[position] == _WHOLE_TEXT and position + 4 <= size and not self._kind:
                # The frame that a gateway sends thousands of: whole, plain, below 64 KiB. All others go the long way.
                length, body = data[position + 1], position + 2
                if length == 126:
                    length, body = data[position + 2] << 8 | data[position + 3], position + 4
                elif length > 126:
                    length = size  # it ends nowhere here: one of 64 KiB or more, or masked against the rules
                end = body + length
                if end <= size and length <= self.max_size:
                    yield Message(_TEXT, data, body, end, position)
                    position = end
                    continue
            end, message = self._next(data, position)
            if not end:
                break
            position = end
            if message is not None:
                yield message
        if position < size:
            self._parts.append(data[position:] if position else data)

    def _behind_parts(self, data: bytes) -> bytes:
        """`data` behind what waits already; empty while a frame still misses some."""
        if not self._parts:
            return data
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return b""
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def _next(self, data: bytes, at: int) -> tuple[int, Message | None]:
        """`(frame end, the message it completes)` of the frame at `at`; end 0 where the frame is not whole yet."""
        header = self._header(data, at)
        if header is None:
            self._missing = 1
            return 0, None
        body, end, mask = header
        if end > len(data):
            self._missing = end - len(data)
            return 0, None
        return end, self._take(data, at, body, end, mask)

    def _header(self, data: bytes, at: int) -> tuple[int, int, bytes] | None:
        """`(body start, frame end, mask)` of the frame at `at`; None where its header is not whole yet."""
        if len(data) - at < 2:
            return None
        first, second = data[at], data[at + 1]
        length, body = second & 0x7F, at + 2
        if length > 125:
            body += 2 if length == 126 else 8
            if len(data) < body:
                return None
            length = int.from_bytes(data[at + 2 : body], "big")
        self._check(first, bool(second & 0x80), length)
        if not self._masked:
            return body, body + length, b""
        if len(data) < body + 4:
            return None
        return body + 4, body + 4 + length, data[body : body + 4]

    def _check(self, first: int, masked: bool, length: int) -> None:
        opcode, final = first & 0x0F, first & 0x80
        if first & 0x70 or opcode not in _OPCODES:
            raise WebSocketError(CloseCode.PROTOCOL_ERROR, "reserved bits or opcode")
        if masked != self._masked:
            raise WebSocketError(CloseCode.PROTOCOL_ERROR, "frames of a client are masked, those of a server are not")
        if opcode >= Opcode.CLOSE and (length > 125 or not final):
            raise WebSocketError(CloseCode.PROTOCOL_ERROR, "control frames are short and whole")
        if opcode < Opcode.CLOSE and (opcode == Opcode.CONTINUATION) != bool(self._kind):
            raise WebSocketError(CloseCode.PROTOCOL_ERROR, "fragments out of order")
        if opcode < Opcode.CLOSE and length + self._gathered > self.max_size:
            raise WebSocketError(CloseCode.TOO_BIG, f"a message has at most {self.max_size} bytes")
        if opcode < Opcode.CLOSE and len(self._fragments) >= _MAX_FRAGMENTS:
            raise WebSocketError(CloseCode.TOO_BIG, f"a message comes in at most {_MAX_FRAGMENTS} pieces")

    def _take(self, data: bytes, at: int, body: int, end: int, mask: bytes) -> Message | None:
        opcode, final = data[at] & 0x0F, data[at] & 0x80
        if opcode >= Opcode.CLOSE or (final and not self._kind):
            if not mask:
                return Message(opcode, data, body, end, at)
            return Message(opcode, apply_mask(data[body:end], mask), 0, end - body)
        self._kind = self._kind or opcode
        self._fragments.append(apply_mask(data[body:end], mask) if mask else data[body:end])
        self._gathered += end - body
        if not final:
            return None
        whole, kind = b"".join(self._fragments), self._kind
        self._fragments.clear()
        self._gathered = self._kind = 0
        return Message(kind, whole, 0, len(whole))


_OPCODES = frozenset(Opcode)
_WHOLE_TEXT = 0x81
_TEXT = int(Opcode.TEXT)
_MASK_STEP = 16384
_MAX_FRAGMENTS = 4096


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """XOR with the repeated 4-byte `mask`; its own inverse.

    As two long integers, a cache's worth at a time: about 2 ns a byte, without a C extension of our own.
    """
    if len(payload) > _MASK_STEP:
        steps = range(0, len(payload), _MASK_STEP)
        return b"".join(apply_mask(payload[at : at + _MASK_STEP], mask) for at in steps)
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def encode(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """One final frame. `mask`: four random bytes for frames of a client, empty for those of a server."""
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        head = bytes((0x80 | opcode, bit | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, bit | 127)) + size.to_bytes(8, "big")
    return head + mask + apply_mask(payload, mask) if mask else head + payload


def close_payload(code: int, reason: str) -> bytes:
    """The body of a close frame; the reason is cut to the 123 bytes that fit."""
    return code.to_bytes(2, "big") + reason.encode()[:123].decode(errors="ignore").encode()


def close_code(payload: bytes) -> int:
    """The code in a close frame's body; 1005 (none) where it has no body."""
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005


def accept_key(key: str) -> str:
    """`Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 §4.2.2)."""
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def new_key(random_bytes: Callable[[int], bytes]) -> str:
    """A fresh `Sec-WebSocket-Key`."""
    return base64.b64encode(random_bytes(16)).decode()
