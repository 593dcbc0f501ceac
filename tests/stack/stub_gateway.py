"""A gateway's outside without its inside: the true handshake, answers from a table, events when told.

For what a real gateway cannot be made to do on demand: megabytes to a client that does not read, floods, a patched
`chat.send`. How a gateway behaves is tested against the real one alone. Shapes as seen on 2026.9.6.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from aiohttp import WSMsgType, web

from tests.stack.gateway import SESSION_TOOLS, USER_HEADER, Gateway, GatewayOptions, merge

Frame = dict[str, Any]
Handler = Callable[["StubConnection", Frame], Awaitable[Any]]
"""Gets a request frame and returns the payload of its answer, or None where it answers by itself or not at all."""


class StubConnection:
    """One connection that a sidecar made."""

    def __init__(self, socket: web.WebSocketResponse, user: str) -> None:
        self.user = user
        """The slug in the user header; empty on the sidecar's own connection."""
        self.requests: list[Frame] = []
        self.sent_bytes = 0
        """Of events; a `send` returns once the other side takes more."""
        self.closed = asyncio.Event()
        self.socket = socket
        self._seq = 0

    async def answer(self, request: Frame, payload: Any) -> None:
        await self._write({"type": "res", "id": request["id"], "ok": True, "payload": payload})

    async def refuse(self, request: Frame, code: str, message: str) -> None:
        error = {"code": code, "message": message}
        await self._write({"type": "res", "id": request["id"], "ok": False, "error": error})

    async def event(self, name: str, payload: Any, *, sequenced: bool = True) -> None:
        """Raises ConnectionResetError once the sidecar is gone."""
        frame = {"type": "event", "event": name, "payload": payload}
        if sequenced:
            self._seq += 1
            frame["seq"] = self._seq
        self.sent_bytes += await self._write(frame)

    async def _write(self, frame: Frame) -> int:
        text = json.dumps(frame, separators=(",", ":"))
        await self.socket.send_str(text)
        return len(text)


class StubGateway:
    """`async with StubGateway() as stub:`; `stub.gateway(folder)` is what `SidecarOptions` takes."""

    def __init__(self) -> None:
        self.port = 0
        self.password = secrets.token_hex(16)
        self.config: Frame = {"agents": {"defaults": {"model": "fake/fake-1"}}, "tools": SESSION_TOOLS["closed"]}
        self.connections: list[StubConnection] = []
        """Past hello and open, oldest first."""
        self.upgrades = 0
        """Upgrade requests seen, whatever became of them."""
        self.handlers: dict[str, Handler] = {
            "config.get": self._get_config,
            "config.patch": self._patch_config,
            "chat.send": _started,
        }
        """Any other method is answered with an empty object."""
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in list(self.connections):
            await connection.socket.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    def gateway(self, folder: Path) -> Gateway:
        """The address and the secrets in the form of a real one; nothing of it runs."""
        gateway = Gateway(GatewayOptions(folder=folder, model_url="", workspaces=folder / "workspaces"))
        gateway.port, gateway.password = self.port, self.password
        gateway.workspaces.mkdir(parents=True, exist_ok=True)
        return gateway

    def of(self, user: str) -> list[StubConnection]:
        return [connection for connection in self.connections if connection.user == user]

    def go_on(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do this beside the answer; ends with the stub, or once its connection is gone."""

        async def run() -> None:
            with contextlib.suppress(ConnectionError):
                await work()

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.asynccontextmanager
    async def handling(self, method: str, handler: Handler) -> AsyncIterator[None]:
        """`handler` answers `method` for so long."""
        before = self.handlers.get(method)
        self.handlers[method] = handler
        try:
            yield
        finally:
            del self.handlers[method]
            if before is not None:
                self.handlers[method] = before

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        self.upgrades += 1
        socket = web.WebSocketResponse(compress=False, max_msg_size=0, autoping=True)
        await socket.prepare(request)
        challenge = {"nonce": secrets.token_hex(16), "ts": int(time.time() * 1000)}
        await socket.send_str(json.dumps({"type": "event", "event": "connect.challenge", "payload": challenge}))
        connection = StubConnection(socket, request.headers.get(USER_HEADER, ""))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(connection, json.loads(message.data))
        except ConnectionError:
            pass
        finally:
            connection.closed.set()
            with contextlib.suppress(ValueError):
                self.connections.remove(connection)
        return socket

    async def _take(self, connection: StubConnection, request: Frame) -> None:
        connection.requests.append(request)
        if request["method"] == "connect":
            self.connections.append(connection)
            await connection.answer(request, self._hello())
            return
        handler = self.handlers.get(request["method"], _nothing)
        payload = await handler(connection, request)
        if payload is not None:
            await connection.answer(request, payload)

    def _hello(self) -> Frame:
        return {
            "type": "hello-ok",
            "protocol": 4,
            "server": {"version": "2026.9.6", "connId": secrets.token_hex(8)},
            "features": {"methods": sorted(self.handlers), "events": ["chat", "agent", "tick"]},
            "snapshot": {"presence": [], "health": {}, "stateVersion": {"presence": 1, "health": 1}},
            "auth": {"role": "operator", "scopes": ["operator.read", "operator.write"]},
            "policy": {"maxPayload": 26_214_400, "maxBufferedBytes": 52_428_800, "tickIntervalMs": 30_000},
        }

    async def _get_config(self, _: StubConnection, __: Frame) -> Frame:
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()
        return {"hash": digest, "config": self.config, "sourceConfig": self.config}

    async def _patch_config(self, _: StubConnection, request: Frame) -> Frame:
        self.config = merge(self.config, json.loads(request["params"]["raw"]))
        return {"ok": True}


async def _nothing(_: StubConnection, __: Frame) -> Frame:
    return {}


async def _started(_: StubConnection, request: Frame) -> Frame:
    return {"runId": request["params"]["idempotencyKey"], "status": "started"}


@dataclass(frozen=True, slots=True)
class Start:
    """A method that starts a run."""

    session: str
    """The parameter that names the session."""

    run_id: str
    """The one that names the run; empty: the gateway does, in its answer."""

    known: Collection[str]
    """All that a released gateway takes (of `agent`, what users may send): `@openclaw/gateway-protocol` 2026.9.1."""


_SENT = {"key", "agentId", "message", "thinking", "attachments", "timeoutMs", "idempotencyKey"}
STARTS: dict[str, Start] = {
    "chat.send": Start("sessionKey", "idempotencyKey", {
        "sessionKey", "agentId", "sessionId", "message", "intent", "thinking", "fastMode", "fastAutoOnSeconds", "queueMode",
        "deliver", "originatingChannel", "originatingTo", "originatingAccountId", "originatingThreadId", "replyToId",
        "attachments", "toolBindings", "timeoutMs", "systemInputProvenance", "systemProvenanceReceipt",
        "suppressCommandInterpretation", "expectedLeafEntryId", "expectedSessionRoutingContract", "expectedPermissionMode",
        "expectedToolOverrides", "idempotencyKey",
    }),
    "agent": Start("sessionKey", "idempotencyKey", {
        "sessionKey", "agentId", "message", "thinking", "attachments", "timeout", "label", "idempotencyKey",
    }),
    "sessions.send": Start("key", "idempotencyKey", _SENT),
    "sessions.steer": Start("key", "idempotencyKey", _SENT),
    "sessions.create": Start("key", "", {
        "agentId", "attachments", "catalogId", "category", "contextWindow", "cwd", "displayName", "emitCommandHooks", "execNode",
        "fastMode", "fork", "forkFrom", "idempotencyKey", "incognito", "key", "label", "message", "model", "parentSessionKey",
        "permissionMode", "projectGitUrl", "projectId", "spawnDepth", "succeedsParent", "task", "thinkingLevel",
        "toolOverrides", "visibility", "worktree", "worktreeBaseRef", "worktreeName",
    }),
    "sessions.goal.update": Start("sessionKey", "operationId", {
        "action", "agentId", "goalId", "issuedAtMs", "note", "objective", "operationId", "sessionKey",
    }),
}  # fmt: skip

PATCHED_PARAMS = frozenset({"workspaceDir", "authProfileId"})


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as a gateway took it."""

    user: str
    method: str
    key: str
    run_id: str
    workspace: str
    """Empty on a gateway that was not patched: that of the agent."""

    profile: str


class RunningGateway(StubGateway):
    """A stub whose runs answer at once with where they work. Params are checked as a gateway does it: an unknown one is refused.

    `patched`: takes `workspaceDir` (an absolute path, no `..`) and `authProfileId` (a name) with each run, keeps them with the
    session, and refuses a session's later run that names others. As a gateway does, it tells every connection of every run.
    """

    def __init__(self, *, patched: bool) -> None:
        super().__init__()
        self.patched = patched
        self.runs: list[Run] = []
        self._kept: dict[str, tuple[str, str]] = {}
        for method in STARTS:
            self.handlers[method] = self._run

    def keep(self, key: str, workspace: str, profile: str) -> None:
        """This session works there already."""
        self._kept[key] = (workspace, profile)

    async def _run(self, connection: StubConnection, request: Frame) -> Frame | None:
        method, params, start = request["method"], request["params"], STARTS[request["method"]]
        wrong = self._wrong(params, start)
        key, place = params.get(start.session), (params.get("workspaceDir", ""), params.get("authProfileId", ""))
        if not wrong and self._kept.setdefault(key, place) != place:
            wrong = f"session {key} works in {self._kept[key][0]}"
        if wrong:
            await connection.refuse(request, "INVALID_REQUEST", f"invalid {method} params: at root: {wrong}")
            return None
        run_id = params[start.run_id] if start.run_id else f"gateways-{len(self.runs)}"
        run = Run(connection.user, method, key, run_id, *place)
        self.runs.append(run)
        self.go_on(lambda: self._tell(run))
        return {"ok": True, "runId": run_id, "status": "started", "runStarted": True, "key": key, "sessionKey": key}

    def _wrong(self, params: Frame, start: Start) -> str:
        unknown = sorted(set(params) - {*start.known, *(PATCHED_PARAMS if self.patched else ())})
        if unknown:
            return f"unexpected property '{unknown[0]}'"
        if start.run_id and not params.get(start.run_id):
            return f"must have required property '{start.run_id}'"
        if not self.patched:
            return ""
        place, profile = params.get("workspaceDir"), params.get("authProfileId")
        if not isinstance(place, str) or not place.startswith("/") or ".." in PurePosixPath(place).parts:
            return f"workspaceDir {place!r} is no absolute path"
        return "" if isinstance(profile, str) and profile else "authProfileId is no name"

    async def _tell(self, run: Run) -> None:
        message = {"role": "assistant", "content": [{"type": "text", "text": f"in {run.workspace} as {run.profile}"}]}
        payload = {"runId": run.run_id, "sessionKey": run.key, "agentId": run.key.split(":")[1], "state": "final"}
        for connection in self.connections:
            await connection.event("chat", {**payload, "message": message})
