"""The events of a gateway on their way to one client: whose are they, may the client have them, and under which number?

What passes unchanged is one slice of the bytes that came; what was kept back closes the numbers up behind it.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator

from sidecar.policy import events
from sidecar.policy.events import Verdict
from sidecar.policy.own import NOTHING
from sidecar.protocol import frames
from sidecar.protocol.frames import Event, has_agent_tail
from sidecar.protocol.session_events import may_end_chat
from sidecar.protocol.websocket import Message
from sidecar.relay.batch import Batch
from sidecar.relay.heads import Heads, Judged
from sidecar.relay.scope import Scope
from sidecar.relay.subscriptions import Listening
from sidecar.telemetry.facts import EventDropped, FramesKeptBack, FramesRelayed, Report
from sidecar.wire.wire import Wire


class EventPath(abc.ABC):
    """What a gateway writes on one connection: judged frame by frame, sent on by one write per read."""

    def __init__(self, scope: Scope, client: Wire, listening: Listening, report: Report) -> None:
        self._scope = scope
        self._client = client
        self._listening = listening
        self._report = report
        self._kept_back = 0
        self._heads = Heads()
        self._dropped: dict[tuple[str, str], int] = {}
        listening.changed = self._heads.forget
        listening.by_run = lambda wanted: self._heads.look_at_tails(not wanted)

    @abc.abstractmethod
    def response(self, raw: bytes) -> bytes | None:
        """What the client gets for a frame that is no event; None where nothing."""

    def on_messages(self, messages: Iterator[Message]) -> None:
        batch, scope, heads = Batch(), self._scope, self._heads
        for message in messages:
            buffer, start, end = message.buffer, message.start, message.end
            if buffer.startswith(heads.head, start, end):
                self._look_for_end(message)
            elif not has_agent_tail(buffer, start, end, heads.tail):
                self._judged(batch, message)
                continue
            if scope.behind or scope.aliases:
                self._passed(batch, message)
            else:
                batch.same(message)
        if self._dropped:
            self._tell_dropped()
        if batch.frames:
            data = batch.bytes()
            self._client.write(data)
            self._report(FramesRelayed("down", batch.frames, len(data)))
        if self._kept_back:
            self._report(FramesKeptBack(self._kept_back))
            self._kept_back = 0

    def _judged(self, batch: Batch, message: Message) -> None:
        judged = self._heads.find(message.buffer, message.start, message.end)
        if judged is None:
            raw = message.payload
            sent = self._event(raw) if frames.is_event(raw) else self._answer(raw)
            if sent is raw:
                batch.same(message)
            elif sent is not None:
                batch.other(sent)
        elif judged.verdict is Verdict.PASS:
            self._look_for_end(message)
            self._passed(batch, message)
        else:
            self._drop(judged, message.buffer, message.start, message.end)

    def _look_for_end(self, message: Message) -> None:
        """Of an event that begins with the last head that passed."""
        if may_end_chat(message.buffer, message.start + len(self._heads.head), message.end):
            self._listening.hear_end(message.payload)

    def _answer(self, raw: bytes) -> bytes | None:
        sent = None if self._listening.takes(raw) else self.response(raw)
        self._kept_back += sent is None
        return sent

    def _passed(self, batch: Batch, message: Message) -> None:
        """An event whose content stays: only its number and the run's name may be ours."""
        scope = self._scope
        if scope.aliases:
            raw = message.payload
            sent = scope.in_own_words(frames.resequence(raw, scope.behind))
            batch.same(message) if sent is raw else batch.other(sent)
            return
        buffer = message.buffer
        digits = frames.sequence_digits(buffer, message.start, message.end) if scope.behind else None
        if digits is None:
            batch.same(message)
        else:
            start, end = digits
            batch.spliced(message, start, end, b"%d" % (int(buffer[start:end]) - scope.behind))

    def _event(self, raw: bytes) -> bytes | None:
        """`raw` itself where nothing changes, other bytes where something does, None where it is dropped."""
        scope = self._scope
        scanned = frames.scan_event(raw) or frames.scan_agent_event(raw)
        event = scanned[0] if scanned else frames.read_event(raw)
        judged, lasting = self._verdict(event, raw)
        if scanned and lasting and judged.verdict is not Verdict.REWRITE:
            self._heads.learn(scanned[1], judged)
        if event is not None and judged.verdict is Verdict.REWRITE:
            rewritten = self._rewritten(raw, event.name)
            if rewritten is None:
                judged = Judged(Verdict.FOREIGN, (event.name, Verdict.FOREIGN.value))
            else:
                raw = rewritten
        if judged.verdict in {Verdict.FOREIGN, Verdict.UNLISTED, Verdict.UNASKED}:
            self._drop(judged, raw, 0, len(raw))
            return None
        return scope.in_own_words(frames.resequence(raw, scope.behind))

    def _verdict(self, event: Event | None, raw: bytes) -> tuple[Judged, bool]:
        """What is found of the event, and whether all that begin alike are the same."""
        scope, lasting = self._scope, True
        verdict = events.judge(event, scope.namespace, scope.table) if event else Verdict.UNLISTED
        if event is not None and verdict in {Verdict.PASS, Verdict.REWRITE}:
            passes, lasting = self._listening.passes(event, raw)
            verdict = verdict if passes else Verdict.UNASKED
        known = event.name if event and scope.table.passes_event(event.name) else "unlisted"
        return Judged(verdict, (known, verdict.value)), lasting

    def _drop(self, judged: Judged, buffer: bytes, start: int, end: int) -> None:
        if frames.sequence_digits(buffer, start, end) is not None:
            self._scope.behind += 1
        self._dropped[judged.counted_as] = self._dropped.get(judged.counted_as, 0) + 1

    def _tell_dropped(self) -> None:
        for (event, reason), count in self._dropped.items():
            self._kept_back += count
            self._report(EventDropped(event, reason, count))
        self._dropped.clear()

    def _rewritten(self, raw: bytes, name: str) -> bytes | None:
        """The event with what of it is the caller's; None where nothing is."""
        scope = self._scope
        frame = frames.parse(raw) or {}
        payload = frame.get("payload")
        claimed = events.claimed(name, payload, scope.table)
        known = claimed is not None and scope.handles.is_known(*claimed, scope.namespace.slug)
        payload = events.rewrite(name, payload, scope.namespace, scope.table, known=known)
        if payload is NOTHING:
            return None
        scope.learn(scope.table.events[name], payload)
        return frames.dump({**frame, "payload": payload})
