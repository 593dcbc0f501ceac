"""A client's frame is read in one way, or refused."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol import frames
from sidecar.protocol.requests import (
    MAX_DEPTH,
    MAX_ESCAPES,
    MAX_ID,
    MAX_MEMBERS,
    MAX_SAFE_INTEGER,
    MAX_STRUCTURE,
    OWN_ID_PREFIX,
    AnswerableFrame,
    Request,
    UnansweredFrame,
    decode,
    encode,
)
from tests.protocol.json_values import OBJECTS, TEXT

SHARDS = [
    b'{"type":"req","id":"1","method":"chat.send","params":{', b'"type":"req"', b'"id":"1"', b'"method":"health"',
    b'"params":{}', b"{", b"}", b"[", b"]", b",", b":", b'"sessionKey":"agent:u-alice:main"', b'"\\u0073essionKey":"x"',
    b'"a":1', b'"', b"\\", b"\\u", b"d800", b'"\\ud800"', b'"\\ud83d\\ude00"', b"1e999", b"-0", b"9007199254740993", b"NaN",
    b"Infinity", b"null", b"true", b" ", b"\n", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\x00", "é".encode(), b"}}",
]  # fmt: skip
soups = st.lists(st.sampled_from(SHARDS), max_size=8).map(b"".join)
raws = st.one_of(st.binary(max_size=60), soups, soups.map(lambda soup: SHARDS[0] + soup + b"}}"))
IDS = TEXT.filter(lambda text: text != "" and not text.startswith(OWN_ID_PREFIX))
METHODS = TEXT.filter(bool)


def frame(**members: Any) -> bytes:
    return orjson.dumps({"type": "req", "id": "1", "method": "health", **members})


def written(members: str) -> bytes:
    """A frame with `members` written as they are into its params."""
    return b'{"type":"req","id":"1","method":"health","params":{%b}}' % members.encode("utf-8", "surrogatepass")


@given(raws)
def test_total_over_bytes_and_one_reading(raw: bytes) -> None:
    try:
        request = decode(raw)
    except UnansweredFrame:
        return
    except AnswerableFrame as error:
        refused = error
    else:
        read = orjson.loads(raw)
        assert (read["id"], read["method"], read.get("params", {})) == (request.id, request.method, request.params)
        assert request.raw is raw
        return
    assert orjson.loads(frames.refusal(refused.request_id, refused))["id"] == refused.request_id


@given(IDS, METHODS, OBJECTS, st.booleans())
def test_what_clients_write_is_accepted(request_id: str, method: str, params: Any, loose: bool) -> None:
    members = {"type": "req", "id": request_id, "method": method, "params": params}
    raw = json.dumps(members, ensure_ascii=False, indent=1).encode() if loose else orjson.dumps(members)
    assert decode(raw) == Request(raw, request_id, method, params)


@given(IDS, METHODS, OBJECTS)
def test_what_we_write_is_read_as_it_was_meant(request_id: str, method: str, params: dict[str, Any]) -> None:
    raw = encode(request_id, method, params)
    assert decode(raw) == Request(raw, request_id, method, params)


@given(OBJECTS, st.data())
def test_a_duplicate_anywhere_is_refused(params: dict[str, Any], data: st.DataObject) -> None:
    """Doubles one member of any object of the frame, at any depth."""
    places = [*_objects({"type": "req", "id": "1", "method": "health", "params": params})]
    place = data.draw(st.sampled_from(places))
    name = data.draw(st.sampled_from(sorted(place)))
    doubled = dict(place)
    place.clear()
    place["~"] = None
    raw = orjson.dumps(places[0])
    members = orjson.dumps(doubled)[1:-1] + b"," + orjson.dumps({name: "agent:u-alice:main"})[1:-1]
    raw = raw.replace(b'"~":null', members) if place is not places[0] else b"{%b}" % members
    with pytest.raises(UnansweredFrame, match="twice"):
        decode(raw)


def _objects(value: Any) -> list[dict[str, Any]]:
    """Every object with members in `value`, the outermost first."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    own = [value] if isinstance(value, dict) and value else []
    return own + [found for member in inner for found in _objects(member)]


@pytest.mark.parametrize(
    "members",
    [
        '"sessionKey":"main","sessionKey":"agent:u-alice:main"',
        '"a":{"b":1,"b":1}',
        '"a":[{"b":[{"c":1,"d":2,"c":3}]}]',
        '"":1,"":2',
    ],
)
def test_duplicate_keys(members: str) -> None:
    with pytest.raises(UnansweredFrame, match="twice"):
        decode(written(members))


def test_duplicate_keys_of_the_frame_itself() -> None:
    with pytest.raises(UnansweredFrame, match="twice"):
        decode(b'{"type":"req","id":"1","method":"health","method":"config.patch"}')


@pytest.mark.parametrize(
    "members",
    [
        r'"\u0073essionKey":"agent:u-alice:main"',
        r'"session\u004bey" : "x"',
        r'"a":{"\u0061gentId":"u-alice"}',
        r'"a":[1,"\"",{"\u0061":1}]',
        r'"a\/b":1',
        r'"a\"":1',
        r'"\\":1',
        '"a\\n" \t\r\n:1',
        r'"\ud800":1',
        r'"\ud83d\ude00":1',
    ],
)
def test_escaped_key_names(members: str) -> None:
    with pytest.raises(UnansweredFrame, match="without escapes"):
        decode(written(members))


@pytest.mark.parametrize(
    "members", [r'"a":"\u0073"', r'"a":"\\","b":"\":"', '"a":"\\"b\\":1"', r'"a":["\n"]', '"é":"\\u00e9"']
)
def test_escapes_in_values_are_fine(members: str) -> None:
    raw = written(members)
    assert decode(raw).params == orjson.loads(raw)["params"]


@pytest.mark.parametrize(
    "members", [r'"a":"\ud800"', r'"a":["x","\udc00y"]', r'"a":{"b":"\udc00\ud800"}', r'"a":"\ud83d "']
)
def test_half_a_surrogate_pair(members: str) -> None:
    with pytest.raises(AnswerableFrame, match="surrogate") as caught:
        decode(written(members))
    assert caught.value.request_id == "1"


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert decode(written(r'"a":"\ud83d\ude00"')).params == {"a": "😀"}


@pytest.mark.parametrize("members", ['"a":1e999', '"a":[-1e999]', '"a":{"b":1e400}'])
def test_numbers_that_are_infinite(members: str) -> None:
    with pytest.raises(AnswerableFrame, match="number is too large"):
        decode(written(members))


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**64, 10**300])
def test_integers_that_a_double_does_not_hold(number: int) -> None:
    with pytest.raises(AnswerableFrame, match="2\\^53"):
        decode(written(f'"a":[{number}]'))


def test_the_largest_integers() -> None:
    params = {"a": MAX_SAFE_INTEGER, "b": -MAX_SAFE_INTEGER, "c": 1e308}
    assert decode(frame(params=params)).params == params


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_that_are_no_numbers(word: str) -> None:
    with pytest.raises(UnansweredFrame, match=f"{word} is not JSON"):
        decode(written(f'"a":{word}'))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[" * 100_000, id="arrays without end"),
        pytest.param(b'{"a":' * 100_000, id="objects without end"),
        pytest.param(
            b'{"type":"req","id":"1","method":"x","params":{"a":' + b"[" * 90_000 + b"]" * 90_000 + b"}}", id="deep"
        ),
        pytest.param(written('"a":' + "9" * 5000), id="a number of 5000 digits"),
        pytest.param(b"\xef\xbb\xbf" + frame(), id="byte order mark"),
        pytest.param(frame() + b"x", id="garbage behind"),
        pytest.param(frame() + frame(), id="two frames"),
        pytest.param(frame()[:-1], id="cut"),
        pytest.param(b"\x00" + frame(), id="nul"),
        pytest.param(written('"a":"\n"'), id="a control character in a string"),
        pytest.param(b"{'type':'req'}", id="single quotes"),
        pytest.param(written('"a":1,'), id="a comma too many"),
        pytest.param(written('"a":01'), id="a leading zero"),
        pytest.param(written('"a":١'), id="digits of another script"),
        pytest.param(frame().replace(b",", b",\xc2\xa0", 1), id="white space that is none"),
    ],
)
def test_what_is_no_json_object(raw: bytes) -> None:
    with pytest.raises(UnansweredFrame, match=r"one JSON object|simpler than this"):
        decode(raw)


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe", frame().decode().encode("utf-16"), written('"a":"\ud800"'), b'{"a":"\xc0\x80"}']
)
def test_what_is_no_utf8(raw: bytes) -> None:
    with pytest.raises(UnansweredFrame, match="UTF-8"):
        decode(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"1",
        b'"req"',
        b"null",
        b"[]",
        b"{}",
        frame(type="res"),
        frame(type=None),
        frame(type=["req"]),
        b'{"type":"event"}',
    ],
)
def test_what_is_no_request(raw: bytes) -> None:
    with pytest.raises(UnansweredFrame, match="request frames"):
        decode(raw)


@pytest.mark.parametrize("request_id", [None, 1, True, "", [], {}, "x" * (MAX_ID + 1)])
def test_ids_that_no_answer_could_carry(request_id: Any) -> None:
    with pytest.raises(UnansweredFrame, match="has an id"):
        decode(frame(id=request_id))


def test_an_id_that_is_no_text() -> None:
    """An answer to it could not be encoded."""
    with pytest.raises(UnansweredFrame, match="has an id"):
        decode(rb'{"type":"req","id":"\ud800","method":"health"}')


def test_no_id_at_all() -> None:
    with pytest.raises(UnansweredFrame, match="has an id"):
        decode(b'{"type":"req","method":"health"}')


def test_the_longest_id() -> None:
    assert decode(frame(id="x" * MAX_ID)).id == "x" * MAX_ID


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"id": OWN_ID_PREFIX + "1"}, "not for clients"),
        ({"method": ""}, "names a method"),
        ({"method": 1}, "names a method"),
        ({"method": None}, "names a method"),
        ({"method": ["health"]}, "names a method"),
        ({"params": None}, "params is an object"),
        ({"params": []}, "params is an object"),
        ({"params": "x"}, "params is an object"),
        ({"sessionKey": "agent:u-alice:main"}, "nothing else"),
        ({"payload": {}}, "nothing else"),
    ],
)
def test_refused_with_an_answer(members: dict[str, Any], said: str) -> None:
    with pytest.raises(AnswerableFrame, match=said) as caught:
        decode(frame(**members))
    assert caught.value.request_id == members.get("id", "1")
    assert caught.value.to_wire()["details"]["code"] == "MALFORMED_FRAME"


def test_params_may_be_left_out_and_a_trace_may_be_given() -> None:
    assert decode(frame()).params == {}
    assert decode(frame(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")).method == "health"


@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_depth(opened: str) -> None:
    """The frame is the first level and params the second."""
    closed = "]" if opened == "[" else "}"
    deepest = MAX_DEPTH - 2
    text = '"a":' + opened * deepest + "1" + closed * deepest
    assert decode(written(text)).params
    with pytest.raises(AnswerableFrame, match="levels deep"):
        decode(written('"a":' + opened * (deepest + 1) + "1" + closed * (deepest + 1)))


def test_members() -> None:
    own = len(("type", "id", "method", "params", "a"))
    assert decode(frame(params={"a": [0] * (MAX_MEMBERS - own)})).params
    with pytest.raises(AnswerableFrame, match="members"):
        decode(frame(params={"a": [0] * (MAX_MEMBERS - own + 1)}))
    with pytest.raises(AnswerableFrame, match="members"):
        decode(frame(params={"a": [[0, 0]] * (MAX_MEMBERS // 2)}))


@pytest.mark.parametrize("piece", ["[", "{", ","])
def test_structure_is_counted_before_it_is_parsed(piece: str) -> None:
    with pytest.raises(UnansweredFrame, match="simpler than this"):
        decode(piece.encode() * (MAX_STRUCTURE + 1))


def test_escapes_are_counted_before_they_are_read() -> None:
    half = MAX_ESCAPES // 2
    assert decode(written('"a":"' + r"\\" * half + '"')).params == {"a": "\\" * half}
    with pytest.raises(UnansweredFrame, match="simpler than this"):
        decode(written('"a":"' + r"\\" * (half + 1) + '"'))


def test_a_large_file_is_no_structure() -> None:
    content = "aGVsbG8h" * 500_000
    assert decode(frame(params={"content": content})).params == {"content": content}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"[" + b"[]," * MAX_STRUCTURE + b"1]", id="lists"),
        pytest.param(b'{"a":[' + b"{}," * MAX_STRUCTURE + b"1]}", id="objects"),
        pytest.param(b"[" + b"1," * MAX_STRUCTURE + b"1]", id="numbers"),
        pytest.param(b'"' + b"\\n" * (MAX_ESCAPES + 1) + b'"', id="escapes"),
    ],
)
def test_a_frame_that_would_take_seconds_is_not_parsed(value: bytes) -> None:
    with pytest.raises(UnansweredFrame, match="simpler"):
        decode(written('"a":' + value.decode()))
