"""A client's frame → `Request`, read completely, so that nothing in it can be read in two ways.

The gateway reads JSON with V8: the last of two equal keys wins, `"\\u006bey"` is `key`, a lone surrogate is a character. Whoever
judges a frame by other rules than the reader behind can be made to see another frame. So what could be read in two ways is
refused: duplicate keys, escaped key names, lone surrogates, numbers that a double does not hold, and more depth or members than a
client sends (the request frame of gateway 2026.9.6 is closed: `type`, `id`, `method`, `params`, `traceparent`).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

from sidecar.errors import MalformedFrame

MAX_DEPTH = 32
MAX_MEMBERS = 50_000
MAX_STRUCTURE = 100_000
MAX_ESCAPES = 400_000
"""Commas and opening brackets, and backslashes, of one frame, counted before it is parsed: 25 MiB of them would stop the
process for seconds. A file as base64 has none."""

MAX_ID = 256
MAX_SAFE_INTEGER = 2**53 - 1

OWN_ID_PREFIX = "~sidecar:"
"""Requests of ours on a user's socket have ids that begin like this; no client may send such an id."""

_FIELDS = frozenset({"type", "id", "method", "params", "traceparent"})
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\r\n]*+(:?)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Request:
    """One `req` frame. `raw` is what came; it is sent on as it is where `params` did not change."""

    raw: bytes
    id: str
    method: str
    params: dict[str, Any]


class UnansweredFrame(MalformedFrame):
    """Not readable far enough to know the id that an answer would carry: the socket closes."""


class AnswerableFrame(MalformedFrame):
    """Refused, with an answer to the request `request_id`."""

    def __init__(self, message: str, request_id: str) -> None:
        super().__init__(message)
        self.request_id = request_id


def decode(raw: bytes) -> Request:
    """Read a client's text frame. Raises UnansweredFrame or AnswerableFrame, and nothing else."""
    frame = _parse(raw)
    if not isinstance(frame, dict) or frame.get("type") != "req":
        raise UnansweredFrame("a client sends request frames: {type: 'req', id, method, params}")
    request_id = frame.get("id")
    if not isinstance(request_id, str) or not 0 < len(request_id) <= MAX_ID or not _is_text(request_id):
        raise UnansweredFrame(f"a request has an id: a string of 1 to {MAX_ID} characters")
    if request_id.startswith(OWN_ID_PREFIX):
        raise AnswerableFrame("request ids of this form are not for clients", request_id)
    method, params = frame.get("method"), frame.get("params", {})
    if not isinstance(method, str) or not method:
        raise AnswerableFrame("a request names a method", request_id)
    if not isinstance(params, dict):
        raise AnswerableFrame("params is an object", request_id)
    if not _FIELDS.issuperset(frame):
        raise AnswerableFrame("a request holds type, id, method, params and nothing else", request_id)
    _walk(frame, request_id)
    return Request(raw, request_id, method, params)


def encode(request_id: str, method: str, params: dict[str, Any]) -> bytes:
    """A request frame, for what changed on its way and for calls of our own."""
    return orjson.dumps({"type": "req", "id": request_id, "method": method, "params": params})


class _Ambiguous(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Ambiguous("an object names a key twice")
    return members


def _constant(name: str) -> Any:
    raise _Ambiguous(f"{name} is not JSON")


def _parse(raw: bytes) -> Any:
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_STRUCTURE or raw.count(b"\\") > MAX_ESCAPES:
        raise UnansweredFrame("a frame is simpler than this: carry large content as base64 in an attachment")
    try:
        text = raw.decode()
        frame = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError:
        raise UnansweredFrame("a frame is UTF-8 text") from None
    except _Ambiguous as error:
        raise UnansweredFrame(str(error)) from None
    except (ValueError, RecursionError):
        raise UnansweredFrame("a frame is one JSON object") from None
    if b"\\" in raw:
        _refuse_escaped_keys(raw)
    return frame


def _refuse_escaped_keys(raw: bytes) -> None:
    for string in _STRING.finditer(raw):
        if string[1] and b"\\" in string[0]:
            raise UnansweredFrame("key names are written without escapes")


def _walk(frame: dict[str, Any], request_id: str) -> None:
    """Refuse by value what JSON alone lets through. Iterative: the depth is the client's to choose.

    Key names are Unicode text already: without an escape, UTF-8 cannot say half a surrogate pair.
    """
    level: list[Any] = [frame]
    seen = 0
    for _ in range(MAX_DEPTH):
        following: list[Any] = []
        for value in level:
            seen += len(value)
            members = value.values() if isinstance(value, dict) else value
            following.extend(member for member in members if _inner(member, request_id))
        if seen > MAX_MEMBERS:
            raise AnswerableFrame(f"a frame has at most {MAX_MEMBERS} members", request_id)
        if not following:
            return
        level = following
    raise AnswerableFrame(f"a frame is at most {MAX_DEPTH} levels deep", request_id)


def _inner(value: Any, request_id: str) -> bool:
    """True for a container still to be looked into; raises for a scalar that must not pass."""
    if isinstance(value, str):
        if not _is_text(value):
            raise AnswerableFrame("a string holds half a surrogate pair", request_id)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise AnswerableFrame("a number is too large", request_id)
    elif isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
        raise AnswerableFrame("an integer is beyond 2^53 - 1", request_id)
    return isinstance(value, (dict, list))


def _is_text(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
