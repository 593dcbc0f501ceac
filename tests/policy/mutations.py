"""Frames of real clients and of a real gateway, and what somebody who wants another's session would make of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import orjson

from sidecar.policy.rules import Only, Own, ParamRule, Rule, Shape
from sidecar.policy.table import Passage
from tests.policy.people import FOREIGN_KEYS, ODD_KEYS, OWN_KEYS, TABLE
from tests.protocol.samples import EVENTS

AGENTS = ["u-bob", "main", "", "U-Bob", "u-alice", "u-alice ", "u-bobby"]
RUNS = ["r1", "0f8e6a52-5d5c-4d0f-9f11-2c0c3a4f9f50", "r 1", " r1", "é"]
TEXTS = [
    "hello",
    "/help me",
    "and/or",
    "/model x",
    "so /reset it",
    "\\n/new",
    "\u00a0/exec",
    "😀",
    "agent:u-alice:main",
]
FILES = [
    {"type": "image", "mimeType": "image/png", "content": "aGk="},
    {"content": "aGk=", "path": "/etc/passwd"},
    "media://inbound/1",
]
REST = [True, None, 0, -1, 1.5, "x", [], {}, 2**53, ["agent:u-alice:main"], {"sessionKey": "agent:u-alice:main"}]
NAMES = sorted({name for row in TABLE.methods.values() for name in row.params})
UNKNOWN = [
    "workspaceDir",
    "authProfileId",
    "parentSessionKey",
    "fork",
    "cwd",
    "sessionkey",
    "sessionKey ",
    "session\u212aey",
    "__proto__",
]
BY_RULE: dict[Rule, list[Any]] = {
    Rule.KEY: [*OWN_KEYS, *FOREIGN_KEYS, *ODD_KEYS],
    Rule.EXISTING_KEY: [*OWN_KEYS, *FOREIGN_KEYS, *ODD_KEYS],
    Rule.EXISTING_KEYS: [OWN_KEYS, FOREIGN_KEYS, []],
    Rule.AGENT: AGENTS,
    Rule.NEW_RUN: RUNS,
    Rule.TEXT: TEXTS,
    Rule.MODEL: ["fake/fake-1", None, "fake/fake-1@alice", "a b", ""],
    Rule.OWN_ID: ["c1", "agent:u-alice:main", "é"],
    Rule.PATH: ["notes.md", "a/b.txt", "", "../x", "/etc/passwd", "~/x", "C:\\x", "a\\..\\b", "a/../../x"],
    Rule.ATTACHMENTS: [[], FILES[:1], FILES[:2], FILES[1:2], FILES],
}
GOOD = {
    Rule.KEY: 7,
    Rule.EXISTING_KEY: 9,
    Rule.AGENT: 4,
    Rule.NEW_RUN: 2,
    Rule.PATH: 3,
    Rule.MODEL: 2,
    Rule.TEXT: 3,
    Rule.ATTACHMENTS: 2,
}
"""How many of a rule's values, from the first, an honest client sends."""

ANSWERED = [row for row in TABLE.methods.values() if row.answer is not None]
FORWARDED = [row for row in TABLE.methods.values() if row.answer is None]
OWN_EVENTS = frozenset(name for name, row in TABLE.events.items() if row.passage is Passage.OWN)

Frame = dict[str, Any]


def value_for(rng: random.Random, rule: ParamRule) -> Any:
    match rule:
        case Own(_, many) | Shape(_, many) if many:
            one = Own(rule.kind) if isinstance(rule, Own) else Shape(rule.members)
            return [value_for(rng, one) for _ in range(rng.randrange(3))]
        case Shape(members):
            return {name: value_for(rng, inner) for name, inner in members.items() if rng.random() < 0.7}
        case Only(words):
            honest = sorted(words, key=str)
            return rng.choice([*honest, *REST] if rng.random() < 0.2 else honest)
        case Rule():
            values = BY_RULE.get(rule, REST)
            return rng.choice(values[: GOOD.get(rule, len(values))] if rng.random() < 0.8 else values)
        case _:
            return rng.choice(RUNS[:2] if rng.random() < 0.8 else RUNS)


def request(rng: random.Random) -> Frame:
    """What a client sends: mostly honest values, in a frame of the right shape."""
    row = rng.choice(ANSWERED if rng.random() < 0.1 else FORWARDED)
    params = {}
    for name, rule in row.params.items():
        if rng.random() < 0.5:
            params[name] = value_for(rng, rule)
    return {"type": "req", "id": rng.choice(["1", "é", "7f3c"]), "method": row.name, "params": params}


def event(rng: random.Random) -> Frame:
    """What a gateway sends to a connection of Bob's: an event of Alice's or Bob's, in a real shape."""
    sample = rng.choice(EVENTS)
    user = rng.choice([b"u-alice", b"u-bob"])
    raw = sample.raw.replace(b'"agent:main:', b'"agent:%b:' % user).replace(
        b'"agentId":"main"', b'"agentId":"%b"' % user
    )
    frame: Frame = orjson.loads(raw)
    return {**frame, "event": "health"} if rng.random() < 0.05 else frame


# --- of the structure ------------------------------------------------------------------------------------------------


def _swap_names(rng: random.Random, frame: Frame, part: str) -> None:
    members = frame[part]
    if len(members) > 1:
        one, other = rng.sample(list(members), 2)
        members[one], members[other] = members[other], members[one]


def _rename(rng: random.Random, frame: Frame, part: str) -> None:
    members = frame[part]
    if members:
        value = members.pop(rng.choice(list(members)))
        members[rng.choice([*NAMES, *UNKNOWN])] = value


def _point_elsewhere(rng: random.Random, frame: Frame, part: str) -> None:
    name = rng.choice([*frame[part], "sessionKey", "agentId", "key"])
    frame[part][name] = _disguised(rng, rng.choice([*FOREIGN_KEYS, "u-alice", "agent:u-bob:main", "u-bob"]))


def _disguised(rng: random.Random, key: str) -> Any:
    match rng.randrange(8):
        case 0:
            return key.upper()
        case 1:
            at = rng.randrange(len(key))
            return (
                key[:at]
                + rng.choice(["\u200b", " ", "\ufeff", "\x00", "\u0430", "\uff1a", "\u212a", "/", "%3A"])
                + key[at:]
            )
        case 2:
            return rng.choice(["\t", "\n", "\u00a0", "\u2003"]) + key
        case 3:
            return rng.choice([[key], {"key": key}, {"sessionKey": key}, [[key]]])
        case _:
            return key


def _nest(rng: random.Random, frame: Frame, part: str) -> None:
    members = frame[part]
    if members:
        name = rng.choice(list(members))
        members[name] = rng.choice(
            [[members[name]], {name: members[name]}, {"sessionKey": members[name], "agentId": "u-alice"}]
        )


def _drop(rng: random.Random, frame: Frame, part: str) -> None:
    if frame[part]:
        frame[part].pop(rng.choice(list(frame[part])))


def _shuffle(rng: random.Random, frame: Frame, part: str) -> None:
    names = list(frame[part])
    rng.shuffle(names)
    frame[part] = {name: frame[part][name] for name in names}


def _decoy(rng: random.Random, frame: Frame, part: str) -> None:
    decoys = [
        '"sessionKey":"agent:u-bob:main","agentId":"u-bob"',
        {"sessionKey": "agent:u-bob:main", "agentId": "u-bob"},
        [{"sessionKey": "agent:u-bob:main"}],
        "x" * 2000,
        ',"seq":3}',
    ]
    frame[part] = {rng.choice(["a", "data", "seq"]): rng.choice(decoys), **frame[part]}


def _other_kind(rng: random.Random, frame: Frame, part: str) -> None:
    if part == "params":
        frame["method"] = rng.choice([*TABLE.methods, "config.patch", "sessions.delete", "x"])
    else:
        frame["event"] = rng.choice([*TABLE.events, "presence", "cron", "x"])


def _outside(rng: random.Random, frame: Frame, part: str) -> None:
    frame[rng.choice(["sessionKey", "agentId", "x", "traceparent"])] = rng.choice(["agent:u-alice:main", "u-alice", 1])


STRUCTURAL: list[Callable[[random.Random, Frame, str], None]] = [
    _swap_names, _rename, _point_elsewhere, _point_elsewhere, _nest, _drop, _shuffle, _decoy, _other_kind, _outside,
]  # fmt: skip


def restructured(rng: random.Random, frame: Frame, part: str) -> Frame:
    """`frame` with up to three changes to its `part` (`params` or `payload`) or to itself. Changes `frame`."""
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        rng.choice(STRUCTURAL)(rng, frame, part)
    return frame


# --- answers -------------------------------------------------------------------------------------------------------------

SCOPE_MEMBERS = ("sessionKey", "key", "agentId")
NAMING = ("parentSessionKey", "spawnedBy", "childSessionKey", "owner", "createdBy", "ownerAgentId", "links", "x")
"""Members that may name somebody without making the object theirs."""


def answer(rng: random.Random, depth: int = 3) -> Any:
    """What a gateway might answer, of any shape: what holds a word of Alice's says somehow that it is hers."""
    match rng.randrange(5 if depth else 2):
        case 0:
            return rng.choice(["agent:u-bob:main", "u-bob", "word", 7, None, True, "notes/a.md"])
        case 1:
            return rng.choice(
                ["agent:u-alice:main", "AGENT:u-alice:Main", "u-alice", "/home/alice/x", "agent:u-alice:cron:1"]
            )
        case 2:
            return [answer(rng, depth - 1) for _ in range(rng.randrange(4))]
        case _:
            return _an_object(rng, depth)


def _an_object(rng: random.Random, depth: int) -> dict[str, Any]:
    members: dict[str, Any] = {
        rng.choice(["tasks", "sessions", "rows", "session", "a", "b"]): answer(rng, depth - 1)
        for _ in range(rng.randrange(3))
    }
    if rng.random() < 0.4:
        members[rng.choice(NAMING)] = rng.choice(
            ["agent:u-alice:main", "u-alice", "agent:u-bob:side", ["u-alice", "u-bob"]]
        )
    if rng.random() < 0.2:
        members[rng.choice(["agent:u-alice:main", "u-alice"])] = "a word of alice"
    if rng.random() < 0.7:
        alices = rng.random() < 0.5
        name = rng.choice(SCOPE_MEMBERS)
        scope = "u-alice" if alices else "u-bob"
        members[name] = scope if name == "agentId" else f"agent:{scope}:main"
        members |= {"title": "a word of alice", "text": "said by alice"} if alices else {"title": "a word of bob"}
    return dict(rng.sample(list(members.items()), len(members)))


# --- of the bytes ----------------------------------------------------------------------------------------------------

ODD_BYTES = [
    *(
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        "\u200b".encode(),
        "\u2028".encode(),
        b"\x00",
        b"\\",
        b'"',
        b"{",
        b"}",
        b"[",
        b",",
    ),
    *(b"\\ud800", b"\\u0061", b"1e999", b"NaN", b'"seq":', b"[" * 2000),
]
TWICE = [
    b'"sessionKey":"agent:u-alice:main",',
    b'"agentId":"u-alice",',
    b'"key":"agent:u-alice:main",',
    b'"id":"2",',
    b'"method":"x",',
]


def _flip(rng: random.Random, raw: bytearray, other: bytes) -> None:
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def _insert(rng: random.Random, raw: bytearray, other: bytes) -> None:
    at = rng.randrange(len(raw))
    raw[at:at] = rng.choice(ODD_BYTES)


def _delete(rng: random.Random, raw: bytearray, other: bytes) -> None:
    at = rng.randrange(len(raw))
    del raw[at : at + rng.choice([1, 1, 2, 20])]


def _repeat(rng: random.Random, raw: bytearray, other: bytes) -> None:
    at = rng.randrange(len(raw))
    raw[at:at] = raw[at : at + rng.randrange(60)]


def _splice(rng: random.Random, raw: bytearray, other: bytes) -> None:
    """The head of one frame and the tail of another, cut at a comma where there is one."""
    here, there = raw.find(b",", rng.randrange(len(raw))), other.find(b",", rng.randrange(len(other)))
    if here >= 0 and there >= 0:
        raw[here:] = other[there:]


def _twice(rng: random.Random, raw: bytearray, other: bytes) -> None:
    """A member that is there already, where an object begins."""
    at = raw.find(b"{", rng.randrange(len(raw)))
    if at >= 0:
        raw[at + 1 : at + 1] = rng.choice(TWICE)


def _escape(rng: random.Random, raw: bytearray, other: bytes) -> None:
    """A letter said as JSON may also say it."""
    letters = [at for at, byte in enumerate(raw) if chr(byte).isalpha() and byte < 128]
    if letters:
        at = rng.choice(letters)
        raw[at : at + 1] = b"\\u%04x" % raw[at]


BYTEWISE: list[Callable[[random.Random, bytearray, bytes], None]] = [
    _flip,
    _flip,
    _insert,
    _delete,
    _repeat,
    _splice,
    _twice,
    _escape,
]


def written(rng: random.Random, frame: Frame) -> bytes:
    """`frame` as one of the JSON writers there are would write it."""
    match rng.randrange(8):
        case 0:
            return json.dumps(frame).encode()
        case 1:
            return json.dumps(frame, ensure_ascii=False, indent=1).encode()
        case 2:
            return json.dumps(frame, separators=(",", ":")).encode()
        case _:
            return orjson.dumps(frame)


def damaged(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    """`raw` with one to three changes to its bytes; `other` is a frame to take pieces from."""
    bytes_ = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 3])):
        if bytes_:
            rng.choice(BYTEWISE)(rng, bytes_, other)
    return bytes(bytes_)
