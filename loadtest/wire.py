"""A WebSocket client that costs next to nothing: one blocking socket, bytes kept as they came and looked at later."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from loadtest.events import END, FINAL
from sidecar.protocol.websocket import Opcode, encode, new_key

TIMEOUT_S = 60.0
_TAIL = 1024
_HEAD = 16 * 1024
_END = END.encode()


class BenchError(Exception):
    """The benchmark cannot go on, or what it measured is wrong; the message says why."""


class Socket:
    """Connected and upgraded. Raises BenchError and OSError."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        try:
            self._upgrade(port, headers)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self, request_id: str, method: str, params: Mapping[str, Any]) -> None:
        frame = orjson.dumps({"type": "req", "id": request_id, "method": method, "params": params})
        self._socket.sendall(encode(Opcode.TEXT, frame, os.urandom(4)))

    def answer(self, request_id: str) -> Any:
        """The payload of the answer; other frames in between are thrown away. Raises BenchError where it is a refusal."""
        while True:
            frame = orjson.loads(self._next())
            if frame.get("id") == request_id:
                if not frame["ok"]:
                    raise BenchError(f"refused: {frame['error'].get('code')}: {frame['error'].get('message')}")
                return frame["payload"]

    def call(self, request_id: str, method: str, params: Mapping[str, Any]) -> Any:
        self.request(request_id, method, params)
        return self.answer(request_id)

    def greet(self, params: Mapping[str, Any]) -> None:
        """Wait for the challenge, then `connect`."""
        if b'"connect.challenge"' not in self._next():
            raise BenchError("the first frame was no challenge")
        self.call("connect", "connect", params)

    def take(self) -> Intake:
        """What comes from now on, unread."""
        intake = Intake(self._socket, bytes(self._buffer))
        self._buffer.clear()
        return intake

    def _upgrade(self, port: int, headers: Mapping[str, str]) -> None:
        lines = [
            "GET / HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {new_key(os.urandom)}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._more()
        if not self._buffer.startswith(b"HTTP/1.1 101"):
            raise BenchError(f"refused the upgrade: {bytes(self._buffer[:200])!r}")
        del self._buffer[: end + 4]

    def _next(self) -> bytes:
        while True:
            for begin, end in frames_in(self._buffer):
                whole = bytes(self._buffer[begin:end])
                del self._buffer[:end]
                return whole
            self._more()

    def _more(self) -> None:
        data = self._socket.recv(_HEAD)
        if not data:
            raise BenchError(f"closed by the peer; the last bytes were {bytes(self._buffer[-200:])!r}")
        self._buffer += data


class Intake:
    """Reads until the final event of a run, into memory taken beforehand."""

    def __init__(self, sock: socket.socket, first: bytes, room: int = 1 << 20) -> None:
        self._socket = sock
        self._bytes = bytearray(room)
        self._bytes[: len(first)] = first
        self._end = len(first)

    def reserve(self, room: int) -> None:
        """Memory for so many bytes, so that none need be found while the clock runs."""
        self._bytes.extend(bytes(max(0, room - len(self._bytes))))

    def step(self) -> bool:
        """One read. True once the run is over. Raises BenchError."""
        if len(self._bytes) - self._end < _HEAD:
            self._bytes.extend(bytes(len(self._bytes)))
        with memoryview(self._bytes) as view:
            got = self._socket.recv_into(view[self._end :])
        if not got:
            raise BenchError("closed by the peer in the middle of a stream")
        self._end += got
        # The last event may come in two reads: it is here once its own end is.
        at = self._bytes.find(FINAL, max(0, self._end - got - _TAIL), self._end)
        return at >= 0 and self._bytes.find(_END, at, self._end) >= 0

    def finish(self) -> None:
        while not self.step():
            pass

    @property
    def size(self) -> int:
        return self._end

    def frames(self) -> Iterator[bytes]:
        """The payloads of all that came."""
        del self._bytes[self._end :]
        for begin, end in frames_in(self._bytes):
            yield bytes(self._bytes[begin:end])


def frames_in(data: bytearray) -> Iterator[tuple[int, int]]:
    """Where the payload of each whole text frame of a server begins and ends. Raises BenchError for any other frame."""
    at = 0
    while at + 2 <= len(data):
        if data[at] != 0x81 or data[at + 1] > 127:
            raise BenchError(f"an unexpected frame: {bytes(data[at : at + 64])!r}")
        body, size = at + 2, data[at + 1]
        if size > 125:
            body += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : body], "big")
        if body + size > len(data):
            return
        yield body, body + size
        at = body + size
