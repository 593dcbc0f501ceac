"""Which runs live, as the gateway itself tells the sidecar's own connection, whoever started them."""

from __future__ import annotations

from typing import Any

from sidecar.domain.namespace import Layout
from sidecar.protocol import frames
from sidecar.quota.runs import Runs

_MARKS = {
    b'{"type":"event","event":"agent",': (b'"stream":"lifecycle"',),
    b'{"type":"event","event":"chat",': (b'"state":"final"', b'"state":"aborted"', b'"state":"error"'),
}
"""Most events say nothing of a run's begin or end: without one of these bytes they are not read."""

_CHAT_ENDS = frozenset({"final", "aborted", "error"})
_RUN_ENDS = frozenset({"end", "error"})


def watch(raw: bytes, runs: Runs, layout: Layout) -> None:
    """Take note of what an event of the gateway says of a user's run.

    `agent` events with the stream `lifecycle` say start, end and error; `chat` events end the runs that never had a lifecycle
    (queued, steered, answered from a command). Seen on 2026.9.6 and 2026.8.2.
    """
    marks = next((marks for head, marks in _MARKS.items() if raw.startswith(head)), ())
    if not any(mark in raw for mark in marks):
        return
    frame = frames.parse(raw) or {}
    payload = frame.get("payload")
    if not isinstance(payload, dict):
        return
    ends = _ends(frame["event"], payload)
    run_id, key, agent_id = payload.get("runId"), payload.get("sessionKey"), payload.get("agentId")
    if ends is None or not isinstance(run_id, str):
        return
    slug = layout.slug_of(key if isinstance(key, str) else None, agent_id if isinstance(agent_id, str) else None)
    if slug is None:
        return  # only users count; what the operator's own agents, or a shared one by itself, do is nobody's quota
    runs.ended(slug, run_id) if ends else runs.started(slug, run_id)


def _ends(event: str, payload: dict[str, Any]) -> bool | None:
    """True: the run is over; False: it begins; None: neither is said."""
    if event == "chat":
        return True if payload.get("state") in _CHAT_ENDS else None
    data = payload.get("data")
    phase = data.get("phase") if payload.get("stream") == "lifecycle" and isinstance(data, dict) else None
    return True if phase in _RUN_ENDS else False if phase == "start" else None
