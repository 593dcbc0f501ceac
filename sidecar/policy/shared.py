"""What is closed, and what is set, where one agent is everybody's: only sessions are a user's own there.

A request that names an agent acts on all of it; one that leaves out its session may do so too. So in this layout

    a method that reaches all of an agent         is refused, and hidden: its files, memory, tools, jobs are everybody's
    a session that the client left out            is set: the user's main one, or a new one where the method makes sessions
    a list of the agent's sessions                is asked for by the user's prefix: counts and pages of all would tell of others
    a label                                       is refused: the gateway refuses one that another session of the agent has
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.domain.namespace import Namespace
from sidecar.errors import MethodRefused
from sidecar.policy.rules import ParamRule, Rule, Shape, leaves
from sidecar.policy.table import MethodRow

_KEYS = (Rule.KEY, Rule.EXISTING_KEY, Rule.EXISTING_KEYS)
_RELATIONS = frozenset({"parentSessionKey", "spawnedBy"})
"""Keys of sessions beside the one that a request is about."""

_LISTS_SESSIONS = "session-rows"
_ONE_AGENT = "own-agent"


def closed_in_shared_agent(row: MethodRow) -> bool:
    """Does the method reach all of an agent? A row's `scope` says so, else its parameters do."""
    if row.scope:
        return row.scope == "agent"
    if row.answer is not None or row.response in {_LISTS_SESSIONS, _ONE_AGENT}:
        return False
    rules = set(leaves(row.params))
    return Rule.AGENT in rules and rules.isdisjoint(_KEYS)


def is_open(row: MethodRow, namespace: Namespace) -> bool:
    """May users of this layout call it at all?"""
    return not (namespace.is_shared and closed_in_shared_agent(row))


def within_shared_agent(
    row: MethodRow, params: Mapping[str, Any], namespace: Namespace, new_id: Callable[[], str]
) -> dict[str, Any]:
    """`params`, adopted already, as they must be for a gateway whose agent is shared. Raises MethodRefused."""
    if closed_in_shared_agent(row) or any(_acts_on_agent(row.params.get(name), params[name]) for name in params):
        raise _refused(f"{row.name} is not available here: it reaches beyond your own sessions")
    if row.scope == "settings":
        return dict(params)
    if row.response == _LISTS_SESSIONS:
        return _listed(row, params, namespace)
    if _gives_label(params):
        raise _refused(f"{row.name} takes no label here: one that is taken would tell of others' sessions")
    return {**params, **_left_out(row, params, namespace, new_id)}


def _refused(why: str) -> MethodRefused:
    return MethodRefused(f"{why}, and the agent is shared by all users", detail_code="AGENT_SHARED")


def _acts_on_agent(rule: ParamRule | None, value: Any) -> bool:
    """Is this an object, or a list with one, that names an agent and could name a session, but does not?"""
    if not isinstance(rule, Shape):
        return False
    if rule.many:
        return any(_acts_on_agent(Shape(rule.members), one) for one in value)
    named = {name for name in value if rule.members.get(name) in _KEYS}
    agents = {name for name in value if rule.members.get(name) is Rule.AGENT}
    return bool(agents and not named) or any(_acts_on_agent(rule.members.get(name), value[name]) for name in value)


def _gives_label(value: Any) -> bool:
    return isinstance(value, dict) and (bool(value.get("label")) or any(map(_gives_label, value.values())))


def _listed(row: MethodRow, params: Mapping[str, Any], namespace: Namespace) -> dict[str, Any]:
    """The gateway's search looks into keys (2026.9.6, 2026.8.2); a word of the client's would count in others' rows too."""
    if params.get("search"):
        raise _refused(f"{row.name} cannot search here: it would look into others' sessions")
    return {**params, "search": namespace.prefix}


def _left_out(
    row: MethodRow, params: Mapping[str, Any], namespace: Namespace, new_id: Callable[[], str]
) -> dict[str, Any]:
    """Sessions that the gateway would choose by itself, outside the user's corner: a new one, or all of the agent's."""
    keys = {name: rule for name, rule in row.params.items() if rule in _KEYS and name not in _RELATIONS}
    made = next((name for name, rule in keys.items() if rule is Rule.KEY and name not in params), None)
    if made is not None:
        return {made: f"{namespace.prefix}dashboard:{new_id()}"}
    names_agent = any(rule is Rule.AGENT and name in params for name, rule in row.params.items())
    if not keys or not names_agent or any(params.get(name) for name in keys):
        return {}
    name = next(iter(keys))
    return {name: [namespace.main] if keys[name] is Rule.EXISTING_KEYS else namespace.main}
