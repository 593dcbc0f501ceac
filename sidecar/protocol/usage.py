"""Model calls in a transcript: as a gateway tells of them (`session.message`) and as it lists them (`chat.history`).

One assistant message is one model call (2026.9.6, 2026.8.2):

    {"role": "assistant", "content": […], "provider": "…", "model": "…", "stopReason": "stop", "timestamp": <ms>,
     "usage": {"input", "output", "cacheRead", "cacheWrite", "totalTokens", "cost": {…, "total"}},
     "__openclaw": {"id": "…", "runId": "…", "recordTimestampMs": <ms>, "seq": n}}

What the gateway itself puts into a transcript (an aborted answer, a notice) comes as `openclaw` / `gateway-injected` with zeros.

Some messages are shown to nobody, though they cost like any other: an answer that says only `NO_REPLY`, or `HEARTBEAT_OK` and
little else, and in `chat.history` what is larger than 128 KiB. `session.message` is then `sessions.changed` with `phase:
"message"`, and `chat.history` leaves their place out; places (`seq`) count all messages from 1. `sessions.get` has them all, whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sidecar.domain.usage import Tokens
from sidecar.protocol import frames

INJECTED = "gateway-injected"
"""The model of messages that no model wrote."""

GATEWAY = "openclaw"
"""The provider of what the gateway itself puts into a transcript, a copy of what it sent elsewhere for one."""

UNFINISHED, FINISHED = frozenset({"error", "aborted"}), frozenset({"stop", "toolUse", "length"})
NOTICES = ("\N{WARNING SIGN}", "The agent run failed before")
"""So begins what a gateway says of a call that failed (2026.9.6, 2026.8.2); a blank line divides it from the model's own words."""

AFTER = "after:"
"""Before a message's id: the call that should have answered it, of which the transcript has nothing."""

MOST_PLACES = 1000
"""Of one page are looked for."""

MOST_TOKENS = 10**9
MOST_USD = 1_000_000
"""No call has or costs more; what is said to is not believed."""

_MESSAGE = b'{"type":"event","event":"session.message","payload":{'
_ASSISTANT = b'"role":"assistant"'
_CHANGED, _OF_A_MESSAGE = b'{"type":"event","event":"sessions.changed","payload":{', b'"phase":"message"'


@dataclass(frozen=True, slots=True)
class Reported:
    """What a transcript says of one model call."""

    message_id: str
    run_id: str
    """Empty where the message names none."""

    provider: str
    model: str
    tokens: Tokens
    cost_usd: Decimal | None
    """What the gateway reckons, USD; None where it has no price (it then writes 0, as for a call that is free)."""

    at: float
    """Unix seconds: when the gateway wrote it down."""

    stop_reason: str


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a transcript says of an answer without figures, though its text had been paid for: it was stopped, or failed, or its
    provider counts nothing."""

    message_id: str
    run_id: str
    text_chars: int
    at: float
    provider: str = ""
    model: str = ""
    """Empty, as `provider`, where the gateway itself ended it."""

    error: str = ""
    """Why it failed, as one word or status; empty where it did not."""

    uncounted: bool = False
    """It ended well, and its provider told no figures."""

    @property
    def wordless(self) -> bool:
        """Is it known only by the message that it did not come to answer?"""
        return self.message_id.startswith(AFTER)


def heard(raw: bytes) -> tuple[str, Reported | Unfinished] | None:
    """The session and the call of a `session.message` event; None for every other event."""
    if not raw.startswith(_MESSAGE) or _ASSISTANT not in raw:
        return None
    payload = (frames.parse(raw) or {}).get("payload")
    if not isinstance(payload, dict) or not isinstance(key := payload.get("sessionKey"), str):
        return None
    found = listed(payload.get("message"))
    return None if found is None else (key, found)


def unshown(raw: bytes) -> tuple[str, str] | None:
    """The session and the id of a message that an event tells of without showing it; None for every other event."""
    if not raw.startswith(_CHANGED) or _OF_A_MESSAGE not in raw:
        return None
    payload = (frames.parse(raw) or {}).get("payload")
    if not isinstance(payload, dict) or payload.get("phase") != "message":
        return None
    key, message_id = payload.get("sessionKey"), payload.get("messageId")
    return (key, message_id) if isinstance(key, str) and isinstance(message_id, str) and message_id else None


def left_out(messages: Sequence[Any], last: int, since: float, *, first: bool) -> set[int]:
    """The places of a page of `chat.history` that it does not show, from the first message that was written since (Unix seconds).

    `last`: the place that the page ends with; `first`: whether it begins with the first of all.
    """
    places = {place(message): message for message in messages}
    places.pop(0, None)
    low = 1 if first else min(places, default=last + 1)
    low = max([low, *(at + 1 for at, message in places.items() if written_at(message) < since)])
    shown = {at for at, message in places.items() if _object(message, "__openclaw").get("reason") != "oversized"}
    return set(range(max(low, last - MOST_PLACES + 1), last + 1)) - shown


def place(message: Any) -> int:
    """Where in its transcript it stands, from 1; 0 where it does not say."""
    return _count(_object(message, "__openclaw").get("seq")) if isinstance(message, dict) else 0


def written_at(message: Mapping[str, Any]) -> float:
    """Unix seconds; 0 where it does not say."""
    return (
        _number(_object(message, "__openclaw").get("recordTimestampMs")) or _number(message.get("timestamp"))
    ) / 1000


def listed(message: Any) -> Reported | Unfinished | None:
    """The call behind a message of a transcript; None where it is no call, or says nothing that can be counted."""
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return None
    stamp = _object(message, "__openclaw")
    message_id, run_id = stamp.get("id"), stamp.get("runId")
    if not isinstance(message_id, str) or not message_id:
        return None
    run_id = run_id if isinstance(run_id, str) else ""
    at = written_at(message)
    provider, model = message.get("provider"), message.get("model")
    if model == INJECTED:
        if _object(message, "openclawAbort").get("aborted") is not True:
            return None
        return Unfinished(message_id, run_id, len(_text(message.get("content"))), at)
    if not isinstance(provider, str) or not isinstance(model, str):
        return None
    tokens = _tokens(_object(message, "usage"))
    stop = message.get("stopReason")
    stop = stop if isinstance(stop, str) else ""
    if tokens is None:
        if stop not in UNFINISHED and (stop not in FINISHED or provider == GATEWAY):
            return None
        words, error = _text(message.get("content")), "error" if stop == "error" else ""
        if words.startswith(NOTICES):
            words = words.partition("\n\n")[2]
        return Unfinished(message_id, run_id, len(words), at, provider, model, error, stop in FINISHED)
    cost = _number(_object(message, "usage", "cost").get("total"))
    return Reported(
        message_id=message_id,
        run_id=run_id,
        provider=provider,
        model=model,
        tokens=tokens,
        cost_usd=Decimal(repr(cost)) if 0 < cost <= MOST_USD else None,
        at=at,
        stop_reason=stop,
    )


def unanswered(messages: Sequence[Any], run_id: str, began: float) -> Unfinished | None:
    """What a transcript shows of a run that ended while its model was at work, before the first word of an answer.

    `began`: Unix seconds; what a person says without an id of a run is the run's if it was said since. None where the last thing
    that the run left is an answer, or where tools were still at work. The id is that of the message that nobody answered.
    """
    open_tools, found = 0, None
    for message in messages:
        if not isinstance(message, dict):
            continue
        stamp, role = _object(message, "__openclaw"), message.get("role")
        at = written_at(message)
        if not _is_of(message, run_id) and (role != "user" or "idempotencyKey" in stamp or at < began):
            continue
        if role == "assistant":
            content = message.get("content")
            parts = content if isinstance(content, list) else []
            open_tools = sum(1 for part in parts if isinstance(part, dict) and part.get("type") == "toolCall")
            found = None
            continue
        open_tools = open_tools - 1 if role == "toolResult" else 0
        message_id = stamp.get("id")
        waits = open_tools <= 0 and isinstance(message_id, str) and message_id
        found = Unfinished(f"{AFTER}{message_id}", run_id, 0, at) if waits else None
    return found


def _is_of(message: Mapping[str, Any], run_id: str) -> bool:
    stamp = _object(message, "__openclaw")
    named = (stamp.get("runId"), stamp.get("idempotencyKey"), _object(message, "openclawAbort").get("runId"))
    return run_id in named or f"{run_id}:user" in named


def _tokens(usage: Mapping[str, Any]) -> Tokens | None:
    """None where there are no figures, or none but zeros: then nobody knows what the call took."""
    tokens = Tokens(*(_count(usage.get(name)) for name in ("input", "output", "cacheRead", "cacheWrite")))
    return tokens if tokens.total else None


def _count(value: Any) -> int:
    number = _number(value)
    return int(number) if number <= MOST_TOKENS else 0


def _number(value: Any) -> float:
    """0 for whatever is no amount."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return value if math.isfinite(value) and value > 0 else 0


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(text for part in parts if isinstance(part, dict) and isinstance(text := part.get("text"), str))


def _object(value: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    found: Any = value
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
