"""A gateway's frame, looked at without being written again, and the frames that we write ourselves.

The gateway writes `JSON.stringify` of fixed shapes (2026.9.6, every event of a session with chat, tools, abort and failure):

    {"type":"event","event":"chat","payload":{"runId":"…","sessionKey":"agent:…","agentId":"…",…},"seq":21}
    {"type":"res","id":"…","ok":true,"payload":{…}}

Small frames are parsed: that is quicker than any expression. Large ones have their head scanned by an expression that is
anchored at the first byte and walks over flat members only, so it cannot end up inside a nested object or a string; where it
does not match, they are parsed too.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import orjson

from sidecar.errors import SidecarError

SMALL = 1500
"""Bytes up to which parsing (0.8 µs at 300 bytes) beats scanning (1 µs at any size)."""

_SCALAR = rb'(?:"[^"\\]{0,256}+"|-?[0-9][0-9.eE+-]*+|true|false|null)'
_SKIPPED = rb'(?:(?!"sessionKey":|"agentId":)"[^"\\]{1,64}+":' + _SCALAR + rb",){0,16}+"
_SCOPED = re.compile(
    rb'\{"type":"event","event":"([^"\\]++)","payload":\{'
    + (_SKIPPED + rb'"sessionKey":"([^"\\]*+)",' + _SKIPPED + rb'"agentId":"([^"\\]*+)"[,}]')
)
_EVENT = b'{"type":"event",'
_AGENT_EVENT = b'{"type":"event","event":"agent","payload":{'
_BEHIND_DATA = b'},"sessionKey":"'
# Without `true`: what says it of itself (`isHeartbeat`) is read whole, since its verdict may be another than its session's.
_FLAT = rb'(?:,"[^"\\]++":(?:"[^"\\]*+"|[0-9.]++|false|null))*+'
_AGENT_END = rb"\d++" + _FLAT + rb"\}" + _FLAT + rb"\}\Z"
_AGENT_TAIL = re.compile(rb'(\},"sessionKey":"[^"\\]*+","agentId":"[^"\\]*+","seq":)' + _AGENT_END)
_BEHIND_TAIL = re.compile(_AGENT_END)
_RESPONSE = re.compile(rb'\{"type":"res","id":"([^"\\]*+)"')
_SEQ = b',"seq":'
_AFTER_SEQ = re.compile(rb'(\d{1,15})(?:,"[^"\\]++":(?:"[^"\\]*+"|\d++|\{[^{}"]*+(?:"[^"\\]*+"[^{}"]*+)*+\}))*+\}\Z')
_TAIL_LENGTH = 240
_AGENT_TAIL_LENGTH = 800


class Event(NamedTuple):
    """An event frame of a gateway, read as far as needed. `session_key` and `agent_id` as the payload's top level says."""

    name: str
    session_key: str | None
    agent_id: str | None
    payload: Any
    """The parsed payload, or `UNREAD`."""


UNREAD: Any = object()


def read_event(raw: bytes) -> Event | None:
    """The event in `raw`; None where the frame is no event. A scope of another type than text is one that nobody owns: ''."""
    if len(raw) > SMALL and (scanned := scan_event(raw)):
        return scanned[0]
    frame = parse(raw)
    if frame is None or frame.get("type") != "event" or not isinstance(frame.get("event"), str):
        return None
    payload = frame.get("payload")
    if not isinstance(payload, dict):
        return Event(frame["event"], None, None, payload)
    return Event(frame["event"], _text(payload.get("sessionKey")), _text(payload.get("agentId")), payload)


def scan_event(raw: bytes) -> tuple[Event, bytes] | None:
    """The event, and the first bytes of `raw`, which alone decided it: whatever begins with them is of the same name and scope.

    None where a byte scan cannot tell.
    """
    match = _SCOPED.match(raw)
    if match is None:
        return None
    name, key, agent = match.groups()
    return Event(_utf8(name), _utf8(key), _utf8(agent), UNREAD), match[0]


def scan_agent_event(raw: bytes) -> tuple[Event, bytes] | None:
    """As `scan_event`, for the `agent` events that say whose they are behind their nested `data`; the bytes are `agent_tail`."""
    tail = agent_tail(raw, 0, len(raw))
    if tail is None:
        return None
    _, _, _, key, _, _, _, agent, *_ = tail.split(b'"')
    return Event("agent", _utf8(key), _utf8(agent), UNREAD), tail


def agent_tail(buffer: bytes, start: int, end: int) -> bytes | None:
    """The bytes of the `agent` event `buffer[start:end]` that alone say whose it is: `},"sessionKey":"…","agentId":"…","seq":`.

    From there only flat members follow, two closing braces and the end of the frame, so they are the payload's own: bytes in a
    string, or in a deeper object, have another number of quotes or braces behind them. None for a frame of any other shape.
    """
    if not buffer.startswith(_AGENT_EVENT, start, end):
        return None
    at = buffer.rfind(_BEHIND_DATA, max(start, end - _AGENT_TAIL_LENGTH), end)
    match = _AGENT_TAIL.match(buffer, at, end) if at >= 0 else None
    return match[1] if match else None


def has_agent_tail(buffer: bytes, start: int, end: int, tail: bytes) -> bool:
    """Is this the `agent_tail` of the frame? Quicker than to ask which one it is."""
    at = buffer.rfind(tail, max(start, end - _AGENT_TAIL_LENGTH), end)
    return (
        at >= 0
        and buffer.startswith(_AGENT_EVENT, start, end)
        and _BEHIND_TAIL.match(buffer, at + len(tail), end) is not None
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else ""


def _utf8(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def is_event(raw: bytes) -> bool:
    return raw.startswith(_EVENT)


def response_id(raw: bytes) -> str | None:
    """The id that a response frame answers; None for any other frame."""
    match = _RESPONSE.match(raw)
    if match:
        return _utf8(match[1])
    frame = parse(raw)
    answered = frame.get("id") if frame is not None and frame.get("type") == "res" else None
    return answered if isinstance(answered, str) else None


def parse(raw: bytes) -> dict[str, Any] | None:
    """A gateway's frame as an object; None where it is none.

    V8 writes half a surrogate pair as `\\ud83d` (an emoji that was cut in two); orjson refuses it, `json` reads it.
    """
    try:
        frame = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            frame = json.loads(raw.decode())
        except (ValueError, RecursionError):
            return None
    return frame if isinstance(frame, dict) else None


def dump(frame: Any) -> bytes:
    """A frame as bytes, half surrogate pairs as they came."""
    try:
        return orjson.dumps(frame)
    except TypeError:
        return json.dumps(frame, separators=(",", ":")).encode()


def sequence_digits(buffer: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where in `buffer` the digits of the `seq` of the frame `buffer[start:end]` stand; None where it has none.

    It is the last in the frame but for flat members (`stateVersion`; behind a trusted proxy `recipientProfileId`), so the match
    runs to the frame's closing brace: a `seq` inside the payload has one brace more behind it.
    """
    at = buffer.rfind(_SEQ, max(start, end - _TAIL_LENGTH), end)
    match = _AFTER_SEQ.match(buffer, at + len(_SEQ), end) if at >= 0 else None
    return match.span(1) if match else None


def sequence(raw: bytes) -> int | None:
    """The `seq` of an event frame; None where it has none (targeted events have none)."""
    digits = sequence_digits(raw, 0, len(raw))
    return int(raw[slice(*digits)]) if digits else None


def resequence(raw: bytes, behind: int) -> bytes:
    """`raw` with its `seq` lowered by `behind`: only the digits are spliced, all other bytes stay.

    A client takes a jump in `seq` for lost events, so what we dropped before must not leave a gap.
    """
    digits = sequence_digits(raw, 0, len(raw)) if behind else None
    if digits is None:
        return raw
    start, end = digits
    return b"%b%d%b" % (raw[:start], int(raw[start:end]) - behind, raw[end:])


def event(name: str, payload: Any, **rest: Any) -> bytes:
    """An event frame; `seq`, where given, stands last, as the gateway writes it."""
    return dump({"type": "event", "event": name, "payload": payload, **rest})


def response(request_id: str, payload: Any) -> bytes:
    return dump({"type": "res", "id": request_id, "ok": True, "payload": payload})


def refusal(request_id: str, error: SidecarError) -> bytes:
    """An error response in the gateway protocol's shape."""
    return failure(request_id, error.to_wire())


def failure(request_id: str, error: dict[str, Any]) -> bytes:
    """An error response with an error object that is there already."""
    return dump({"type": "res", "id": request_id, "ok": False, "error": error})
