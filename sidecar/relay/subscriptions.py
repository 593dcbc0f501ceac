"""What one client's connection to its gateway is subscribed to: by the client itself, and by us for it.

A client that knows the capability `session-scoped-events` subscribes for itself, and we stay out of it. For every other one we
ask for the capability and subscribe (`sessions.messages.subscribe`) to what its user does, so that a gateway sends it its own
events and nobody else's. Both share one subscription on the gateway: ours is never sent where the client has its own, since it
would take the approvals out of that one, and a client that ends its own leaves ours in force. What comes for our sake alone is
kept from the client (`policy.unasked`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sidecar.errors import TooManyRequests
from sidecar.policy.responses import error_of_gateway
from sidecar.policy.rules import Rule
from sidecar.policy.table import MethodRow
from sidecar.policy.unasked import Reach, hidden_run, reach
from sidecar.protocol import frames
from sidecar.protocol.frames import UNREAD, Event
from sidecar.protocol.requests import OWN_ID_PREFIX, encode
from sidecar.protocol.session_events import SESSION_SCOPED, end_of_chat
from sidecar.protocol.websocket import Opcode
from sidecar.protocol.websocket import encode as encode_message
from sidecar.relay.audience import RECENT, WAIT_SECONDS
from sidecar.relay.scope import Scope
from sidecar.wire.wire import Wire

MOST = 256
"""Of our own subscriptions one connection has so many; the one that was not heard of for longest is given up."""

MOST_THEIRS = 1024
HIDDEN_SECONDS = 900.0
MOST_HIDDEN = 16
_SUBSCRIBE, _UNSUBSCRIBE = "sessions.messages.subscribe", "sessions.messages.unsubscribe"
_EVERYTHING = {"sessions.subscribe": True, "sessions.unsubscribe": False}
_OUR_ANSWER = b'{"type":"res","id":"' + OWN_ID_PREFIX.encode()

Answer = dict[str, Any]


class Listening:
    """Of one connection, from `begin` to `end`. `changed`: what the client gets is different from now on."""

    def __init__(self, scope: Scope, gateway: Wire, client: Wire) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.by_run: Callable[[bool], None] = lambda _: None
        """Called with True while some runs of a session are kept from the client and others are not."""

        self._scope = scope
        self._audience = scope.audience
        self._gateway = gateway
        self._client = client
        self._for_it = scope.audience is not None and SESSION_SCOPED not in scope.hello.caps
        self._ours: dict[str, asyncio.Future[None] | None] = {}
        """Session → what is to be waited for, None once it is in force. Least recently heard of first."""

        self._theirs: set[str] = set()
        self._everything = False
        self._coming: set[str] = set()
        """Sessions that the client has asked for and the gateway has not answered yet."""

        self._asked: dict[str, Callable[[Answer], None]] = {}
        """What the answer to a request means, by its id: ours, and the client's about subscriptions."""

        self._hidden: dict[str, float] = {}
        self._numbers = itertools.count(1)

    # --- its life -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Before the client's first request is sent on: listen to its main session, and to what its user did last."""
        if self._audience is None:
            return
        known = self._audience.join(self._scope.namespace.slug, self)
        if not self._for_it:
            return
        main = self._scope.namespace.main
        requests = [self._subscription(key) for key in (*(key for key in known or () if key != main), main)]
        if known is None:
            recent = {"agentId": self._scope.namespace.agent_id, "limit": RECENT}
            requests.append(self._request("sessions.list", recent, self._listed))
        self._send(*requests)

    def end(self) -> None:
        if self._audience is not None:
            self._audience.leave(self._scope.namespace.slug, self)
        self._for_it = False
        for future in self._ours.values():
            if future is not None and not future.done():
                future.set_result(None)

    def listen(self, key: str) -> asyncio.Future[None] | None:
        """As `audience.Listener` says."""
        if not self._for_it or key in self._theirs or key in self._coming:
            return None
        if key in self._ours:
            self._ours[key] = waiting = self._ours.pop(key)
            return waiting
        self._send(self._subscription(key), *self._given_up())
        return self._ours[key]

    def say(self, event: bytes) -> None:
        """As `audience.Listener` says."""
        self._client.send(event)

    # --- what the client asks for ---------------------------------------------------------------------------------------

    async def forwards(self, request_id: str, row: MethodRow, params: Mapping[str, Any]) -> bool:
        """Before a request is sent on. False where it need not be: we see to its answer. Raises TooManyRequests."""
        key = params.get("key")
        if self._for_it and row.name in _EVERYTHING:
            self._asked[request_id] = lambda answer: self._all_asked(answer, _EVERYTHING[row.name])
        elif self._for_it and row.name == _SUBSCRIBE and isinstance(key, str):
            self._ask(request_id, key)
        elif self._for_it and row.name == _UNSUBSCRIBE and isinstance(key, str):
            await self._unask(request_id, key)
            return False
        elif self._audience is not None:
            for begun in keys_begun(row, params):
                await self._audience.tell(self._scope.namespace.slug, begun)
        return True

    def takes(self, raw: bytes) -> bool:
        """Is this answer for us alone? Takes note of it, and of what the client's own subscriptions are answered."""
        ours = raw.startswith(_OUR_ANSWER)
        if ours or self._asked:
            noted = self._asked.pop(frames.response_id(raw) or "", None)
            if noted is not None:
                noted(frames.parse(raw) or {})
        return ours

    def _ask(self, request_id: str, key: str) -> None:
        if len(self._theirs) + len(self._coming) >= MOST_THEIRS:
            raise TooManyRequests(f"at most {MOST_THEIRS} sessions can be subscribed to; unsubscribe from some")
        self._coming.add(key)

        def answered(answer: Answer) -> None:
            self._coming.discard(key)
            if answer.get("ok") is True:
                self._theirs.add(key)
                self.changed()
            else:
                self.listen(key)

        self._asked[request_id] = answered

    async def _unask(self, request_id: str, key: str) -> None:
        """The client's subscription becomes ours in one step: between an end and a new begin events would be lost."""

        def answered(answer: Answer) -> None:
            if answer.get("ok") is True:
                self._theirs.discard(key)
                self._client.send(frames.response(request_id, {"subscribed": False, "key": key}))
                self.changed()
            else:
                self._client.send(frames.failure(request_id, error_of_gateway(answer.get("error"))))

        self._send(self._subscription(key, answered), *self._given_up())
        waiting = self._ours[key]
        if waiting is not None:
            await asyncio.wait([waiting], timeout=WAIT_SECONDS)

    def _all_asked(self, answer: Answer, wanted: bool) -> None:
        if answer.get("ok") is True:
            self._everything = wanted
            self.changed()

    # --- what the gateway sends -----------------------------------------------------------------------------------------

    def passes(self, event: Event, raw: bytes) -> tuple[bool, bool]:
        """May the client have an event of its user's? And is that so for all that begin like it?

        An answer that begins and ends in one event (a slash command, a queued message) is heard of here, others in `hear_end`.
        """
        key, name = event.session_key, event.name
        payload = _payload(event, raw) if name == "chat" else None
        over = self._ended(payload)
        if not self._for_it or key is None or key in self._theirs:
            shown, lasting = True, True
        elif name in {"chat", "agent"}:
            shown, lasting = self._shows(name, payload or _payload(event, raw)), True
        else:
            shown, lasting = self._reaches(name, event, raw), name != "sessions.changed" or self._everything
        if self._hidden.pop(over or "", None) is not None and not self._hidden:
            self.by_run(False)
        return shown, lasting

    def hear_end(self, raw: bytes) -> None:
        """An event that passed, and may be the last of its answer. The gateway tells us of the run's end too, but later."""
        frame = frames.parse(raw) or {}
        if frame.get("event") == "chat":
            self._ended(frame.get("payload"))

    def _ended(self, payload: Any) -> str | None:
        over = end_of_chat(payload)
        if over is not None:
            self._scope.runs.ended(self._scope.namespace.slug, over)
        return over

    def _reaches(self, name: str, event: Event, raw: bytes) -> bool:
        """Would a gateway have sent it without our subscription?"""
        told = reach(name, _payload(event, raw) if name == "sessions.changed" else None)
        return told is Reach.ANYBODY or (told is Reach.SESSIONS and self._everything)

    def _shows(self, name: str, payload: Any) -> bool:
        """Is this a run that a gateway shows to whoever did not subscribe?"""
        hidden = hidden_run(payload) if name == "agent" else None
        now = asyncio.get_running_loop().time()
        if hidden is not None:
            self._hidden[hidden] = now
            self.by_run(True)
        oldest = next(iter(self._hidden.items()), ("", now))
        if len(self._hidden) > MOST_HIDDEN or now - oldest[1] > HIDDEN_SECONDS:
            del self._hidden[oldest[0]]
        return not isinstance(payload, dict) or payload.get("runId") not in self._hidden

    # --- our requests ---------------------------------------------------------------------------------------------------

    def _subscription(self, key: str, also: Callable[[Answer], None] | None = None) -> bytes:
        future = asyncio.get_running_loop().create_future()
        self._ours.pop(key, None)
        self._ours[key] = future

        def answered(answer: Answer) -> None:
            if self._ours.get(key) is future:
                if answer.get("ok") is True:
                    self._ours[key] = None
                else:
                    del self._ours[key]  # asked for again when it is named again
            if not future.done():
                future.set_result(None)
            if also is not None:
                also(answer)

        return self._request(_SUBSCRIBE, {"key": key}, answered)

    def _given_up(self) -> Iterator[bytes]:
        while len(self._ours) > MOST:
            key = next(iter(self._ours))
            future = self._ours.pop(key)
            if future is not None and not future.done():
                future.set_result(None)
            if key not in self._theirs and key not in self._coming:
                yield self._request(_UNSUBSCRIBE, {"key": key}, lambda _: None)

    def _listed(self, answer: Answer) -> None:
        """The user's latest sessions, newest first as a gateway lists them."""
        payload = answer.get("payload")
        rows = payload.get("sessions") if isinstance(payload, dict) else None
        keys = [row.get("key") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        own = [key for key in keys if isinstance(key, str) and self._scope.namespace.owns(key)]
        if self._audience is not None:
            self._audience.hear(self._scope.namespace.slug, reversed(own[:RECENT]))

    def _request(self, method: str, params: dict[str, Any], answered: Callable[[Answer], None]) -> bytes:
        request_id = f"{OWN_ID_PREFIX}{next(self._numbers)}"
        self._asked[request_id] = answered
        return encode(request_id, method, params)

    def _send(self, *requests: bytes) -> None:
        """In one write: there are many of them when a client comes."""
        self._gateway.write(b"".join(encode_message(Opcode.TEXT, one, os.urandom(4)) for one in requests))


def _payload(event: Event, raw: bytes) -> Any:
    return event.payload if event.payload is not UNREAD else (frames.parse(raw) or {}).get("payload")


def keys_begun(row: MethodRow, params: Mapping[str, Any]) -> Iterator[str]:
    """The sessions in which a request may begin something. One that only reads makes nobody listen."""
    for name, rule in row.params.items():
        begins = rule is Rule.KEY or (rule is Rule.EXISTING_KEY and (row.starts_run or row.as_admin))
        if begins and isinstance(params.get(name), str):
            yield params[name]
