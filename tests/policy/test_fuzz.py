"""Mutated frames of real clients and of a real gateway: none is an error of ours, and none crosses over.

50,000 of each kind, 1,000,000 under `HYPOTHESIS_PROFILE=deep`; from `FUZZ_SEED` where it is set, and a failure says which it was.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson

from sidecar.errors import ForeignKey, MalformedFrame, MethodRefused
from sidecar.policy.events import Verdict, judge, rewrite
from sidecar.policy.own import NOTHING, at_places
from sidecar.policy.requests import Answer, Patched, decide
from sidecar.policy.responses import filtered
from sidecar.policy.table import Class
from sidecar.protocol import frames
from sidecar.protocol.requests import AnswerableFrame, UnansweredFrame, decode, encode
from tests.policy import mutations
from tests.policy.oracle import holds_anothers_session, obeys
from tests.policy.people import BOB, TABLE

COUNT = 1_000_000 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 50_000
SEED = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**32))
PATCHED = Patched("/srv/openclaw/users/u-bob", "u-bob")
REQUEST_FIELDS = {"type", "id", "method", "params", "traceparent"}


def run(make: Callable[[random.Random], bytes], check: Callable[[bytes], str]) -> Counter[str]:
    """Checks `COUNT` frames and counts what became of them; a failure says how to see it again."""
    outcomes: Counter[str] = Counter()
    rng = random.Random(SEED)
    for number in range(COUNT):
        raw = make(rng)
        try:
            outcomes[check(raw)] += 1
        except Exception as error:
            raise AssertionError(
                f"FUZZ_SEED={SEED}, frame {number}: {type(error).__name__}: {error}\n{raw!r}"
            ) from error
    return outcomes


def plentiful(outcomes: Counter[str], *wanted: str) -> None:
    """Every outcome came up often enough to say something: else the fuzz proves nothing."""
    assert set(outcomes) <= set(wanted), outcomes
    assert min(outcomes[outcome] for outcome in wanted) > COUNT // 200, f"FUZZ_SEED={SEED}: {outcomes}"


# --- from clients ----------------------------------------------------------------------------------------------------


def client_frame(rng: random.Random) -> bytes:
    raw = mutations.written(rng, mutations.restructured(rng, mutations.request(rng), "params"))
    if rng.random() < 0.5:
        return raw
    return mutations.damaged(rng, raw, mutations.written(rng, mutations.request(rng)))


def through_to_the_gateway(raw: bytes) -> str:
    """As a connection of Bob's treats what its client sent."""
    try:
        request = decode(raw)
    except UnansweredFrame:
        return "unread"
    except AnswerableFrame as error:
        orjson.loads(frames.refusal(error.request_id, error))
        return "malformed"
    patched = PATCHED if len(raw) % 2 else None
    try:
        decision = decide(request.method, request.params, BOB, TABLE, new_id=lambda: "ours", patched=patched)
    except (MethodRefused, ForeignKey, MalformedFrame) as error:
        orjson.loads(frames.refusal(request.id, error))
        return type(error).__name__
    if isinstance(decision, Answer):
        orjson.loads(frames.response(request.id, decision.payload))
        return "answered"
    sent = encode(request.id, request.method, decision.params) if decision.changed else request.raw
    _check_sent(sent, request.id, patched)
    return "rewritten" if decision.changed else "same bytes"


def _check_sent(sent: bytes, request_id: str, patched: Patched | None) -> None:
    """Read as the gateway reads it: escapes resolved, the last of two equal keys kept."""
    seen = json.loads(sent)
    row = TABLE.methods[seen["method"]]
    params = seen.get("params", {})
    assert seen["id"] == request_id
    assert set(seen) <= REQUEST_FIELDS
    starts = row.starts_run and (not row.starts_when or any(params.get(name) is not None for name in row.starts_when))
    if patched is not None and starts:
        assert params.pop("workspaceDir") == patched.workspace_dir
        assert params.pop("authProfileId") == patched.auth_profile_id
    assert {name for name in row.force if not any(params.get(one) for one in row.unless.get(name, ()))} <= set(params)
    assert {name: params.pop(name) for name in row.fixed} == row.fixed
    wrong = {name: value for name, value in params.items() if not obeys(row.params.get(name), value)}
    assert not wrong, wrong


def test_frames_of_clients() -> None:
    plentiful(
        run(client_frame, through_to_the_gateway),
        *(
            "unread",
            "malformed",
            "MethodRefused",
            "ForeignKey",
            "MalformedFrame",
            "answered",
            "rewritten",
            "same bytes",
        ),
    )


# --- from a gateway --------------------------------------------------------------------------------------------------


def gateway_frame(rng: random.Random) -> bytes:
    return mutations.written(rng, mutations.restructured(rng, mutations.event(rng), "payload"))


def damaged_gateway_frame(rng: random.Random) -> bytes:
    return mutations.damaged(rng, gateway_frame(rng), gateway_frame(rng))


class _Twice(ValueError):
    """An object that names a key twice: no `JSON.stringify` writes one."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Twice
    return members


def _holds_more_objects(frame: dict[str, Any]) -> bool:
    """Beside its payload: no gateway writes such a frame."""
    return any(isinstance(member, dict) for name, member in frame.items() if name not in {"payload", "stateVersion"})


def _theirs_by_a_whole_parse(frame: Any) -> bool:
    """Does the event name Bob's session or agent at its payload's top, and nobody else's?"""
    payload = frame["payload"]
    key, agent = payload.get("sessionKey"), payload.get("agentId")
    own_key = isinstance(key, str) and key.startswith("agent:u-bob:") and key != "agent:u-bob:"
    return (own_key and (agent is None or agent == "u-bob")) or (key is None and agent == "u-bob")


def through_to_bob(raw: bytes) -> str:
    """As a connection of Bob's treats what its gateway sent."""
    read = frames.read_event(raw)
    scans = [frames.scan_event(raw), frames.scan_agent_event(raw)]
    frames.response_id(raw)
    lowered = frames.resequence(raw, 2)
    verdict = judge(read, BOB, TABLE) if read else Verdict.UNLISTED
    if verdict is Verdict.REWRITE:
        assert read is not None
        payload = rewrite(read.name, (frames.parse(raw) or {}).get("payload"), BOB, TABLE)
        assert payload is NOTHING or not holds_anothers_session(json.loads(frames.dump(payload)))
    try:
        frame = json.loads(raw.decode(), object_pairs_hook=_members)
    except (ValueError, RecursionError):
        return "unreadable"
    if not isinstance(frame, dict) or _holds_more_objects(frame):
        return "unreadable"
    for event, _ in filter(None, scans):
        assert event[:3] == (frame["event"], frame["payload"].get("sessionKey"), frame["payload"].get("agentId"))
    if lowered is not raw:
        assert json.loads(lowered) == {**frame, "seq": frame["seq"] - 2}
    if verdict is Verdict.PASS and frame["event"] in mutations.OWN_EVENTS:
        assert _theirs_by_a_whole_parse(frame)
    return verdict.value


def seen_whole(raw: bytes) -> str:
    """Of a frame that a gateway could write, the verdict is that of a whole parse, in both directions."""
    outcome = through_to_bob(raw)
    frame = json.loads(raw)
    if frame["event"] in mutations.OWN_EVENTS:
        assert (outcome == Verdict.PASS.value) == _theirs_by_a_whole_parse(frame)
    return outcome


def test_frames_of_a_gateway() -> None:
    plentiful(run(gateway_frame, seen_whole), "pass", "rewrite", "foreign", "unlisted")


def test_damaged_frames_of_a_gateway() -> None:
    outcomes = run(damaged_gateway_frame, through_to_bob)
    plentiful(outcomes, "pass", "foreign", "unlisted", "rewrite", "unreadable")


# --- answers of a gateway -----------------------------------------------------------------------------------------------

FILTERED = [row for row in TABLE.methods.values() if row.passage in {Class.FILTER, Class.AS_ADMIN}]


def method_answer(rng: random.Random) -> bytes:
    row = rng.choice(FILTERED)
    return mutations.written(rng, {"method": row.name, "payload": mutations.answer(rng)})


def answered_to_bob(raw: bytes) -> str:
    """As a connection of Bob's treats the payload of an answer to what he asked."""
    frame = json.loads(raw)
    row = TABLE.methods[frame["method"]]
    seen = filtered(row, frame["payload"], BOB)
    if seen is NOTHING:
        return "nothing"
    said = frames.response("1", seen)
    assert b"alice" not in said.lower(), said
    for places in row.learns.values():
        assert not any("alice" in one for one in at_places(seen, places))
    return "whole" if seen == frame["payload"] else "filtered"


def test_answers_of_a_gateway() -> None:
    plentiful(run(method_answer, answered_to_bob), "nothing", "whole", "filtered")
