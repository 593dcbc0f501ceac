"""Requests of our own on a connection of our own, and the events that come beside the answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sidecar.errors import GatewayAway
from sidecar.gateways.greeting import Upstream
from sidecar.protocol import frames
from sidecar.protocol.requests import encode
from sidecar.protocol.websocket import Message


class RequestRefused(GatewayAway):
    """The gateway answered a request of ours with an error; `error` is its error object, whose text is not for everybody."""

    def __init__(self, method: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"the gateway refused {method} ({error.get('code')})")
        self.error = error


class Rpc:
    """Takes over a greeted connection. `on_event` sees the raw bytes of every event, `on_read` how many frames came at once."""

    def __init__(
        self, upstream: Upstream, on_event: Callable[[bytes], None], on_read: Callable[[int], None] = lambda _: None
    ) -> None:
        self._wire = upstream.link.wire
        self._on_event = on_event
        self._on_read = on_read
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._closed = asyncio.get_running_loop().create_future()
        self._wire.receiver = self
        self.on_messages(iter(upstream.link.inbox.take_all()))
        if upstream.link.inbox.closed_with is not None:
            self.on_closed(upstream.link.inbox.closed_with)

    async def request(self, method: str, params: Mapping[str, Any], timeout: float = 30.0) -> Any:
        """The payload of the first answer. Raises RequestRefused where it is an error, GatewayAway where none comes."""
        if not self._wire.open:
            raise GatewayAway("the connection to the gateway is lost")
        request_id = str(next(self._ids))
        answer = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        try:
            self._wire.send(encode(request_id, method, dict(params)))
            async with asyncio.timeout(timeout):
                frame = await answer
        except TimeoutError:
            raise GatewayAway(f"the gateway did not answer {method} in {timeout:g} s") from None
        finally:
            self._waiting.pop(request_id, None)
        if frame.get("ok") is True:
            return frame.get("payload")
        error = frame.get("error")
        raise RequestRefused(method, error if isinstance(error, dict) else {})

    def close(self) -> None:
        self._wire.close(1000)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    def on_messages(self, messages: Iterator[Message]) -> None:
        count = 0
        for message in messages:
            count += 1
            raw = message.payload
            if frames.is_event(raw):
                self._on_event(raw)
                continue
            frame = frames.parse(raw) or {}
            waiting = self._waiting.get(str(frame.get("id")))
            if waiting is not None and not waiting.done():
                waiting.set_result(frame)
        if count:
            self._on_read(count)

    def on_writable(self, writable: bool) -> None:
        pass

    def on_closed(self, code: int) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(GatewayAway(f"the connection to the gateway was lost ({code})"))
        if not self._closed.done():
            self._closed.set_result(None)
