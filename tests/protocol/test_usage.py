"""Model calls as transcripts tell of them: shapes of 2026.9.6 and 2026.8.2, and whatever else may stand there."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.usage import Tokens
from sidecar.protocol.usage import (
    MOST_PLACES,
    Reported,
    Unfinished,
    heard,
    left_out,
    listed,
    place,
    unanswered,
    unshown,
)

KEY = "agent:u-alice:main"


def answer(**changes: Any) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": "hello"}],
        "api": "openai-completions",
        "provider": "echo",
        "model": "echo-1",
        "usage": {
            "input": 808,
            "output": 50,
            "cacheRead": 200,
            "cacheWrite": 7,
            "totalTokens": 1065,
            "cost": {"input": 0.002424, "output": 0.00075, "cacheRead": 6e-05, "cacheWrite": 0, "total": 0.003234},
        },
        "stopReason": "stop",
        "timestamp": 1795219909771,
        "__openclaw": {"runId": "run-1", "id": "message-1", "recordTimestampMs": 1795219909887, "seq": 14},
    }
    return message | changes


def aborted(**changes: Any) -> dict[str, Any]:
    zeros = {"input": 0, "output": 0, "totalTokens": 0, "cacheRead": 0, "cacheWrite": 0, "cost": {"total": 0}}
    stopped = {"openclawAbort": {"aborted": True, "origin": "rpc", "runId": "run-1"}}
    return answer(provider="openclaw", model="gateway-injected", usage=zeros, **stopped) | changes


def event(message: Any, **changes: Any) -> bytes:
    payload = {"sessionKey": KEY, "agentId": "u-alice", "message": message, "messageId": "message-1"} | changes
    return json.dumps({"type": "event", "event": "session.message", "payload": payload}, separators=(",", ":")).encode()


def test_a_call_with_its_figures() -> None:
    assert heard(event(answer())) == (
        KEY,
        Reported(
            message_id="message-1",
            run_id="run-1",
            provider="echo",
            model="echo-1",
            tokens=Tokens(input=808, output=50, cache_read=200, cache_write=7),
            cost_usd=Decimal("0.003234"),
            at=1795219909.887,
            stop_reason="stop",
        ),
    )


def test_an_answer_that_was_stopped_is_no_call_but_its_text_counts() -> None:
    assert listed(aborted()) == Unfinished("message-1", "run-1", 5, 1795219909.887)
    assert listed(aborted(content="twelve chars")) == Unfinished("message-1", "run-1", 12, 1795219909.887)
    assert listed(aborted(content=None)) == Unfinished("message-1", "run-1", 0, 1795219909.887)
    assert listed(aborted(content=[{"type": "image"}, 7, {"text": 3}])) == Unfinished(
        "message-1", "run-1", 0, 1795219909.887
    )


@pytest.mark.parametrize(("stop", "error"), [("error", "error"), ("aborted", "")])
def test_an_answer_that_failed_has_no_figures(stop: str, error: str) -> None:
    found = listed(answer(usage={"input": 0}, stopReason=stop))
    assert found == Unfinished("message-1", "run-1", 5, 1795219909.887, "echo", "echo-1", error)
    assert isinstance(listed(answer(stopReason=stop)), Reported), "its figures count where there are any"


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param(None, id="none"),
        pytest.param({"input": 0, "output": 0}, id="zeros"),
        pytest.param({"input": True, "output": "7", "cacheRead": -1, "cacheWrite": float("nan")}, id="none that count"),
        pytest.param({"input": 2**53}, id="more than there can be"),
    ],
)
@pytest.mark.parametrize("stop", ["stop", "toolUse", "length"])
def test_a_provider_that_counts_nothing(usage: Any, stop: str) -> None:
    found = listed(answer(usage=usage, stopReason=stop))
    assert found == Unfinished("message-1", "run-1", 5, 1795219909.887, "echo", "echo-1", uncounted=True)


@pytest.mark.parametrize(
    ("text", "chars"),
    [
        ("\N{WARNING SIGN}\ufe0f LLM request failed (request format rejected, HTTP 400).", 0),
        ("\N{WARNING SIGN}\ufe0f LLM request failed (request timed out). This is usually temporary.\n\nw0 w1\n\nw2", 9),
        ("The agent run failed before producing a reply.", 0),
        ("w0 w1\n\nw2", 9),
    ],
)
def test_what_a_gateway_says_of_a_failure_is_no_answer(text: str, chars: int) -> None:
    found = listed(answer(usage={}, stopReason="error", content=[{"type": "text", "text": text}]))
    assert isinstance(found, Unfinished)
    assert found.text_chars == chars


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(answer(role="user"), id="a person's"),
        pytest.param(aborted(openclawAbort=None), id="a notice of the gateway's"),
        pytest.param(answer(usage=None, stopReason="paused"), id="no figures, and no word that it is over"),
        pytest.param(answer(usage=None, provider="openclaw", model="delivery-mirror"), id="what the gateway put there"),
        pytest.param(answer(provider=None), id="no provider"),
        pytest.param(answer(model=7), id="no model"),
        pytest.param(answer(__openclaw={}), id="no id"),
        pytest.param(answer(__openclaw={"id": ""}), id="an empty id"),
        pytest.param(answer(__openclaw=[]), id="no stamp"),
        pytest.param(None, id="no message"),
    ],
)
def test_no_call(message: Any) -> None:
    assert listed(message) is None
    assert heard(event(message)) is None


def test_what_may_be_missing() -> None:
    call = listed(answer(__openclaw={"id": "m", "runId": 7}, usage={"output": 3}, stopReason=None))
    assert call == Reported("m", "", "echo", "echo-1", Tokens(output=3), None, 1795219909.771, "")


@pytest.mark.parametrize("total", [0, -1, 1e9, float("inf"), "0.3", None])
def test_no_price(total: Any) -> None:
    call = listed(answer(usage={"output": 3, "cost": {"total": total}}))
    assert isinstance(call, Reported)
    assert call.cost_usd is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b'{"type":"event","event":"sessions.changed","payload":{"sessionKey":"agent:u-alice:main"},"seq":1}',
        event(answer(), sessionKey=7),
        event(answer())[:-2],
        b'{"type":"event","event":"session.message","payload":{"role":"assistant"}}',
    ],
)
def test_other_events(raw: bytes) -> None:
    assert heard(raw) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*answer(), "total", "id"]), inner, max_size=6)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from([*answer(), "openclawAbort"]), _JSON))
def test_whatever_stands_there(changes: dict[str, Any]) -> None:
    """It is read, or it is no call; what is read can be stored."""
    found = listed(answer() | changes)
    assert found is None or (found.message_id and found.at >= 0)
    if isinstance(found, Reported):
        assert 0 < found.tokens.total <= 4 * 10**9
        assert found.cost_usd is None or 0 < found.cost_usd <= 1_000_000


RUN = "run-1"


def said(role: str, number: int, *, key: str | None = None, run: str = "", **more: Any) -> dict[str, Any]:
    stamp: dict[str, Any] = {"id": f"m{number}", "recordTimestampMs": 1_000_000 + number * 1000}
    if key is not None:
        stamp["idempotencyKey"] = key
    if run:
        stamp["runId"] = run
    return {"role": role, "content": [{"type": "text", "text": "…"}], "__openclaw": stamp} | more


ASKED = said("user", 1, key=f"{RUN}:user")
TOOLS = said("assistant", 2, run=RUN, content=[{"type": "toolCall", "id": "a"}, {"type": "toolCall", "id": "b"}])
RESULT = said("toolResult", 3, run=RUN)
SECOND = said("toolResult", 4, run=RUN)
ANSWER = said("assistant", 5, run=RUN)
STOPPED = said("assistant", 5, model="gateway-injected", openclawAbort={"aborted": True, "runId": RUN})
OTHERS = [said("user", 6, key="run-2:user"), said("assistant", 7, run="run-2")]


@pytest.mark.parametrize(
    ("messages", "waits"),
    [
        pytest.param([ASKED], "m1", id="no word yet"),
        pytest.param([ASKED, *OTHERS], "m1", id="others went on"),
        pytest.param([*OTHERS, ASKED], "m1", id="others were before"),
        pytest.param([ASKED, TOOLS], "", id="at its tools"),
        pytest.param([ASKED, TOOLS, RESULT], "", id="at the second tool"),
        pytest.param([ASKED, TOOLS, RESULT, SECOND], "m4", id="after its tools"),
        pytest.param([ASKED, TOOLS, RESULT, SECOND, ANSWER], "", id="answered"),
        pytest.param([ASKED, STOPPED], "", id="stopped in its answer: that has a message of its own"),
        pytest.param([ASKED, ANSWER, *OTHERS], "", id="answered, and others went on"),
        pytest.param(OTHERS, "", id="not there"),
        pytest.param([said("user", 1)], "m1", id="a person without an id, since then"),
        pytest.param([said("user", -9)], "", id="a person without an id, before"),
        pytest.param([said("assistant", 1)], "", id="an answer without an id"),
        pytest.param(["x", None, {"role": "user", "__openclaw": 1}], "", id="no messages"),
        pytest.param([{"role": "user", "__openclaw": {"idempotencyKey": RUN, "id": 5}}], "", id="no id"),
        pytest.param([said("user", 1, key=RUN), said("assistant", 2, run=RUN, content="…")], "", id="text alone"),
    ],
)
def test_what_a_run_left(messages: list[Any], waits: str) -> None:
    found = unanswered(messages, RUN, began=1000.0)
    assert (found.message_id if found else "") == (f"after:{waits}" if waits else "")
    assert found is None or (found.wordless and found.run_id == RUN)


@given(st.lists(_JSON | st.builds(dict, role=st.sampled_from(["user", "assistant", "toolResult"]), __openclaw=_JSON)))
def test_whatever_a_run_left(messages: list[Any]) -> None:
    found = unanswered(messages, RUN, began=0.0)
    assert found is None or (found.wordless and found.run_id == RUN and not found.text_chars)


def changed(**payload: Any) -> bytes:
    told = {"type": "event", "event": "sessions.changed", "payload": payload}
    return json.dumps(told, separators=(",", ":")).encode()


def test_a_message_that_is_shown_to_nobody() -> None:
    assert unshown(changed(sessionKey=KEY, phase="message", messageId="message-7", messageSeq=4)) == (KEY, "message-7")


@pytest.mark.parametrize(
    "raw",
    [
        changed(sessionKey=KEY, phase="message"),
        changed(sessionKey=KEY, phase="message", messageId=""),
        changed(sessionKey=7, phase="message", messageId="message-7"),
        changed(sessionKey=KEY, phase="end", messageId="message-7"),
        changed(sessionKey=KEY, phase="end", messageId="message-7", x={"phase": "message"}),
        changed(sessionKey=KEY, phase="message", messageId="message-7")[:-1],
        event(answer()),
        b"",
    ],
)
def test_events_of_what_is_shown(raw: bytes) -> None:
    assert unshown(raw) is None


def at(seq: int, seconds: float = 100, **stamp: Any) -> dict[str, Any]:
    return {"role": "user", "__openclaw": {"seq": seq, "recordTimestampMs": seconds * 1000, **stamp}}


@pytest.mark.parametrize(
    ("messages", "last", "first", "places"),
    [
        ([at(1), at(2), at(3)], 3, True, set[int]()),
        ([at(2), at(4)], 5, True, {1, 3, 5}),
        ([at(2), at(4)], 5, False, {3, 5}),
        ([at(2), at(3, reason="oversized")], 3, True, {1, 3}),
        ([at(1), at(3, 40), at(6)], 6, True, {4, 5}),
        ([at(3, 40)], 4, True, {4}),
        ([], 2, True, {1, 2}),
        ([], 2, False, set[int]()),
        ([], 0, True, set[int]()),
        ([at(1)], -200, True, set[int]()),
        ([{"role": "user"}, 7, at(2)], 2, True, {1}),
    ],
)
def test_what_a_page_leaves_out(messages: list[Any], last: int, first: bool, places: set[int]) -> None:
    assert left_out(messages, last, 50, first=first) == places


def test_no_more_places_are_looked_for_than_can_be_found() -> None:
    assert len(left_out([], 10**12, 0, first=True)) == MOST_PLACES


@pytest.mark.parametrize("message", [7, None, {}, {"__openclaw": 7}, {"__openclaw": {"seq": True}}, at(-1)])
def test_no_place(message: Any) -> None:
    assert place(message) == 0
