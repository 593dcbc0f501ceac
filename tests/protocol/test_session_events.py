"""What events tell a listener to all sessions: which session, and what of its runs. Shapes as seen on 2026.9.6 and 2026.8.2."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol.session_events import (
    NOTHING_SAID,
    RunWord,
    end_of_chat,
    may_end_chat,
    runs_listed,
    runs_named,
    session_named,
)
from tests.protocol.json_values import VALUES
from tests.protocol.samples import EVENTS, Sample

KEY = "agent:u-bob:main"
CRON = "agent:u-bob:cron:7:run:8"


def raw(name: str, payload: Any) -> bytes:
    return orjson.dumps({"type": "event", "event": name, "payload": payload, "seq": 7})


def changed(**payload: Any) -> bytes:
    return raw("sessions.changed", {"sessionKey": KEY, "agentId": "u-bob", **payload})


@pytest.mark.parametrize("sample", EVENTS, ids=str)
def test_what_is_named_is_what_a_reader_of_the_whole_frame_finds(sample: Sample) -> None:
    payload = sample.frame.get("payload")
    found = payload.get("sessionKey") if isinstance(payload, dict) else None
    if sample.frame["event"] in {"sessions.changed", "session.message"}:
        assert session_named(sample.raw) == found
    elif sample.frame["event"] not in {"task", "cron"}:
        assert session_named(sample.raw) is None


@pytest.mark.parametrize(
    ("name", "payload", "key"),
    [
        ("sessions.changed", {"sessionKey": KEY, "phase": "start"}, KEY),
        ("sessions.changed", {"reason": "placement", "ts": 1.5, "more": None, "sessionKey": KEY}, KEY),
        ("sessions.changed", {"reason": "runner-availability"}, None),
        ("sessions.changed", {"row": {"sessionKey": KEY}}, None),
        ("session.message", {"sessionKey": KEY, "message": {"content": "x" * 5000}}, KEY),
        ("session.message", {"message": {"sessionKey": "agent:u-eve:main"}, "sessionKey": KEY}, None),
        ("chat", {"runId": "r", "sessionKey": KEY}, None),
        ("task", {"action": "upserted", "task": {"sessionKey": "", "childSessionKey": CRON}}, CRON),
        ("task", {"action": "upserted", "task": {"title": 'say "childSessionKey":"x"', "childSessionKey": CRON}}, CRON),
        ("task", {"action": "upserted", "task": {"sessionKey": KEY}}, None),
        ("cron", {"action": "finished", "jobId": "7", "sessionKey": CRON}, CRON),
        ("cron", {"action": "finished", "jobId": "7", "sessionKey": 7}, None),
        ("cron", {"action": "started", "jobId": "7", "sessionKey": CRON}, None),
        ("cron", ['"action":"finished"'], None),
    ],
)
def test_the_session_that_an_event_is_about(name: str, payload: Any, key: str | None) -> None:
    assert session_named(raw(name, payload)) == key


def test_what_is_cut_off_names_nothing() -> None:
    cut = b'{"type":"event","event":"task","payload":{"task":{"childSessionKey":"agent:u-bob:x'
    assert session_named(cut) is None
    assert session_named(b'{"type":"event","event":"cron","payload":{"action":"finished"') is None
    assert session_named(b'{"type":"event","event":"cron","payload":"\\"action\\":\\"finished\\""}') is None


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        ({"phase": "start", "runId": "r", "hasActiveRun": True, "activeRunIds": None}, RunWord(starts="r")),
        ({"phase": "start", "runId": "r", "clientRunId": "c"}, RunWord(starts="c")),
        ({"phase": "start", "runId": "r", "hasActiveRun": False, "activeRunIds": []}, RunWord(idle=True)),
        ({"phase": "start", "runId": 7}, NOTHING_SAID),
        ({"phase": "model", "runId": "r", "hasActiveRun": True}, NOTHING_SAID),
        ({"phase": "end", "runId": "r", "hasActiveRun": True}, RunWord(ends=("r",))),
        ({"phase": "error", "runId": "r", "clientRunId": "c", "hasActiveRun": False}, RunWord("", ("c", "r"), True)),
        ({"reason": "send", "hasActiveRun": True, "activeRunIds": ["a", "b", 7]}, RunWord(active=("a", "b"))),
        ({"reason": "delete"}, NOTHING_SAID),
    ],
)
def test_what_a_change_says_of_runs(payload: dict[str, Any], word: RunWord) -> None:
    assert runs_named(changed(**payload), KEY) == word


def test_only_the_end_of_a_jobs_own_session_is_the_end_of_its_runs() -> None:
    """A job may also work in a session where others work: those go on."""
    for key, word in ((CRON, RunWord(idle=True)), (KEY, NOTHING_SAID)):
        assert runs_named(raw("cron", {"action": "finished", "sessionKey": key}), key) == word


def test_other_events_say_nothing_of_runs() -> None:
    assert runs_named(raw("session.message", {"sessionKey": KEY, "phase": "start", "runId": "r"}), KEY) == NOTHING_SAID
    assert runs_named(raw("task", {"task": {"childSessionKey": KEY, "endedAt": 1}}), KEY) == NOTHING_SAID
    assert runs_named(raw("sessions.changed", []), KEY) == NOTHING_SAID


@given(VALUES)
def test_any_payload_is_survived(payload: Any) -> None:
    for name in ("sessions.changed", "session.message", "task", "cron"):
        key = session_named(raw(name, payload))
        word = runs_named(raw(name, payload), key or KEY)
        assert not (word.starts and word.idle), "a session in which one begins is not idle"
    over = end_of_chat(payload)
    assert over is None or over == payload["runId"]


@given(st.sampled_from(["final", "aborted", "error", "delta", "status", None]), st.sampled_from(["r", 7, None]))
def test_ends_of_chats(state: Any, run_id: Any) -> None:
    over = state in {"final", "aborted", "error"} and run_id == "r"
    assert end_of_chat({"runId": run_id, "state": state}) == ("r" if over else None)


def test_what_is_no_object_ends_nothing() -> None:
    assert end_of_chat("final") is None


HERS = {"key": KEY, "hasActiveRun": True, "activeRunIds": ["a", "b", 7]}
IDLE = {"key": CRON, "hasActiveRun": False}
ANOTHERS = {"key": "agent:u-eve:main", "hasActiveRun": True, "activeRunIds": ["e"]}


@pytest.mark.parametrize(
    ("answer", "living"),
    [
        ({"sessions": [], "hasMore": False}, set()),
        ({"sessions": [HERS, IDLE, ANOTHERS], "hasMore": False}, {"a", "b"}),
        (
            {"sessions": [HERS, {"key": CRON, "hasActiveRun": True, "activeRunIds": ["c"]}], "hasMore": False},
            {"a", "b", "c"},
        ),
        ({"sessions": [HERS], "hasMore": True}, None),
        ({"sessions": [HERS]}, None),
        ({"sessions": [HERS, {"hasActiveRun": False}], "hasMore": False}, None),
        ({"sessions": [HERS, "row"], "hasMore": False}, None),
        ({"sessions": [HERS, {"key": CRON, "hasActiveRun": True}], "hasMore": False}, None),
        ({"sessions": [HERS, {"key": CRON}], "hasMore": False}, None),
        ({"sessions": {}, "hasMore": False}, None),
        ([], None),
    ],
)
def test_the_runs_that_a_list_shows(answer: Any, living: set[str] | None) -> None:
    assert runs_listed(answer, lambda key: key.startswith("agent:u-bob:")) == living


@given(VALUES)
def test_any_list_is_survived(answer: Any) -> None:
    runs_listed(answer, lambda _: True)
    runs_listed({"sessions": [answer], "hasMore": False}, lambda _: True)


@pytest.mark.parametrize("sample", [sample for sample in EVENTS if sample.frame["event"] == "chat"], ids=str)
def test_only_what_may_be_the_last_event_of_an_answer_is_looked_into(sample: Sample) -> None:
    at = sample.raw.index(b'"seq":')
    state = sample.frame["payload"]["state"]
    assert may_end_chat(sample.raw, at, len(sample.raw)) == (state not in {"delta", "status"})
    assert not may_end_chat(sample.raw, at + 1, len(sample.raw))
