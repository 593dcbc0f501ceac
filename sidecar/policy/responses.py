"""Filters for the payload of a response: structure in, the user's own part of it out, and nothing of a shape unknown.

Shapes as gateway 2026.9.6 and 2026.8.2 answered them to a user's connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.domain.namespace import Namespace
from sidecar.policy.own import NOTHING, is_foreign_object, names_own, own, own_rows
from sidecar.policy.table import EventRow, MethodRow
from sidecar.protocol.handshake import own_health

Filter = Callable[[Any, Namespace], Any]


def filtered(row: MethodRow | EventRow, payload: Any, namespace: Namespace) -> Any:
    """The payload of an answer or event as its row lets it through; NOTHING where it is somebody else's."""
    seen = payload if row.response == "pass" else FILTERS[row.response](payload, namespace)
    if seen is not NOTHING and isinstance(row, MethodRow) and row.rows:
        seen = own_rows(seen, row.rows, namespace, row.own, row.without)
    if row.fields and seen is not NOTHING:
        return {name: seen[name] for name in seen if name in row.fields} if isinstance(seen, dict) else NOTHING
    return seen


def session_rows(payload: Any, namespace: Namespace) -> Any:
    """`sessions.list`: the own rows; counts are counts of them; no paths, no list of other owners."""
    if not isinstance(payload, dict) or not isinstance(payload.get("sessions"), list):
        return {"sessions": [], "count": 0, "totalCount": 0}
    rows = [own(row, namespace) for row in payload["sessions"] if _is_own_row(row, namespace)]
    head = {
        name: payload[name] for name in ("ts", "limitApplied", "nextOffset", "hasMore", "defaults") if name in payload
    }
    total = payload.get("totalCount")
    foreign = len(payload["sessions"]) - len(rows)
    total = max(len(rows), total - foreign) if isinstance(total, int) else len(rows)
    return {**_members(own(head, namespace)), "totalCount": total, "count": len(rows), "sessions": rows}


def _is_own_row(row: Any, namespace: Namespace) -> bool:
    return names_own(row, namespace) and isinstance(row.get("key"), str) and namespace.owns(row["key"])


def _members(seen: Any) -> dict[str, Any]:
    return seen if isinstance(seen, dict) else {}


def own_session(payload: Any, namespace: Namespace) -> Any:
    """A payload about one session: the caller's, as they may see it, or none. A key of another type than text is nobody's."""
    if not isinstance(payload, dict):
        return None
    for holder in (payload, payload.get("session")):
        keys = [holder.get("key"), holder.get("sessionKey")] if isinstance(holder, dict) else []
        if not all(key is None or (isinstance(key, str) and namespace.owns(key)) for key in keys):
            return {"session": None}
        if isinstance(holder, dict) and is_foreign_object(holder, namespace):
            return {"session": None}
    return own(payload, namespace)


def own_agent(payload: Any, namespace: Namespace) -> Any:
    """`agents.list`: a gateway with one agent, the caller's."""
    agents = payload.get("agents") if isinstance(payload, dict) else None
    listed = agents if isinstance(agents, list) else []
    rows = [own(row, namespace) for row in listed if isinstance(row, dict) and row.get("id") == namespace.agent_id]
    return {
        "defaultId": namespace.agent_id,
        "mainKey": "main",
        "scope": "per-sender",
        "agents": rows or [{"id": namespace.agent_id}],
    }


def health(payload: Any, namespace: Namespace) -> Any:
    return own_health(payload if isinstance(payload, Mapping) else {}, namespace)


_ENTRY_FIELDS = frozenset(
    {
        "archived", "archivedAt", "category", "chatType", "color", "compactionCount", "createdAt", "createdVia", "displayName",
        "endedAt", "icon", "kind", "label", "lastInteractionAt", "lifecycleRevision", "markedUnreadAt", "model",
        "modelOverrideSource", "modelProvider", "parentSessionKey", "pinned", "pinnedAt", "runtimeMs", "sessionId",
        "sessionStartedAt", "startedAt", "status", "totalTokens", "totalTokensFresh", "unread", "updatedAt",
    }
)  # fmt: skip
"""What `sessions.create` and `sessions.patch` may tell of the stored entry, which holds prompts and places of the host too."""


def changed_session(payload: Any, namespace: Namespace) -> Any:
    """`sessions.create` and `sessions.patch`: the own session, and of its stored entry only what is listed."""
    passed = own_session(payload, namespace)
    if not isinstance(passed, dict) or not isinstance(passed.get("entry"), dict):
        return passed
    entry = {name: value for name, value in passed["entry"].items() if name in _ENTRY_FIELDS}
    parent = entry.get("parentSessionKey")
    if isinstance(parent, str) and not namespace.owns(parent):
        del entry["parentSessionKey"]
    return {**passed, "entry": entry}


_ERROR_DETAILS = frozenset({"code", "reason", "missingScope", "requiredScopes", "limit", "method"})
_PLACE = re.compile(r"(https?://\S+)|(?:file:/*|(?<![\w./]))/(?:[\w.@+-]+/)+[\w.@+-]*|\b[A-Za-z]:\\\S+")
MAX_ERROR = 500


def error_of_gateway(error: Any) -> dict[str, Any]:
    """A gateway's error object, built anew: its code and words, no place of the host, and of the details what clients branch on."""
    error = error if isinstance(error, dict) else {}
    details = error.get("details")
    details = details if isinstance(details, dict) else {}
    kept = {name: _placeless(value) for name, value in details.items() if name in _ERROR_DETAILS}
    clean: dict[str, Any] = {
        "code": str(error.get("code", "UNAVAILABLE"))[:64],
        "message": _placeless(str(error.get("message", "the gateway gave no reason"))[:MAX_ERROR]),
    }
    if kept:
        clean["details"] = kept
    if error.get("retryable") is True:
        clean["retryable"] = True
    if isinstance(error.get("retryAfterMs"), int):
        clean["retryAfterMs"] = error["retryAfterMs"]
    return clean


def _placeless(value: Any) -> Any:
    """Text without absolute paths; addresses on the web are no places of the host. Other scalars stay, all else is left out."""
    if isinstance(value, str):
        return _PLACE.sub(lambda found: found[1] or "…", value)
    if isinstance(value, list):
        return [one for one in value if isinstance(one, str) and _PLACE.search(one) is None]
    return value if isinstance(value, (int, float)) else None


FILTERS: Mapping[str, Filter] = {
    "session-rows": session_rows,
    "own-session": own_session,
    "changed-session": changed_session,
    "own-agent": own_agent,
    "health": health,
    "own": own,
}
