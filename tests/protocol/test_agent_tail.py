"""Whose an `agent` event is, read from its end: never anything but what a whole parse says."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol.frames import agent_tail, has_agent_tail, scan_agent_event
from tests.protocol.json_values import OBJECTS, VALUES
from tests.protocol.samples import EVENTS, Sample

ALICE: dict[str, Any] = {"sessionKey": "agent:u-alice:main", "agentId": "u-alice", "seq": 5}
BOB: dict[str, Any] = {"sessionKey": "agent:u-bob:main", "agentId": "u-bob", "seq": 7}
BOBS_TAIL = b'},"sessionKey":"agent:u-bob:main","agentId":"u-bob","seq":'
AGENT_EVENTS = [sample for sample in EVENTS if sample.frame["event"] == "agent"]

LURES: list[Any] = [
    BOB,
    {"a": {}, **BOB},
    {"a": {"b": {}, **BOB}},
    [{"a": {}, **BOB}],
    {"data": {}, **BOB, "payload": {"data": {}, **BOB}},
    orjson.dumps({"data": {}, **BOB}).decode(),
    BOBS_TAIL.decode(),
    BOBS_TAIL.decode() + "1}}",
    "},",
    "}",
    "\\",
]
"""What Alice may have her agent say, to be taken for Bob's."""

members: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(
        st.sampled_from(["data", "args", "ts", "isHeartbeat", "x"]),
        st.one_of(st.sampled_from(LURES), VALUES, st.just({})),
    ),
    st.tuples(st.just("sessionKey"), st.sampled_from(["agent:u-alice:main", "agent:u-bob:main", "a\\b", "é", None, 7])),
    st.tuples(st.just("agentId"), st.sampled_from(["u-alice", "u-bob", "", None, {}])),
    st.tuples(st.just("seq"), st.integers(0, 10**6)),
)
anything = st.lists(members, max_size=8, unique_by=lambda member: member[0]).map(dict)
shaped = st.builds(
    lambda data, scope, more: {"runId": "r1", "stream": "tool", "data": data, **scope, **more},
    st.one_of(st.sampled_from(LURES), OBJECTS),
    st.sampled_from([ALICE, BOB, {**BOB, "agentId": "u-alice"}]),
    st.dictionaries(
        st.sampled_from(["ts", "x", "y"]), st.one_of(st.sampled_from(LURES), st.integers(-9, 10**6), st.none())
    ),
)
ends: list[dict[str, Any]] = [
    {},
    {"seq": 20},
    {"seq": 20, "stateVersion": {"presence": 3}},
    {"seq": 20, "recipientProfileId": "p-1"},
]


def frame(payload: Any, end: dict[str, Any], event: str = "agent") -> bytes:
    return orjson.dumps({"type": "event", "event": event, "payload": payload, **end})


def whole(raw: bytes) -> tuple[Any, Any]:
    payload = json.loads(raw)["payload"]
    return payload.get("sessionKey"), payload.get("agentId")


@given(
    st.one_of(anything, shaped), st.sampled_from(ends), st.sampled_from([b"", BOBS_TAIL, b"1}}", BOBS_TAIL + b"1}}"])
)
def test_read_from_the_end(payload: dict[str, Any], end: dict[str, Any], around: bytes) -> None:
    raw = frame(payload, end)
    scanned = scan_agent_event(raw)
    if scanned is not None:
        event, tail = scanned
        assert (event.name, event.session_key, event.agent_id) == ("agent", *whole(raw))
        assert has_agent_tail(raw, 0, len(raw), tail)
    if has_agent_tail(raw, 0, len(raw), BOBS_TAIL):
        assert whole(raw) == (BOB["sessionKey"], BOB["agentId"])
        assert scanned is not None
    buffer, start = around + raw + around, len(around)
    assert agent_tail(buffer, start, start + len(raw)) == (scanned[1] if scanned else None)
    assert has_agent_tail(buffer, start, start + len(raw), BOBS_TAIL) == has_agent_tail(raw, 0, len(raw), BOBS_TAIL)


@pytest.mark.parametrize("lure", LURES)
@pytest.mark.parametrize("end", ends)
def test_nobody_is_taken_for_somebody_else(lure: Any, end: dict[str, Any]) -> None:
    payloads = [
        {"runId": "r1", "data": lure, **ALICE, "ts": 1},
        {"runId": "r1", "data": {}, **ALICE, "ts": 1, "x": lure},
        {"runId": "r1", **ALICE, "data": lure},
        {"runId": "r1", "data": lure},
        {**ALICE, "data": {"args": lure}},
    ]
    for raw in (frame(payload, end) for payload in payloads):
        assert not has_agent_tail(raw, 0, len(raw), BOBS_TAIL)
        scanned = scan_agent_event(raw)
        assert scanned is None or scanned[0].agent_id == "u-alice"


def test_bobs_own_is_found() -> None:
    raw = frame(
        {"runId": "r1", "stream": "tool", "data": {"phase": "end"}, **BOB, "ts": 1, "isHeartbeat": False}, {"seq": 20}
    )
    assert agent_tail(raw, 0, len(raw)) == BOBS_TAIL
    assert has_agent_tail(raw, 0, len(raw), BOBS_TAIL)


@pytest.mark.parametrize("sample", AGENT_EVENTS, ids=str)
def test_real_events(sample: Sample) -> None:
    scanned = scan_agent_event(sample.raw)
    if scanned is not None:
        assert (scanned[0].session_key, scanned[0].agent_id) == whole(sample.raw)


def test_most_real_events_are_read_from_the_end() -> None:
    """Else the tests above would say little."""
    assert sum(scan_agent_event(sample.raw) is not None for sample in AGENT_EVENTS) > len(AGENT_EVENTS) // 2


def test_other_events_are_not() -> None:
    raw = frame({"runId": "r1", "data": {}, **BOB}, {"seq": 20}, event="chat")
    assert scan_agent_event(raw) is None
    assert not has_agent_tail(raw, 0, len(raw), BOBS_TAIL)
