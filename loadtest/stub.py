"""A stand-in for a gateway behind a trusted proxy: truthful where the sidecar looks, and much faster than the real one.

A chat message `stream {…}` (see `events.StreamOrder`) is answered at once and prepares a run; the connection's next request of
`STARTS` starts it; `turn` is a run without pieces that ends at once.

`python -m loadtest.stub PORT`, the operator's password in `LOADTEST_PASSWORD`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, cast

import orjson
import uvloop

from loadtest.events import TURN, Maker, StreamOrder, sequenced, stream
from sidecar.protocol.websocket import FrameReader, Opcode, accept_key, close_payload, encode
from tests.stack.gateway import SESSION_TOOLS, USER_HEADER, merge

VERSION = "2026.9.6"
MAX_FRAME = 25 * 1024 * 1024
METHODS = [
    *("health", "status", "models.list", "chat.send", "chat.history", "chat.abort", "chat.startup", "chat.metadata"),
    *(
        "agent",
        "agent.wait",
        "agents.list",
        "agent.identity.get",
        "sessions.list",
        "sessions.create",
        "sessions.describe",
    ),
    *("sessions.subscribe", "sessions.messages.subscribe", "sessions.patch", "sessions.delete", "sessions.reset"),
    *("config.get", "config.patch", "cron.list", "cron.status", "tasks.list", "logs.tail"),
]
EVENTS = [
    *("agent", "chat", "connect.challenge", "config.changed", "cron", "health", "presence", "session.message"),
    *("sessions.changed", "shutdown", "task", "tick"),
]
STARTS = ("models.list", "chat.history")
"""What a client asks when it wants what it ordered."""

AT_ONCE = StreamOrder(0, 0)

MODELS = {"models": [{"id": "fake-1", "name": "Echo", "provider": "fake", "contextWindow": 200_000}]}


class Gateway:
    """What all connections share: the configuration, and who is the operator."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.operators: set[Connection] = set()
        self.config: dict[str, Any] = {
            "agents": {"defaults": {"model": {"primary": "fake/fake-1"}}},
            "tools": SESSION_TOOLS["closed"],
        }
        # As many as the real one names (2026.9.6), since a relay that rewrites hello has to read them all.
        others = [f"plugin.surface.number{number}" for number in range(466 - len(METHODS))]
        self.features = {"methods": [*METHODS, *others], "events": EVENTS}

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()

    def patch(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError where the patch was made from an older configuration."""
        if params.get("baseHash") != self.hash:
            raise ValueError("config changed since last load; re-run config.get and retry")
        self.config = merge(self.config, json.loads(params["raw"]))
        for operator in self.operators:
            operator.send({"type": "event", "event": "config.changed", "payload": {}})


class Connection(asyncio.Protocol):
    """One client: a user by its header, or the operator by password."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._transport: asyncio.Transport | None = None
        self._reader: FrameReader | None = None
        self._head = b""
        self._user = ""
        self._seq = 0
        self._run = ""
        self._prepared: tuple[StreamOrder, list[bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - either way it is gone
        self._gateway.operators.discard(self)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._upgrade(head.decode("latin-1"))
        if self._reader is not None:
            for message in self._reader.feed(data):
                if message.opcode == Opcode.TEXT:
                    self._request(orjson.loads(message.payload))
                elif message.opcode == Opcode.CLOSE:
                    self._close(1000)

    def send(self, frame: Mapping[str, Any]) -> None:
        self.write(encode(Opcode.TEXT, orjson.dumps(frame)))

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self, code: int) -> None:
        self.write(encode(Opcode.CLOSE, close_payload(code, "")))
        if self._transport is not None:
            self._transport.close()

    def _upgrade(self, head: str) -> None:
        fields = (line.partition(":") for line in head.split("\r\n")[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        if "sec-websocket-key" not in headers:
            self.write(b"HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self._close(1000)
            return
        self._user = headers.get(USER_HEADER, "")
        accept = accept_key(headers["sec-websocket-key"])
        answer = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
        self.write("\r\n".join((*answer, f"Sec-WebSocket-Accept: {accept}", "\r\n")).encode())
        self._reader = FrameReader(masked=True, max_size=MAX_FRAME)
        challenge = {"nonce": os.urandom(16).hex(), "ts": 1_795_219_909_000}
        self.send({"type": "event", "event": "connect.challenge", "payload": challenge})

    def _request(self, frame: Mapping[str, Any]) -> None:
        method, params = frame.get("method"), frame.get("params") or {}
        try:
            payload = self._connect(params) if method == "connect" else self._answer(str(method), params)
        except (ValueError, KeyError) as error:
            refused = {"code": "INVALID_REQUEST", "message": str(error)}
            self.send({"type": "res", "id": frame.get("id"), "ok": False, "error": refused})
            return
        self.send({"type": "res", "id": frame.get("id"), "ok": True, "payload": payload})
        if method == "chat.send" and params["message"] == TURN:
            self._seq += 1
            self._start(AT_ONCE, [encode(Opcode.TEXT, Maker(self._user, self._run, 0, "chat").final(1, self._seq))])
        if self._prepared is not None and method in STARTS:
            prepared, self._prepared = self._prepared, None
            self._start(*prepared)

    def _connect(self, params: Mapping[str, Any]) -> dict[str, Any]:
        operator = (params.get("auth") or {}).get("password") == self._gateway.password
        if not operator and not self._user:
            raise ValueError("unauthorized: name the user, or show the password")
        if operator:
            self._gateway.operators.add(self)
        agent = "main" if operator else self._user
        return {
            "type": "hello-ok",
            "protocol": 4,
            "server": {"version": VERSION, "connId": os.urandom(8).hex()},
            "features": self._gateway.features,
            "snapshot": {
                "presence": [],
                "health": {"ok": True, "ts": 1_795_219_909_000, "defaultAgentId": agent, "agents": []},
                "stateVersion": {"presence": 1, "health": 1},
                "uptimeMs": 60_000,
                "sessionDefaults": {
                    "defaultAgentId": agent,
                    "mainKey": "main",
                    "mainSessionKey": f"agent:{agent}:main",
                },
            },
            "auth": {"role": "operator", "scopes": params.get("scopes", [])},
            "policy": {"maxPayload": MAX_FRAME, "maxBufferedBytes": 2 * MAX_FRAME, "tickIntervalMs": 30_000},
        }

    def _answer(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        if method == "models.list":
            return MODELS
        if method == "chat.history":
            return {"sessionKey": params["sessionKey"], "messages": []}
        if method == "chat.send":
            return self._prepare(params)
        if method in {"sessions.subscribe", "sessions.messages.subscribe"}:
            return {"subscribed": True, **params}
        if method == "sessions.list":
            return {"sessions": []}
        if self not in self._gateway.operators or method not in {"config.get", "config.patch"}:
            raise ValueError(f"unknown method: {method}")
        if method == "config.patch":
            self._gateway.patch(params)
            return {"ok": True}
        return {"hash": self._gateway.hash, "config": self._gateway.config, "sourceConfig": self._gateway.config}

    def _prepare(self, params: Mapping[str, Any]) -> dict[str, Any]:
        run = self._run = params["idempotencyKey"]
        word, _, order = params["message"].partition(" ")
        if word == "stream":
            wanted = StreamOrder(**json.loads(order))
            frames = list(stream(self._user, run, wanted, self._seq))
            # What is sent in one go is joined now, so that it costs one write then.
            self._prepared = wanted, frames if wanted.pace_ms else [b"".join(frames[:-1]), frames[-1]]
            self._seq += sequenced(wanted)
        return {"runId": run, "status": "started"}

    def _start(self, order: StreamOrder, frames: list[bytes]) -> None:
        if order.pace_ms:
            self._paced(order, frames, 0)
            return
        for data in frames:
            self.write(data)
        self._tell_operators()

    def _paced(self, order: StreamOrder, frames: list[bytes], at: int) -> None:
        if self._transport is None:
            return
        self.write(frames[at])
        if at + 1 < len(frames):
            asyncio.get_running_loop().call_later(order.pace_ms / 1000, self._paced, order, frames, at + 1)
        else:
            self._tell_operators()

    def _tell_operators(self) -> None:
        """A gateway tells who subscribed to all sessions when a run is over, but not what was said."""
        scope = {"sessionKey": f"agent:{self._user}:main", "agentId": self._user}
        end = {"phase": "end", "runId": self._run, "hasActiveRun": False, "activeRunIds": []}
        for operator in self._gateway.operators:
            operator.send({"type": "event", "event": "sessions.changed", "payload": {**scope, **end}})


async def serve(port: int, password: str) -> None:
    gateway = Gateway(password)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(gateway), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), os.environ["LOADTEST_PASSWORD"]))
