"""Events that a gateway sends only to whoever asked for them, told apart where the sidecar asked and the client did not.

The sidecar subscribes to a user's sessions so that the gateway sends their events at all (`session-scoped-events`). That brings
more than `chat` and `agent`: what is only for subscribers, and the runs that a gateway keeps from everybody else. A client of a
gateway of its own would not get these. Seen on 2026.9.6 and 2026.8.2, on connections with and without each subscription.
"""

from __future__ import annotations

import enum
from typing import Any


class Reach(enum.Enum):
    """Who gets an event of a session on a gateway of their own."""

    ANYBODY = enum.auto()
    SESSIONS = enum.auto()
    """Who subscribed to all sessions, or to this one's messages."""

    MESSAGES = enum.auto()
    """Who subscribed to this session's messages."""


_REACH = {
    "session.message": Reach.SESSIONS,
    "session.observer": Reach.SESSIONS,
    "session.typing": Reach.MESSAGES,
}


def reach(name: str, payload: Any) -> Reach:
    """`payload` counts for `sessions.changed` alone: a message that is not shown is told of as a change."""
    if name == "sessions.changed" and isinstance(payload, dict) and payload.get("phase") == "message":
        return Reach.SESSIONS
    return _REACH.get(name, Reach.ANYBODY)


def hidden_run(payload: Any) -> str | None:
    """The run that an `agent` event belongs to, where its gateway hides that run from whoever did not subscribe to its messages.

    Heartbeats, and what a channel or a sub-agent's word to its parent begins. Their events carry the session's row, as else only
    those of tools do; the first one always comes before the run's first `chat` event.
    """
    if not isinstance(payload, dict) or payload.get("stream") == "tool":
        return None
    hidden = "session" in payload or payload.get("isHeartbeat") is True
    run_id = payload.get("runId")
    return run_id if hidden and isinstance(run_id, str) else None
