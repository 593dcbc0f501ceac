"""Which runs live, as the gateway itself tells the sidecar's own connection, whoever started them."""

from __future__ import annotations

from typing import Any

from sidecar.domain.namespace import agent_of
from sidecar.protocol import frames
from sidecar.quota.runs import Runs, is_slug_of_user

_CHAT_ENDS = frozenset({"final", "aborted", "error"})
_CHAT_END_MARKS = (b'"state":"final"', b'"state":"aborted"', b'"state":"error"')
_RUN_ENDS = frozenset({"end", "error"})
_HEAD = 2000


def watch(event: frames.Event, raw: bytes, runs: Runs) -> None:
    """Take note of what `event` says of a user's run; most events say nothing of it.

    `agent` events with the stream `lifecycle` say start, end and error; `chat` events end the runs that never had a lifecycle
    (queued, steered, answered from a command). Seen on 2026.9.6 and 2026.8.2.
    """
    if event.name == "agent":
        payload = _payload(event, raw)
        if payload.get("stream") != "lifecycle":
            return
        data = payload.get("data")
        phase = data.get("phase") if isinstance(data, dict) else None
        ends = phase in _RUN_ENDS
        if not ends and phase != "start":
            return
    elif event.name == "chat":
        if event.payload is frames.UNREAD and not any(mark in raw[:_HEAD] for mark in _CHAT_END_MARKS):
            return
        payload = _payload(event, raw)
        ends = payload.get("state") in _CHAT_ENDS
        if not ends:
            return
    else:
        return
    slug, run_id = agent_of(event.session_key or "") or event.agent_id, payload.get("runId")
    if slug is None or not is_slug_of_user(slug) or not isinstance(run_id, str):
        return
    runs.ended(slug, run_id) if ends else runs.started(slug, run_id)


def _payload(event: frames.Event, raw: bytes) -> dict[str, Any]:
    payload = (frames.parse(raw) or {}).get("payload") if event.payload is frames.UNREAD else event.payload
    return payload if isinstance(payload, dict) else {}
