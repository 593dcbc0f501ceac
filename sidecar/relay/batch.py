"""What one read of the gateway becomes: one write to the client."""

from __future__ import annotations

from sidecar.protocol.websocket import Message, Opcode, encode


class Batch:
    """Slices of the bytes that came, and what was written anew, in order. Neighbours that stay as they are stay one slice."""

    __slots__ = ("_buffer", "_end", "_parts", "_start", "frames")

    def __init__(self) -> None:
        self.frames = 0
        self._parts: list[bytes] = []
        self._buffer = b""
        self._start = self._end = 0

    def same(self, message: Message) -> None:
        """The message as it came."""
        if message.frame_start < 0:
            self.other(message.payload)
            return
        self.frames += 1
        if message.frame_start != self._end or message.buffer is not self._buffer:
            self._cut()
            self._buffer, self._start = message.buffer, message.frame_start
        self._end = message.end

    def spliced(self, message: Message, start: int, end: int, new: bytes) -> None:
        """The message with `new` in the place of `message.buffer[start:end]`."""
        if message.frame_start < 0 or len(new) != end - start:
            self.other(b"%b%b%b" % (message.buffer[message.start : start], new, message.buffer[end : message.end]))
            return
        self.same(message)
        self._parts += (self._buffer[self._start : start], new)
        self._start = end

    def other(self, payload: bytes) -> None:
        """A message of ours."""
        self.frames += 1
        self._cut()
        self._parts.append(encode(Opcode.TEXT, payload))

    def bytes(self) -> bytes:
        """All of it, once."""
        self._cut()
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def _cut(self) -> None:
        if self._end > self._start:
            whole = self._start == 0 and self._end == len(self._buffer)
            self._parts.append(self._buffer if whole else self._buffer[self._start : self._end])
        self._buffer, self._start, self._end = b"", 0, 0
