"""A small operator client of the gateway protocol: one WebSocket, every frame kept.

For looking at a gateway directly as its admin (`RawClient.admin`), and for being any client towards any URL.
The shape of `connect` is `ConnectParams` of `@openclaw/gateway-protocol` 2026.9.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp

from tests.stack.gateway import Gateway

Frame = dict[str, Any]

ADMIN_SCOPES = (
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.questions",
)
TIMEOUT_S = 60.0
MAX_FRAME = 25 * 1024 * 1024


class RequestError(Exception):
    """The gateway answered `ok: false`; `error` is its error object."""

    def __init__(self, method: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"{method}: {error.get('code')}: {error.get('message')}")
        self.method = method
        self.error = dict(error)

    @property
    def code(self) -> str:
        return str(self.error.get("code"))

    @property
    def detail_code(self) -> str:
        return str((self.error.get("details") or {}).get("code"))


class SupersededError(RequestError):
    """The gateway changed its roster of agents while it prepared the turn."""


class ClosedError(Exception):
    """The socket closed while something was awaited on it."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class RawClient:
    """Made by `connect` or `admin`; a context manager by both."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.frames: list[Frame] = []
        """Everything received, parsed, in order."""
        self.received: list[str] = []
        """The same as it came, for leak searches."""
        self.hello: Frame = {}
        self.close_reason = ""
        """What the other side said when it closed."""
        self._session = session
        self._socket = socket
        self._arrived = asyncio.Condition()
        self._closed = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, headers: Mapping[str, str] | None = None, **options: Any) -> AsyncIterator[RawClient]:
        """A socket without a `connect`. Raises aiohttp.WSServerHandshakeError when the upgrade is refused."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, headers=headers, max_msg_size=MAX_FRAME, **options) as socket,
        ):
            client = cls(session, socket)
            try:
                yield client
            finally:
                await client.close()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        url: str,
        auth: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **params: Any,
    ) -> AsyncIterator[RawClient]:
        """A socket past hello; `params` as in `connect_params`. Raises RequestError when it is refused."""
        async with cls.open(url, headers) as client:
            await client.greet(connect_params(auth, **params))
            yield client

    @classmethod
    def admin(cls, gateway: Gateway, **params: Any) -> contextlib.AbstractAsyncContextManager[RawClient]:
        """The gateway's own admin, without a device: by shared token, or by password behind a proxy."""
        auth = {"token": gateway.token} if gateway.token else {"password": gateway.password}
        return cls.connect(gateway.url, auth, **{"scopes": list(ADMIN_SCOPES), **params})

    @property
    def events(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.get("type") == "event"]

    def has_no_gap(self) -> bool:
        """The events that are numbered, of which there are some, run from 1 without a gap."""
        numbers = [frame["seq"] for frame in self.events if "seq" in frame]
        return bool(numbers) and numbers == list(range(1, len(numbers) + 1))

    @property
    def close_code(self) -> int | None:
        return self._socket.close_code

    async def greet(self, params: Mapping[str, Any]) -> Frame:
        """Wait for the challenge, send `connect`, return the payload of hello."""
        await self.wait_for(lambda frame: frame.get("event") == "connect.challenge")
        self.hello = await self.request("connect", params)
        return self.hello

    async def request(self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float = TIMEOUT_S) -> Any:
        """The payload of the first response. Raises RequestError, ClosedError, TimeoutError."""
        request_id = await self.send(method, params)
        answer = await self.wait_for(is_response(request_id), timeout=timeout)
        if not answer.get("ok"):
            raise RequestError(method, answer.get("error") or {})
        return answer.get("payload")

    async def send(self, method: str, params: Mapping[str, Any] | None = None) -> str:
        """Send a request without waiting; its id."""
        request_id = str(uuid.uuid4())
        frame = {"type": "req", "id": request_id, "method": method, "params": dict(params or {})}
        await self.send_text(json.dumps(frame))
        return request_id

    async def send_text(self, text: str) -> None:
        await self._socket.send_str(text)

    async def chat(self, session_key: str, message: str, *, timeout: float = TIMEOUT_S, **params: Any) -> str:
        """Run one turn; the text of its final `chat` event. Raises RequestError when the turn fails.

        Again where the gateway took in new agents meanwhile: such a turn ends before it reaches the model (2026.9.6).
        """
        for _ in range(2):
            with contextlib.suppress(SupersededError):
                return await self._turn(session_key, message, timeout, params)
        return await self._turn(session_key, message, timeout, params)

    async def _turn(self, session_key: str, message: str, timeout: float, params: Mapping[str, Any]) -> str:
        run_id = params.get("idempotencyKey") or str(uuid.uuid4())
        since = len(self.frames)
        asked = {"sessionKey": session_key, "message": message, **params, "idempotencyKey": run_id}
        run_id = (await self.request("chat.send", asked, timeout=timeout))["runId"]
        final = await self.wait_for(is_end_of(run_id), timeout=timeout, since=since)
        payload = final["payload"]
        if payload["state"] != "final":
            error = {"code": payload["state"], "message": payload.get("errorMessage")}
            again = "generation was superseded" in str(payload.get("errorMessage"))
            raise SupersededError("chat.send", error) if again else RequestError("chat.send", error)
        return text_of(payload.get("message") or {})

    async def wait_for(
        self, predicate: Callable[[Frame], bool], *, timeout: float = TIMEOUT_S, since: int = 0
    ) -> Frame:
        """The first received frame from index `since` on that satisfies. Raises TimeoutError or
        ClosedError."""
        position = since
        async with asyncio.timeout(timeout), self._arrived:
            while True:
                for frame in self.frames[position:]:
                    if predicate(frame):
                        return frame
                position = max(position, len(self.frames))
                if self._closed:
                    raise ClosedError(self.close_code)
                await self._arrived.wait()

    async def wait_closed(self, timeout: float = TIMEOUT_S) -> int | None:
        """Wait until the other side closes; its close code."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(lambda: self._closed)
        return self.close_code

    async def close(self) -> None:
        await self._socket.close()
        await self._reader

    async def _read(self) -> None:
        while (message := await self._socket.receive()).type is aiohttp.WSMsgType.TEXT:
            async with self._arrived:
                self.received.append(message.data)
                self.frames.append(json.loads(message.data))
                self._arrived.notify_all()
        async with self._arrived:
            self.close_reason = str(message.extra or "") if message.type is aiohttp.WSMsgType.CLOSE else ""
            self._closed = True
            self._arrived.notify_all()


def connect_params(auth: Mapping[str, str] | None = None, **over: Any) -> Frame:
    """`connect` of a `gateway-client`/`backend` without a device; `over` replaces top-level fields."""
    params: Frame = {
        "minProtocol": 3,
        "maxProtocol": 4,
        "client": {"id": "gateway-client", "version": "1.0.0", "platform": "linux", "mode": "backend"},
        "role": "operator",
        "scopes": ["operator.read", "operator.write"],
        "caps": [],
    }
    return params | ({"auth": dict(auth)} if auth else {}) | over


def is_response(request_id: str) -> Callable[[Frame], bool]:
    return lambda frame: frame.get("type") == "res" and frame.get("id") == request_id


def is_end_of(run_id: str) -> Callable[[Frame], bool]:
    """A `chat` event that ends `run_id`: final, aborted or error."""

    def ends(frame: Frame) -> bool:
        payload = frame.get("payload") or {}
        return (
            frame.get("event") == "chat"
            and payload.get("runId") == run_id
            and payload.get("state") in {"final", "aborted", "error"}
        )

    return ends


def text_of(message: Mapping[str, Any]) -> str:
    """The text blocks of a chat message, joined."""
    content = message.get("content", "")
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content if isinstance(block, dict))


async def patch_config(admin: RawClient, patch: Mapping[str, Any]) -> None:
    """Merge `patch` into the gateway's configuration; again where the sidecar wrote at that moment.

    Raises RequestError (30 a minute are allowed).
    """
    for attempt in range(1, 11):
        base = await admin.request("config.get")
        try:
            await admin.request("config.patch", {"raw": json.dumps(patch), "baseHash": base["hash"]})
        except RequestError as refused:
            if attempt == 10 or "changed since last load" not in str(refused):
                raise
            await asyncio.sleep(0.5)
        else:
            return


async def add_agents(admin: RawClient, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Add agents as they are given, open where nothing closes them.

    A gateway that has only its implicit agent refuses a second one without `agents.ownership`; it then writes `main`
    into the entries by itself (2026.8.2, 2026.9.6).
    """
    await patch_config(admin, {"agents": {"ownership": "explicit", "entries": {**entries}}})
