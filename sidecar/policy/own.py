"""The universal filter: whatever a gateway answers, without what is somebody else's and without places on its host.

It needs to know no shape, only how a gateway names owners (2026.9.6 and 2026.8.2): by session keys (`agent:<id>:…`, anywhere), by
members that hold an agent's id, and by the identity that stands for a user, which is the user's slug.

    an object that names a foreign owner     is taken out: of its list, of its parent, or as a whole
    a foreign key, agent or slug elsewhere   the member or list element that is it
    a place on the host                      the member
    what people and agents said              stays as it is
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sidecar.domain.namespace import Namespace, agent_of

HOST_FIELDS = frozenset(
    {
        "agentDir",
        "baseDir",
        "configPath",
        "credentialPath",
        "cwd",
        "hostname",
        "prefsPath",
        "repoRoot",
        "resolvedPath",
        "senderProfileAvatarUrl",
        "sessionDiffBaseline",
        "sessionFile",
        "sessionRoot",
        "skillsSnapshot",
        "sqlitePath",
        "stateDir",
        "storePath",
        "systemPromptReport",
        "workspace",
        "workspaceDir",
    }
)
"""Members that name places on the gateway's host (the prompt and its report list skills by path), or its other HTTP surface."""

PLACE_FIELDS = frozenset({"dir", "file", "filePath", "path", "root"})
"""Members that may name a place on the host, or one in the user's own workspace: those that lead there by themselves are places."""

SAID = frozenset({"content", "text", "message", "arguments"})
"""Members that hold what was said: whoever may see the object may see them whole."""

TITLES = frozenset({"derivedTitle", "displayName", "label", "lastMessagePreview"})
"""Members that people and agents fill in an object that has an own session's key; elsewhere they may name somebody."""

NOTHING: Any = object()
"""What is left of a foreign payload."""

_AGENT_MEMBER = re.compile(r"(?:\w*A|a)gentIds?|agent")
_SLUG = re.compile(r"u-[a-z0-9]{1,48}")
_PLACE = re.compile(r"(?:file:/*)?/[^\s/]+/(?:\S*|.*/[^/]*)|[A-Za-z]:\\.+")
"""With a space in it only where a slash follows: `/help me` and `/etc/hosts is empty` are prose."""
_ABSOLUTE = re.compile(r"\s*(?:[/~\\]|[A-Za-z]:|file:)")


def own(value: Any, namespace: Namespace) -> Any:
    """A payload, or a part of one, as its reader may see it; NOTHING where it is somebody else's."""
    if isinstance(value, Mapping):
        return NOTHING if is_foreign_object(value, namespace) else _members(value, namespace)
    if isinstance(value, list):
        return [seen for one in value if (seen := own(one, namespace)) is not NOTHING]
    if isinstance(value, str) and (_is_foreign(value, namespace) or _PLACE.fullmatch(value)):
        return NOTHING
    return value


def own_rows(
    payload: Any, lists: Collection[str], namespace: Namespace, owner: str = "", without: Sequence[str] = ()
) -> Any:
    """`payload` whose members `lists` hold only rows that name the caller; counts beside them are counts of what stayed.

    `.` is the payload itself. `owner`: the member of a row that says whose it is; empty: the row. `without`: places in a row where
    nothing may stand. A row that names nobody is taken for somebody's, and so is every list or object beside the lists. NOTHING
    where the payload can have no lists.
    """

    def own_of(rows: Any) -> list[Any]:
        return [row for row in rows if is_own(row)] if isinstance(rows, list) else []

    def is_own(row: Any) -> bool:
        named = row.get(owner) if owner and isinstance(row, Mapping) else row
        return names_own(named, namespace) and not any(values_at(row, without))

    if "." in lists:
        return own_of(payload)
    if not isinstance(payload, Mapping):
        return NOTHING
    kept = {name: own_of(member) for name, member in payload.items() if name in lists}
    rest = {name: one for name, one in payload.items() if name not in lists and not isinstance(one, (dict, list))}
    counts = dict.fromkeys(_COUNTS & rest.keys(), max(map(len, kept.values()), default=0))
    return rest | counts | kept


def names_own(row: Any, namespace: Namespace) -> bool:
    """Does the object say that it is the caller's, and nothing else?"""
    if not isinstance(row, Mapping) or is_foreign_object(row, namespace):
        return False
    return bool(row.get("agentId") or row.get("sessionKey")) or _is_key(row.get("key"))


def is_foreign_object(value: Mapping[str, Any], namespace: Namespace) -> bool:
    """Does it name an owner that is not the caller? An agent beside an own key is the key's."""
    key, agent, named = value.get("sessionKey"), value.get("agentId"), value.get("key")
    key = None if key == "" else key  # automations of an agent that belong to no session (2026.9.6)
    named = named if isinstance(named, str) and _is_key(named) else None
    if named is not None and not namespace.owns(named):
        return True
    scope = named if key is None else key
    if not all(isinstance(one, str) or one is None for one in (scope, agent)):
        return True
    return not (scope is None and agent is None) and not namespace.covers(scope, agent)


def at_places(payload: Any, places: Sequence[str]) -> list[str]:
    """The texts at dotted places, lists walked."""
    return [one for one in values_at(payload, places) if isinstance(one, str)]


def values_at(payload: Any, places: Sequence[str]) -> list[Any]:
    """Whatever stands there."""
    found: list[Any] = []
    for place in places:
        level = [payload]
        for name in place.split("."):
            level = [one[name] for one in _spread(level) if isinstance(one, Mapping) and name in one]
        found += _spread(level)
    return found


def _spread(level: Sequence[Any]) -> list[Any]:
    return [one for value in level for one in (value if isinstance(value, list) else [value])]


def _members(value: Mapping[str, Any], namespace: Namespace) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    said = SAID | TITLES if _is_key(value.get("key")) and namespace.owns(value["key"]) else SAID
    for name, member in value.items():
        if name in HOST_FIELDS or _is_foreign(name, namespace) or (name in PLACE_FIELDS and _is_place(member)):
            continue
        if name in said:
            kept[name] = member
            continue
        own_agents = _own_agents(member, namespace) if _AGENT_MEMBER.fullmatch(name) else member
        seen = NOTHING if own_agents is NOTHING else own(own_agents, namespace)
        if seen is not NOTHING:
            kept[name] = seen
    return kept


def _own_agents(member: Any, namespace: Namespace) -> Any:
    """Agents that are named in passing: a shared one too, which owns nothing but is the caller's to name."""
    if isinstance(member, str):
        return member if member == namespace.agent_id else NOTHING
    if isinstance(member, list):
        return [one for one in member if not isinstance(one, str) or one == namespace.agent_id]
    return member


def _is_foreign(text: str, namespace: Namespace) -> bool:
    """A key or a slug that is somebody else's."""
    if _is_key(text):
        return not namespace.owns(text)
    return _SLUG.fullmatch(text) is not None and text != namespace.slug


def _is_key(text: Any) -> bool:
    return isinstance(text, str) and text[:6].lower() == "agent:" and agent_of(text.lower()) is not None


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and _ABSOLUTE.match(value) is not None


_COUNTS = frozenset({"count", "total", "totalCount"})
