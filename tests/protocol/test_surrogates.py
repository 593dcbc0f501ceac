"""Half a surrogate pair (an emoji cut in two): V8 writes and reads it, so a gateway's frame may hold one."""

from __future__ import annotations

import json

import pytest

from sidecar.protocol import frames

HALF = "\ud83d"
EVENT = (
    b'{"type":"event","event":"chat","payload":{"runId":"r","sessionKey":"agent:u-bob:main","text":"\\ud83d"},"seq":3}'
)


def test_it_is_read() -> None:
    event = frames.read_event(EVENT)
    assert event is not None
    assert (event.name, event.session_key) == ("chat", "agent:u-bob:main")
    assert frames.parse(b'{"type":"res","id":"1","ok":true,"payload":"\\ud83d"}') == {
        "type": "res",
        "id": "1",
        "ok": True,
        "payload": HALF,
    }
    assert frames.response_id(b'{ "type":"res","id":"1","ok":true,"payload":"\\ud83d"}') == "1"


@pytest.mark.parametrize(
    "written",
    [
        frames.response("1", {"text": HALF}),
        frames.event("health", {"text": HALF}),
        frames.failure("1", {"message": HALF}),
    ],
)
def test_it_is_written_as_it_came(written: bytes) -> None:
    assert b"\\ud83d" in written
    assert HALF in json.dumps(json.loads(written), ensure_ascii=False)


@pytest.mark.parametrize("raw", [b"{", b"[" * 100_000, b'{"a":\xff}'])
def test_what_neither_reads_is_no_frame(raw: bytes) -> None:
    assert frames.parse(raw) is None
    assert frames.read_event(raw) is None
