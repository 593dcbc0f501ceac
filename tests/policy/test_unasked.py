"""Which events only come to whoever subscribed, and which runs a gateway keeps to them. Shapes as seen on 2026.9.6 and 2026.8.2."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from sidecar.policy.unasked import Reach, hidden_run, reach
from tests.protocol.json_values import VALUES


@pytest.mark.parametrize(
    ("name", "payload", "told"),
    [
        ("chat", {"state": "delta"}, Reach.ANYBODY),
        ("agent", {"stream": "assistant"}, Reach.ANYBODY),
        ("session.message", {"message": {}}, Reach.SESSIONS),
        ("session.observer", {}, Reach.SESSIONS),
        ("session.typing", {}, Reach.MESSAGES),
        ("sessions.changed", {"phase": "message"}, Reach.SESSIONS),
        ("sessions.changed", {"reason": "activity-summary"}, Reach.ANYBODY),
        ("sessions.changed", None, Reach.ANYBODY),
    ],
)
def test_who_gets_an_event_on_a_gateway_of_their_own(name: str, payload: Any, told: Reach) -> None:
    assert reach(name, payload) is told


@pytest.mark.parametrize(
    ("payload", "hidden"),
    [
        ({"runId": "r", "stream": "lifecycle", "data": {"phase": "start"}}, None),
        ({"runId": "r", "stream": "lifecycle", "isHeartbeat": False}, None),
        ({"runId": "r", "stream": "lifecycle", "isHeartbeat": True}, "r"),
        ({"runId": "r", "stream": "lifecycle", "session": {"key": "agent:u-bob:main"}}, "r"),
        ({"runId": "r", "stream": "tool", "session": {"key": "agent:u-bob:main"}}, None),
        ({"runId": 7, "stream": "lifecycle", "session": {}}, None),
        ("text", None),
    ],
)
def test_runs_that_are_kept_to_subscribers(payload: Any, hidden: str | None) -> None:
    assert hidden_run(payload) == hidden


@given(VALUES)
def test_any_payload_is_survived(payload: Any) -> None:
    hidden = hidden_run(payload)
    assert hidden is None or hidden == payload["runId"]
    assert reach("sessions.changed", payload) in {Reach.ANYBODY, Reach.SESSIONS}
