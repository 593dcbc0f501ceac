"""One client of a `Connection` and the gateway behind it, both at the other end of socket pairs: what each gets, and may say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

from sidecar.protocol.websocket import FrameReader, Opcode, encode
from sidecar.quota.runs import Runs
from sidecar.relay.audience import Audience
from sidecar.relay.connection import Connection
from sidecar.relay.scope import Scope
from sidecar.telemetry.facts import Fact
from sidecar.wire.dial import Dialled
from sidecar.wire.wire import Inbox, Wire

Frame = dict[str, Any]
MAX_SIZE = 1 << 22
PATIENCE_S = 10.0


class End:
    """The far end of one leg."""

    def __init__(self, peer: socket.socket, *, masked: bool) -> None:
        self.frames: list[Frame] = []
        """Everything that came, in order."""

        self._peer = peer
        self._masked = masked
        self._reader = FrameReader(masked=masked, max_size=MAX_SIZE)
        self._arrived = asyncio.Condition()
        self._task = asyncio.create_task(self._read())

    async def say(self, *frames: Frame) -> None:
        """In one write."""
        mask = b"" if self._masked else os.urandom(4)
        data = [encode(Opcode.TEXT, json.dumps(frame, separators=(",", ":")).encode(), mask) for frame in frames]
        await asyncio.get_running_loop().sock_sendall(self._peer, b"".join(data))

    async def wait_for(self, wanted: Callable[[Frame], bool]) -> Frame:
        """The first frame, of all that came, that is wanted. Raises TimeoutError."""
        found: Frame = await self.wait_until(lambda: next((frame for frame in self.frames if wanted(frame)), None))
        return found

    async def wait_until(self, found: Callable[[], Any]) -> Any:
        async with asyncio.timeout(PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: bool(found()))
        return found()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._peer.close()

    async def _read(self) -> None:
        while data := await asyncio.get_running_loop().sock_recv(self._peer, 1 << 18):
            async with self._arrived:
                self.frames += [
                    json.loads(message.payload) for message in self._reader.feed(data) if message.opcode == Opcode.TEXT
                ]
                self._arrived.notify_all()


class Person:
    """A client past hello."""

    def __init__(self, connection: Connection, client: End, gateway: End, facts: list[Fact]) -> None:
        self.connection = connection
        self.client = client
        self.gateway = gateway
        self.facts = facts
        self._seq = 0

    async def ask(self, method: str, params: Mapping[str, Any], request_id: str = "1") -> None:
        await self.client.say({"type": "req", "id": request_id, "method": method, "params": dict(params)})

    def asked(self, method: str, key: str | None = None) -> list[Frame]:
        """Requests that reached the gateway."""
        return [
            frame
            for frame in self.gateway.frames
            if frame["method"] == method and (key is None or frame["params"].get("key") == key)
        ]

    async def reached(self, method: str, key: str | None = None, times: int = 1) -> Frame:
        """Wait for the `times`th such request."""
        await self.gateway.wait_until(lambda: len(self.asked(method, key)) >= times)
        return self.asked(method, key)[times - 1]

    async def answer(self, request: Frame, payload: Any) -> None:
        await self.gateway.say({"type": "res", "id": request["id"], "ok": True, "payload": payload})

    async def refuse(self, request: Frame) -> None:
        error = {"code": "INVALID_REQUEST", "message": "not now"}
        await self.gateway.say({"type": "res", "id": request["id"], "ok": False, "error": error})

    async def subscribed(self, key: str, times: int = 1) -> None:
        """Answer the `times`th subscription to `key`, whosever it is."""
        request = await self.reached("sessions.messages.subscribe", key, times)
        await self.answer(request, {"subscribed": True, "key": key})

    async def event(self, name: str, payload: Any) -> None:
        self._seq += 1
        await self.gateway.say({"type": "event", "event": name, "payload": payload, "seq": self._seq})

    async def gets(self, *events: tuple[str, Mapping[str, Any]]) -> list[int]:
        """The gateway sends these; which of them, by number, the client gets. All numbers that it gets are without a gap."""
        before = len(self.client.frames)
        for name, payload in events:
            await self.event(name, payload)
        await self.event("tick", {"last": self._seq})
        last = self._seq - 1
        await self.client.wait_for(lambda frame: frame.get("payload") == {"last": last})
        got = [frame for frame in self.client.frames[before:] if frame.get("event") != "tick"]
        numbers = [frame["seq"] for frame in self.client.frames if "seq" in frame]
        assert numbers
        assert numbers == list(range(1, len(numbers) + 1))
        said = [{"event": name, "payload": payload} for name, payload in events]
        return [said.index({"event": frame["event"], "payload": frame["payload"]}) for frame in got]


@contextlib.asynccontextmanager
async def visiting(
    scope_of: Callable[[Dialled], Scope], audience: Audience | None, runs: Runs, caps: tuple[str, ...] = ()
) -> AsyncIterator[Person]:
    """A `Connection` that runs, with whatever `scope_of` says besides; ended at the end."""
    facts: list[Fact] = []
    failures: list[Exception] = []
    ends: list[End] = []
    wires: list[Wire] = []
    for client in (True, False):
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        wire = Wire(client=client, max_size=MAX_SIZE, receiver=Inbox(), failed=failures.append)
        await asyncio.get_running_loop().create_connection(lambda wire=wire: wire, sock=ours)  # type: ignore[misc]
        wires.append(wire)
        ends.append(End(peer, masked=client))
    gateway, client_wire = wires
    scope = scope_of(Dialled(gateway, Inbox()))
    scope.hello = replace(scope.hello, caps=caps)
    scope.principal = replace(scope.principal, roles=frozenset({"user"}))
    scope.audience, scope.runs = audience, runs
    connection = Connection(scope, client_wire, facts.append, slow_client_seconds=30)
    task = asyncio.create_task(connection.run([]))
    try:
        await asyncio.sleep(0)
        yield Person(connection, ends[1], ends[0], facts)
    finally:
        connection.end(1000, "over")
        await task
        for wire in wires:
            wire.abort()
        for end in ends:
            await end.close()
    assert failures == []
