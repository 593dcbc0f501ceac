"""Events that say whose they are by the same bytes as one that was judged before: the same bytes, the same verdict.

The events of a run differ only in what they say, so looking these bytes up replaces reading the frame, a tenth of the cost. In a
`chat` event they are its head, in most `agent` events they stand behind the data. Only bytes that a scan vouches for are kept
(`frames.scan_event`, `frames.scan_agent_event`): nothing else in the frame could have changed the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.policy.events import Verdict
from sidecar.protocol.frames import agent_tail

LIMIT = 256
"""Of them one connection keeps so many; beyond it all are forgotten."""

REACH = 1024
"""Bytes within which an `agentId` must stand to be looked up."""

_AGENT = b'"agentId":"'
_NONE = b"\0"


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of an event."""

    verdict: Verdict
    counted_as: tuple[str, str]
    """The event's name and the reason, as metrics know them where it is dropped."""


class Heads:
    """Of one connection: what a verdict depends on besides these bytes is fixed there, or ends with `forget`."""

    __slots__ = ("_known", "_tails", "head", "tail")

    def __init__(self) -> None:
        self.head = _NONE
        """Of the last event that passed; no frame holds it before there was one."""

        self.tail = _NONE
        """The same for `agent` events."""

        self._known: dict[bytes, Judged] = {}
        self._tails = True

    def forget(self) -> None:
        """What the verdicts depended on is different now."""
        self._known.clear()
        self.head = self.tail = _NONE

    def look_at_tails(self, wanted: bool) -> None:
        """A tail says whose an event is, not of which run: while runs of one session are judged differently, it says too little."""
        if wanted != self._tails:
            self._tails = wanted
            self.forget()

    def find(self, buffer: bytes, start: int, end: int) -> Judged | None:
        """What was found of such an event as `buffer[start:end]`; None where it is the first."""
        tail = agent_tail(buffer, start, end)
        if tail is not None:
            if not self._tails:
                return None
            judged = self._known.get(tail)
            if judged is not None and judged.verdict is Verdict.PASS:
                self.tail = tail
            return judged
        at = buffer.find(_AGENT, start, min(end, start + REACH))
        if at < 0:
            return None
        # Up to the comma or brace behind the value, as the scan reads it.
        head = buffer[start : buffer.find(b'"', at + len(_AGENT), end) + 2]
        judged = self._known.get(head)
        if judged is not None and judged.verdict is Verdict.PASS:
            self.head = head
        return judged

    def learn(self, evidence: bytes, judged: Judged) -> None:
        """`evidence`: as the scan gave it."""
        if len(self._known) >= LIMIT:
            self._known.clear()
        if self._tails or evidence.startswith(b"{"):
            self._known[evidence] = judged
