"""Events of one shared agent differ in the session alone: what was found of one user's says nothing of the next one's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.domain.namespace import Layout
from sidecar.policy.events import Verdict, judge
from sidecar.protocol import frames
from sidecar.relay.heads import Heads, Judged
from tests.policy.people import TABLE

BOB = Layout("shared").namespace("example|bob", "u-bob")


def raw(event: str, slug: str, *, large: bool) -> bytes:
    """As a gateway writes them: `agent` events say whose they are behind their data."""
    text = "x" * (4000 if large else 10)
    scope = {"sessionKey": f"agent:shared:user:{slug}:main", "agentId": "shared"}
    payload: dict[str, Any] = {"runId": "r1", **scope, "state": "delta", "deltaText": text}
    if event == "agent":
        payload = {"runId": "r1", "stream": "assistant", "data": {"text": text}, **scope, "seq": 3, "ts": 1}
    frame = {"type": "event", "event": event, "payload": payload, "seq": 9}
    return json.dumps(frame, separators=(",", ":")).encode()


@pytest.mark.parametrize("event", ["chat", "agent"])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("first", ["u-bob", "u-alice", "u-bobby"])
def test_the_evidence_holds_the_session_and_not_the_agent_alone(event: str, large: bool, first: str) -> None:
    heads = Heads()
    for slug in (first, "u-bob", "u-alice", "u-bobby", "u-bo"):
        frame = raw(event, slug, large=large)
        found = heads.find(frame, 0, len(frame))
        scanned = frames.scan_event(frame) or frames.scan_agent_event(frame)
        assert scanned is not None
        verdict = judge(scanned[0], BOB, TABLE)
        assert verdict is (Verdict.PASS if slug == "u-bob" else Verdict.FOREIGN)
        assert found is None or found.verdict is verdict
        heads.learn(scanned[1], Judged(verdict, (event, verdict.value)))
        again = heads.find(frame, 0, len(frame))
        assert again is not None
        assert again.verdict is verdict
