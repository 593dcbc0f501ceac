"""THE way of a frame, in both directions, once the handshake is over.

    client ─► ClientLeg ─► queue ─► forward: decode ─► policy ─► claim, admit ─► gateway
    client ◄── one write per read ◄── GatewayLeg: whose is it? ◄── gateway

Decisions are pure functions of `policy` and `protocol`; here they are obeyed. Both legs stop reading while the other cannot write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

from sidecar.errors import (
    DENIALS,
    ForeignKey,
    GatewayAway,
    MalformedFrame,
    QuotaExceeded,
    SidecarError,
    TooManyRequests,
    TooManyRuns,
)
from sidecar.policy import requests
from sidecar.policy.own import NOTHING
from sidecar.policy.responses import error_of_gateway, filtered
from sidecar.protocol import frames
from sidecar.protocol.handshake import MAX_ADMIN_FRAME_BYTES
from sidecar.protocol.requests import AnswerableFrame, Request, decode, encode
from sidecar.protocol.websocket import Message
from sidecar.quota.runs import new_run_id
from sidecar.relay.errands import Errands, refusal_notice, reset_notice, shown_as_banner
from sidecar.relay.events import EventPath
from sidecar.relay.scope import MAX_PENDING, Pending, Scope
from sidecar.relay.subscriptions import Listening
from sidecar.telemetry.facts import Denied, FramesRelayed, Report
from sidecar.wire.wire import Wire

QUEUE_FRAMES = 64
QUEUE_BYTES = 4 * 1024 * 1024
MOST_DENIALS = 50
DENIAL_SECONDS = 0.2
"""After so many denials each further one takes this long: a flood must not fill the audit log, the disk or Redis."""

SLOW_CLIENT = "slow"
_LIVE = frozenset({"started", "accepted", "in_flight"})
"""What `chat.send` and `agent` answer of a run whose end an event will tell (2026.9.6)."""

MAX_ACTS = 4
"""Of one connection at once, on the gateway connection that all users share."""


class Connection:
    """One client and the gateway connection that is made for it. `run()` returns the close code and a word why."""

    def __init__(self, scope: Scope, client: Wire, report: Report, *, slow_client_seconds: float) -> None:
        self.scope = scope
        self.client = client
        self.gateway = scope.upstream.link.wire
        self.report = report
        self._slow_client_seconds = slow_client_seconds
        self.denials = 0
        self.errands = Errands(scope, report)
        self.listening = Listening(scope, self.gateway, client)
        self._acts: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.up = _ClientLeg(self)
        self.down = _GatewayLeg(self)

    async def run(self, waiting: list[Message]) -> tuple[int, str]:
        """Relay until one side ends. `waiting`: what the client sent behind its `connect`."""
        inbox = self.scope.upstream.link.inbox
        self.client.receiver = self.up
        self.gateway.receiver = self.down
        for wire, leg in ((self.client, self.up), (self.gateway, self.down)):
            wire.greeted()
            if not wire.writable:
                leg.on_writable(False)
        forwarder = asyncio.create_task(self.up.forward())
        forwarder.add_done_callback(self._task_ended)
        self.listening.begin()
        try:
            if inbox.closed_with is not None:
                self.end(1012, "gateway")
            self.down.on_messages(iter(inbox.take_all()))
            self.up.on_messages(iter(waiting))
            return await self._ended
        finally:
            self.listening.end()
            for act in self._acts:
                act.cancel()
            forwarder.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await forwarder
            self.down.cancel_timer()

    def end(self, code: int, reason: str) -> None:
        """Begin to end, once: whoever comes first says why."""
        if not self._ended.done():
            self._ended.set_result((code, reason))

    def denied(self, method: str, error: SidecarError, request_id: str) -> None:
        self.denials += 1
        known = method if self.scope.table.knows_method(method) else "unknown"
        self.report(
            Denied(self.scope.connection_id, self.scope.principal.user_id, known, error.detail_code, request_id[:64])
        )

    async def act_as_admin(self, request: Request, params: dict[str, Any]) -> None:
        """Have the sidecar's own connection do what the gateway lets only admins do: all of it is the caller's already.

        Beside the frames that follow, since a compaction takes a minute; who has `MAX_ACTS` going on waits for one to end.
        """
        while len(self._acts) >= MAX_ACTS:
            await asyncio.wait(self._acts, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._act_as_admin(request, params))
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)
        task.add_done_callback(self._task_ended)

    async def _act_as_admin(self, request: Request, params: dict[str, Any]) -> None:
        scope = self.scope
        with scope.runs.holding(scope.namespace.slug, scope.pending[request.id].new_run):
            answer = await self.errands.as_admin(request.method, params, request.id)
        self.client.send(self.down.answered(request.id, answer))

    def pause_gateway(self, paused: bool) -> None:
        """The client cannot take more: its gateway connection waits, for so long."""
        if paused:
            self.gateway.pause()
            self.down.start_timer(self._slow_client_seconds)
        else:
            self.down.cancel_timer()
            self.gateway.resume()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.end(1011, type(task.exception()).__name__)


class _ClientLeg:
    """What the client writes. Frames wait in a bounded queue, since a claim may have to be awaited, and keep their order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._ready = asyncio.Event()
        self._paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._answerable = asyncio.Event()
        self._answerable.set()

    def on_messages(self, messages: Iterator[Message]) -> None:
        for message in messages:
            raw = message.payload
            self._queue.append(raw)
            self._queued_bytes += len(raw)
        if not self._paused and (len(self._queue) > QUEUE_FRAMES or self._queued_bytes > QUEUE_BYTES):
            self._paused = True
            self._connection.client.pause()
        self._ready.set()

    def on_writable(self, writable: bool) -> None:
        self._answerable.set() if writable else self._answerable.clear()
        self._connection.pause_gateway(not writable)

    def on_closed(self, code: int) -> None:
        self._connection.end(code, "client")

    def gateway_writable(self, writable: bool) -> None:
        self._writable.set() if writable else self._writable.clear()

    async def forward(self) -> None:
        """One frame after the other, until cancelled."""
        while True:
            while not self._queue:
                self._ready.clear()
                await self._ready.wait()
            await self._answerable.wait()  # who takes no answers is not listened to: refusals would pile up
            raw = self._queue.popleft()
            denials = self._connection.denials
            await self._one(raw)
            if self._connection.denials > max(denials, MOST_DENIALS):
                await asyncio.sleep(DENIAL_SECONDS)
            self._queued_bytes -= len(raw)
            if self._paused and len(self._queue) <= QUEUE_FRAMES // 2 and self._queued_bytes <= QUEUE_BYTES // 2:
                self._paused = False
                self._connection.client.resume()

    async def _one(self, raw: bytes) -> None:
        connection = self._connection
        try:
            request = decode(raw)
        except AnswerableFrame as error:
            connection.denied("unknown", error, error.request_id)
            connection.client.send(frames.refusal(error.request_id, error))
            return
        except MalformedFrame as error:
            connection.denied("unknown", error, "")
            connection.client.close(error.close_code, error.message)
            connection.end(error.close_code, error.detail_code)
            return
        try:
            sent = await self._decided(request)
        except SidecarError as error:
            if isinstance(error, DENIALS):
                connection.denied(request.method, error, request.id)
            connection.client.send(frames.refusal(request.id, error))
            return
        if sent is not None:
            await self._writable.wait()
            connection.gateway.send(sent)
            connection.report(FramesRelayed("up", 1, len(sent)))

    async def _decided(self, request: Request) -> bytes | None:
        """The bytes to send upstream; None where it was answered here. Raises SidecarError."""
        scope, errands = self._connection.scope, self._connection.errands
        if request.id in scope.pending:
            raise TooManyRequests("a request with this id is still being answered; each needs an id of its own")
        if len(scope.pending) >= MAX_PENDING:
            raise TooManyRequests(f"at most {MAX_PENDING} requests may wait for their answer; wait for some")
        decision = requests.decide(
            request.method,
            request.params,
            scope.namespace,
            scope.table,
            new_id=lambda: new_run_id(os.urandom),
            roles=scope.principal.roles,
            patched=scope.patched,
        )
        if isinstance(decision, requests.Answer):
            self._connection.client.send(frames.response(request.id, decision.payload))
            return None
        if decision.row.as_admin:
            if len(request.raw) > MAX_ADMIN_FRAME_BYTES:
                raise MalformedFrame(
                    f"'{request.method}' may have {MAX_ADMIN_FRAME_BYTES:,} bytes at most",
                    detail_code="FRAME_TOO_LARGE",
                )
            scope.still_open()
        params = await errands.own_ids(decision)
        if decision.reset and not params["message"]:
            await errands.reset(decision.reset, params["sessionKey"], request.id)
            self._connection.client.send(frames.response(request.id, {"runId": decision.new_run, "status": "started"}))
            self._connection.client.send(reset_notice(decision))
            return None
        begun = await self._begun(decision, params, request)
        if begun is None:
            return None
        params, new_run = begun
        if not await self._connection.listening.forwards(request.id, decision.row, params):
            return None
        scope.pending[request.id] = Pending(decision.row, new_run)
        if decision.row.as_admin:
            await self._connection.act_as_admin(request, params)
            return None
        changed = decision.changed or params is not decision.params
        return encode(request.id, request.method, params) if changed else request.raw

    async def _begun(
        self, decision: requests.Forward, params: dict[str, Any], request: Request
    ) -> tuple[dict[str, Any], str] | None:
        """As `Errands.begun`; None where a turn that does not fit was refused as its client shows it best."""
        connection = self._connection
        try:
            return await connection.errands.begun(decision, params, request.id)
        except (QuotaExceeded, TooManyRuns) as error:
            if not shown_as_banner(connection.scope.hello.client_id, decision):
                raise
            connection.denied(request.method, error, request.id)
            connection.client.send(frames.response(request.id, {"runId": decision.new_run, "status": "started"}))
            connection.client.send(refusal_notice(decision, error))
            return None


class _GatewayLeg(EventPath):
    """The gateway's side. Its events are for `EventPath`; here are its answers, and the end."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.scope, connection.client, connection.listening, connection.report)
        self._connection = connection
        self._timer: asyncio.TimerHandle | None = None

    def on_writable(self, writable: bool) -> None:
        self._connection.up.gateway_writable(writable)

    def on_closed(self, code: int) -> None:
        self._connection.end(code if code in {1001, 1012, 1013} else 1012, "gateway")

    def start_timer(self, seconds: float) -> None:
        self.cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._connection.end, 1013, SLOW_CLIENT)

    def cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def response(self, raw: bytes) -> bytes | None:
        scope = self._connection.scope
        request_id = frames.response_id(raw)
        if request_id is None or request_id not in scope.pending:
            return None
        frame = frames.parse(raw)
        if frame is None:
            del scope.pending[request_id]
            return frames.refusal(request_id, GatewayAway("the gateway's answer could not be read"))
        return self.answered(request_id, frame, raw)

    def answered(self, request_id: str, frame: dict[str, Any], raw: bytes = b"") -> bytes:
        """What the client gets for the gateway's answer `frame` to a request that waits for it; `raw`, where it may stay."""
        scope = self._connection.scope
        pending = scope.pending[request_id]
        self._settle(request_id, pending, frame)
        if frame.get("ok") is not True:
            return scope.in_own_words(frames.failure(request_id, error_of_gateway(frame.get("error"))))
        row = pending.row
        payload = filtered(row, frame.get("payload"), scope.namespace)
        if payload is NOTHING:
            foreign = ForeignKey("that is not yours, or not there")
            self._connection.denied(row.name, foreign, request_id)
            return frames.refusal(request_id, foreign)
        scope.learn(row, payload)
        unchanged = raw and payload is frame.get("payload")
        return scope.in_own_words(raw if unchanged else frames.response(request_id, payload))

    def _settle(self, request_id: str, pending: Pending, frame: dict[str, Any]) -> None:
        """Take the request off the list once its last answer is here.

        A run that was refused never counted, and one that ended before is only told of again (`status: ok`): no event follows.
        """
        scope = self._connection.scope
        payload = frame.get("payload")
        status = payload.get("status") if isinstance(payload, dict) else None
        if pending.row.responses == 1 or status != "accepted":
            del scope.pending[request_id]
        run_id = payload.get(pending.row.run) if pending.row.run and isinstance(payload, dict) else None
        if isinstance(run_id, str):  # the gateway has chosen it: it takes the place of the one that was counted
            scope.runs.started(scope.namespace.slug, run_id)
        if pending.new_run:
            if pending.row.run or frame.get("ok") is not True or status not in _LIVE:
                scope.runs.ended(scope.namespace.slug, pending.new_run)
            else:
                scope.runs.taken(scope.namespace.slug, pending.new_run)
        if isinstance(payload, dict) and payload.get("aborted") is True:
            # A run that is aborted before its first event has no last one either (2026.9.6).
            for run_id in _texts(payload.get("runIds")):
                scope.runs.ended(scope.namespace.slug, run_id)


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
