"""What is read from a gateway's frame is what a whole parse reads, and renumbering changes digits alone."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import MethodRefused
from sidecar.protocol import frames
from sidecar.protocol.frames import SMALL, UNREAD, Event, read_event, resequence, scan_event, sequence, sequence_digits
from tests.protocol.json_values import OBJECTS, SCALARS, TEXT, VALUES
from tests.protocol.samples import EVENTS, SAMPLES, Sample

DECOYS = [
    '"sessionKey":"agent:u-alice:x","agentId":"u-alice"',
    '{"type":"event","event":"chat","payload":{"sessionKey":"agent:u-alice:x","agentId":"u-alice"}}',
    "\\", '\\"', "x" * 300, "é\u2028", "agent:u-bob:main", "",
]  # fmt: skip
NESTED = [
    {"sessionKey": "agent:u-alice:x", "agentId": "u-alice"},
    {"a": {"sessionKey": "agent:u-alice:x"}},
    [{"agentId": "u-alice"}],
    {"payload": {"sessionKey": "agent:u-alice:x", "agentId": "u-alice"}},
    [{"type": "event", "event": "chat", "payload": {"sessionKey": "agent:u-alice:x", "agentId": "u-alice"}}],
    {},
    [],
]
SCOPES: list[Any] = [
    "agent:u-bob:main",
    "agent:u-alice:main",
    "u-bob",
    "",
    "a\\b",
    'a"b',
    "é",
    None,
    7,
    ["agent:u-bob:main"],
    {},
]
NAMES = [
    "runId",
    "sessionId",
    "seq",
    "data",
    "sessionkey",
    "sessionKey ",
    "xsessionKey",
    "agentID",
    'a"b',
    "a\\",
    "é",
    "x" * 70,
]
members = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.sampled_from([*DECOYS, *NESTED]), SCALARS)),
    st.tuples(st.just("sessionKey"), st.sampled_from(SCOPES)),
    st.tuples(st.just("agentId"), st.sampled_from(SCOPES)),
)
padding = st.just(("message", {"content": "x" * SMALL, "sessionKey": "agent:u-alice:x", "agentId": "u-alice"}))
payloads = st.lists(st.one_of(members, padding), max_size=24, unique_by=lambda member: member[0]).map(dict)
event_names = st.one_of(st.sampled_from(["chat", "agent", 'ch"at', "ch\\at", "é", ""]), TEXT)


def whole(raw: bytes) -> tuple[str, Any, Any]:
    """Name, session key and agent of an event, as a reader of the whole frame has them."""
    frame = json.loads(raw)
    payload = frame["payload"] if isinstance(frame.get("payload"), dict) else {}
    scopes = [payload.get(name) for name in ("sessionKey", "agentId")]
    key, agent = (scope if isinstance(scope, str) or scope is None else "" for scope in scopes)
    return frame["event"], key, agent


def seen(event: Event | None) -> tuple[str, Any, Any]:
    assert event is not None
    return event.name, event.session_key, event.agent_id


@pytest.mark.parametrize("sample", EVENTS, ids=str)
def test_real_events_are_read_as_a_parse_reads_them(sample: Sample) -> None:
    assert frames.is_event(sample.raw)
    assert seen(read_event(sample.raw)) == whole(sample.raw)


@pytest.mark.parametrize("sample", EVENTS, ids=str)
def test_real_events_that_are_large(sample: Sample) -> None:
    payload = {**sample.frame["payload"], "~": "x" * SMALL}
    raw = orjson.dumps({**sample.frame, "payload": payload})
    assert seen(read_event(raw)) == whole(raw)


def test_large_real_events_are_not_parsed() -> None:
    """Else what the other tests say of the scan would be said of the parser."""
    events = [read_event(sample.raw) for sample in EVENTS if len(sample.raw) > SMALL]
    assert len(events) > 5
    assert [event for event in events if event is not None and event.payload is UNREAD] == events


@given(event_names, payloads, st.sampled_from([None, 1, 10**15]))
def test_made_up_events_are_read_as_a_parse_reads_them(name: str, payload: dict[str, Any], seq: int | None) -> None:
    frame = {"type": "event", "event": name, "payload": payload, **({} if seq is None else {"seq": seq})}
    for raw in (orjson.dumps(frame), json.dumps(frame).encode(), json.dumps(frame, separators=(",", ":")).encode()):
        assert seen(read_event(raw)) == whole(raw)


@given(st.permutations(["sessionKey", "agentId", "data", "runId", "message"]), st.sampled_from([*DECOYS, *NESTED]))
def test_large_events_in_any_order(order: list[str], decoy: Any) -> None:
    values = {
        "sessionKey": "agent:u-bob:main",
        "agentId": "u-bob",
        "data": decoy,
        "runId": "r1",
        "message": "x" * SMALL,
    }
    raw = orjson.dumps({"type": "event", "event": "chat", "payload": {name: values[name] for name in order}})
    assert seen(read_event(raw)) == ("chat", "agent:u-bob:main", "u-bob")


def without(names: set[str], payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in names}


flat = st.dictionaries(
    st.sampled_from(["runId", "sessionId", "seq", "stream"]), st.sampled_from(["x", 7, None, True, -1.5])
)


@given(event_names, flat, payloads, payloads)
def test_the_head_alone_decides(
    name: str, before: dict[str, Any], behind: dict[str, Any], other: dict[str, Any]
) -> None:
    """Whatever else a gateway writes behind the bytes that a scan read, the event stays whose it is."""
    scopes = {"sessionKey": "agent:u-bob:main", "agentId": "u-bob"}
    payload = {**before, **scopes, **without({*before, *scopes}, behind)}
    raw = orjson.dumps({"type": "event", "event": name, "payload": payload})
    scanned = scan_event(raw)
    assert (scanned is not None) == (json.dumps(name, ensure_ascii=False) == f'"{name}"' != '""')
    if scanned is None:
        return
    event, head = scanned
    assert raw.startswith(head)
    rest = orjson.dumps(without({*before, *scopes}, other))[1:-1]
    continued = head[:-1] + (b"," + rest if rest else b"") + b'},"seq":3}'
    assert seen(event) == whole(raw) == whole(continued)


@pytest.mark.parametrize("sample", EVENTS, ids=str)
def test_a_scan_of_real_events_is_right_or_none(sample: Sample) -> None:
    scanned = scan_event(sample.raw)
    if scanned is not None:
        assert seen(scanned[0]) == whole(sample.raw)
        assert sample.raw.startswith(scanned[1])
    scoped = all(isinstance(sample.frame["payload"].get(name), str) for name in ("sessionKey", "agentId"))
    assert scoped or scanned is None


@pytest.mark.parametrize("key", SCOPES)
@pytest.mark.parametrize("agent", SCOPES)
def test_large_events_with_any_scope(key: Any, agent: Any) -> None:
    payload = {"runId": "r1", "sessionKey": key, "state": "final", "agentId": agent, "message": "x" * SMALL}
    raw = orjson.dumps({"type": "event", "event": "chat", "payload": payload, "seq": 3})
    assert seen(read_event(raw)) == whole(raw)


@pytest.mark.parametrize("left_out", ["sessionKey", "agentId"])
@pytest.mark.parametrize("decoy", [*DECOYS, *NESTED])
def test_a_scope_that_is_missing_is_not_found_elsewhere(left_out: str, decoy: Any) -> None:
    values = {"sessionKey": "agent:u-bob:main", "data": decoy, "agentId": "u-bob", "message": ["x" * SMALL, decoy]}
    del values[left_out]
    raw = orjson.dumps({"type": "event", "event": "chat", "payload": values})
    assert seen(read_event(raw)) == whole(raw)


def test_a_payload_that_is_no_object_names_nobody() -> None:
    for payload in ([{"sessionKey": "agent:u-bob:main"}], "agent:u-bob:main", 7, None):
        event = read_event(orjson.dumps({"type": "event", "event": "tick", "payload": payload}))
        assert event == Event("tick", None, None, payload)
    assert read_event(b'{"type":"event","event":"tick"}') == Event("tick", None, None, None)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"event"', b"\xff", b'{"type":"event"}', b'{"type":"event","event":7}', b'{"type":"res","event":"chat"}',
     b'{"type":"event","event":"chat","payload":{"sessionKey":"agent:u-bob:main","message":"' + b"x" * SMALL],
)  # fmt: skip
def test_what_is_no_event(raw: bytes) -> None:
    assert read_event(raw) is None


@given(st.binary(max_size=40))
def test_total_over_bytes(raw: bytes) -> None:
    for bytes_ in (
        raw,
        b'{"type":"event","event":"chat","payload":{' + raw,
        b'{"type":"event",' + raw + b'"x":"' + b"x" * SMALL,
    ):
        read_event(bytes_)
        frames.response_id(bytes_)
        sequence(bytes_)
        assert resequence(bytes_, 0) is bytes_


TAILS: list[dict[str, Any]] = [
    {},
    {"stateVersion": {"presence": 3, "health": 12}},
    {"recipientProfileId": "a5b0c7d8-6d3e-4a57-9b55-0d0e3c7f8a11"},
    {"stateVersion": {"presence": 3}, "recipientProfileId": "profile {x} [y]"},
    {"stateVersion": {}},
]


@given(st.one_of(OBJECTS, VALUES), st.integers(0, 10**12), st.integers(0, 10**6), st.sampled_from(TAILS))
def test_only_the_digits_change(payload: Any, behind: int, more: int, tail: dict[str, Any]) -> None:
    seq = behind + more
    raw = orjson.dumps({"type": "event", "event": "chat", "payload": payload, "seq": seq, **tail})
    assert sequence(raw) == seq
    lowered = resequence(raw, behind)
    assert lowered == orjson.dumps({"type": "event", "event": "chat", "payload": payload, "seq": more, **tail})
    assert (lowered is raw) == (behind == 0)


@given(
    OBJECTS,
    st.integers(0, 10**9),
    st.sampled_from(TAILS),
    st.sampled_from([b"", b'{"a":1,"seq":9}', b',"seq":9}', b"9"]),
)
def test_the_digits_are_found_inside_a_larger_buffer(
    payload: Any, seq: int, tail: dict[str, Any], around: bytes
) -> None:
    for number in ({}, {"seq": seq}):
        raw = orjson.dumps({"type": "event", "event": "chat", "payload": payload, **number, **tail})
        buffer = around + raw + around
        digits = sequence_digits(buffer, len(around), len(around) + len(raw))
        assert (buffer[slice(*digits)] if digits else None) == (b"%d" % seq if number else None)


@given(st.one_of(OBJECTS, VALUES), st.sampled_from(TAILS))
def test_a_frame_without_a_number_stays_the_same_object(payload: Any, tail: dict[str, Any]) -> None:
    raw = orjson.dumps({"type": "event", "event": "chat", "payload": payload, **tail})
    assert sequence(raw) is None
    assert resequence(raw, 3) is raw


@pytest.mark.parametrize(
    "payload",
    [{"a": 1, "seq": 7}, {"a": {"b": 1, "seq": 7}}, [{"b": 1, "seq": 7}], ',"seq":7}', {"a": ',"seq":7', "seq": 7, "b": {}},
     {"a": 1, "seq": 7, "b": {"c": 1}}, {"a": 1, "seq": 7, "b": "}"}],
)  # fmt: skip
@pytest.mark.parametrize("tail", TAILS)
def test_a_number_inside_the_payload_is_not_the_frames(payload: Any, tail: dict[str, Any]) -> None:
    bare = orjson.dumps({"type": "event", "event": "agent", "payload": payload, **tail})
    assert resequence(bare, 3) is bare
    numbered = orjson.dumps({"type": "event", "event": "agent", "payload": payload, "seq": 20, **tail})
    assert orjson.loads(resequence(numbered, 3)) == {**orjson.loads(numbered), "seq": 17}


@pytest.mark.parametrize("sample", EVENTS, ids=str)
def test_real_events_are_renumbered(sample: Sample) -> None:
    seq = sample.frame.get("seq")
    assert sequence(sample.raw) == seq
    expected = sample.frame if seq is None else {**sample.frame, "seq": seq - 1}
    assert resequence(sample.raw, 1) == orjson.dumps(expected)


def test_the_id_that_a_response_answers() -> None:
    assert frames.response_id(b'{"type":"res","id":"7","ok":true,"payload":{"id":"8"}}') == "7"
    assert frames.response_id(b'{"type":"res","id":"a\\"b\\u00e9","ok":true}') == 'a"bé'
    assert frames.response_id('{"type":"res","id":"é"}'.encode()) == "é"
    assert frames.response_id(b'{"id":"7", "type":"res"}') == "7"
    for other in (
        b'{"type":"res","id":7}',
        b'{"type":"res"}',
        b'{"type":"event","id":"7"}',
        b"[]",
        b"7",
        b"",
        b'{"type":"res","id":',
    ):
        assert frames.response_id(other) is None


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if not sample.is_event], ids=str)
def test_real_responses(sample: Sample) -> None:
    assert not frames.is_event(sample.raw)
    assert read_event(sample.raw) is None
    assert frames.response_id(sample.raw) == sample.frame["id"]


@given(TEXT, VALUES, st.integers(0, 10**9))
def test_what_we_write_is_what_a_gateway_would(name: str, payload: Any, seq: int) -> None:
    raw = frames.event(name, payload, seq=seq)
    assert frames.is_event(raw)
    assert orjson.loads(raw) == {"type": "event", "event": name, "payload": payload, "seq": seq}
    assert sequence(raw) == seq
    answer = frames.response(name, payload)
    assert orjson.loads(answer) == {"type": "res", "id": name, "ok": True, "payload": payload}
    assert frames.response_id(answer) == name


def test_a_refusal_has_the_gateways_shape() -> None:
    error = MethodRefused("not here")
    frame = orjson.loads(frames.refusal("7", error))
    assert frame == {"type": "res", "id": "7", "ok": False, "error": error.to_wire()}


CUT = {"a": "half of an emoji: \ud83d", "b": ["\udc00"]}


def test_half_a_surrogate_pair_travels_as_the_gateway_wrote_it() -> None:
    raw = rb'{"type":"event","event":"agent","payload":{"sessionKey":"agent:u-bob:main","data":"\ud83d"},"seq":3}'
    assert seen(read_event(raw)) == ("agent", "agent:u-bob:main", None)
    assert frames.dump(frames.parse(raw)) == raw
    for written in (frames.event("agent", CUT), frames.response("1", CUT)):
        assert json.loads(written)["payload"] == CUT
    assert rb"\ud83d" in frames.response("1", CUT)


def test_what_is_too_deep_for_the_quick_writer_is_written_too() -> None:
    deep: Any = None
    for _ in range(400):
        deep = [deep]
    assert json.loads(frames.response("1", deep))["payload"] == deep


@given(VALUES)
def test_a_dump_is_read_as_it_was_meant(value: Any) -> None:
    assert orjson.loads(frames.dump(value)) == value


def test_a_failure_carries_the_error_as_it_is() -> None:
    error = {"code": "INVALID_REQUEST", "message": "no"}
    assert orjson.loads(frames.failure("7", error)) == {"type": "res", "id": "7", "ok": False, "error": error}


def test_parse() -> None:
    assert frames.parse(b'{"a":1}') == {"a": 1}
    for other in (
        b"",
        b"[]",
        b"1",
        b"null",
        b"\xff",
        b"[" * 100_000,
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xed\xa0\x80"}',
    ):
        assert frames.parse(other) is None
