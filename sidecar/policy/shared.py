"""What is closed, and what is set, where one agent is everybody's: only sessions are a user's own there.

A request that names an agent acts on all of it; one that leaves out its session may do so too. So in this layout

    a method that acts on an agent alone          is refused, and hidden: its files, memory, tools, jobs are everybody's
    a session that the client left out            is set: the user's main one, or a new one where the method makes sessions
    a list of the agent's sessions                is asked for by the user's prefix: counts and pages of all would tell of others
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.domain.namespace import Namespace
from sidecar.errors import MethodRefused
from sidecar.policy.rules import ParamRule, Rule, Shape, leaves
from sidecar.policy.table import MethodRow

_KEYS = (Rule.KEY, Rule.EXISTING_KEY, Rule.EXISTING_KEYS)
_LISTS_SESSIONS = "session-rows"
_ONE_AGENT = "own-agent"


def closed_in_shared_agent(row: MethodRow) -> bool:
    """Does the method act on an agent as a whole? A row's `scope` says so, else its parameters do."""
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
        raise MethodRefused(
            f"{row.name} is not available here: it acts on the whole agent, which all users share",
            detail_code="AGENT_SHARED",
        )
    if row.response == _LISTS_SESSIONS:
        return _listed(row, params, namespace)
    if params.get("label"):
        raise MethodRefused(
            f"{row.name} cannot give a label here: two sessions of one agent never have the same, so it would tell of others'",
            detail_code="AGENT_SHARED",
        )
    return {**params, **_left_out(row, params, namespace, new_id)}


def _acts_on_agent(rule: ParamRule | None, value: Any) -> bool:
    """Is this an object, or a list with one, that names an agent and could name a session, but does not?"""
    if not isinstance(rule, Shape):
        return False
    if rule.many:
        return any(_acts_on_agent(Shape(rule.members), one) for one in value)
    named = {name for name in value if rule.members.get(name) in _KEYS}
    agents = {name for name in value if rule.members.get(name) is Rule.AGENT}
    return bool(agents and not named) or any(_acts_on_agent(rule.members.get(name), value[name]) for name in value)


def _listed(row: MethodRow, params: Mapping[str, Any], namespace: Namespace) -> dict[str, Any]:
    """The gateway's search looks into keys (2026.9.6, 2026.8.2); a word of the client's would count in others' rows too."""
    if params.get("search"):
        raise MethodRefused(
            f"{row.name} cannot search here: it would look into the sessions of all who share the agent",
            detail_code="AGENT_SHARED",
        )
    return {**params, "search": namespace.prefix}


def _left_out(
    row: MethodRow, params: Mapping[str, Any], namespace: Namespace, new_id: Callable[[], str]
) -> dict[str, Any]:
    """Sessions that the gateway would choose by itself, outside the user's corner: a new one, or the agent's."""
    keys = {name: rule for name, rule in row.params.items() if rule in _KEYS}
    made = next((name for name, rule in keys.items() if rule is Rule.KEY and name not in params), None)
    if made is not None:
        return {made: f"{namespace.prefix}dashboard:{new_id()}"}
    if not keys or Rule.AGENT not in row.params.values() or any(name in params for name in keys):
        return {}
    name = next(iter(keys))
    return {name: [namespace.main] if keys[name] is Rule.EXISTING_KEYS else namespace.main}
