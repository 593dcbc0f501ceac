"""How one gateway stands, for the users on it: served or not, checked or not, and how far apart they are. Words for users only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.domain.isolation import AgentFacts, Level, level_of, weaknesses
from sidecar.gateways.admin import AdminConnection, State
from sidecar.gateways.configuration import open_settings
from sidecar.gateways.options import GatewayOptions
from sidecar.gateways.shared import shared_settings
from sidecar.gateways.unmetered import unmetered

SAYS: Mapping[State, str] = {
    State.AWAY: "the gateway does not answer",
    State.STARTING: "the gateway is starting",
    State.OPEN: "the gateway is not safe for several people yet; its operator has to close it",
    State.UNCOVERED: "the gateway's version is newer than what this service was checked against: you can read, nothing is run",
    State.READY: "",
}


@dataclass(frozen=True, slots=True)
class Standing:
    ready: bool
    """Users are let in."""

    why: str
    """Why not, or why not for everything; empty where all is well."""

    version: str
    """The gateway's; empty while it is not known."""

    covered: bool
    """A policy table was made for that version."""

    runs: bool
    """Runs start, as far as the gateway is concerned."""

    level: Level | None
    """None while it is not known: the user's agent, or the gateway's configuration, was not seen yet."""

    weakened_by: tuple[str, ...]
    unmetered: tuple[str, ...]
    """Calls of a model for the user that no transcript shows, so that nobody counts them."""


def standing_of(admin: AdminConnection, agent_id: str, *, closed: bool) -> Standing:
    """`agent_id`: the agent that works for the user; `closed`: its entry is as it should be."""
    facts = _facts(admin, agent_id, closed=closed)
    return Standing(
        ready=admin.serves,
        why=SAYS[admin.state],
        version=admin.version,
        covered=admin.choice is not None and admin.choice.covered,
        runs=admin.state is State.READY,
        level=level_of(facts) if facts else None,
        weakened_by=tuple(weaknesses(facts)) if facts else (),
        unmetered=tuple(way.what for way in unmetered(admin.seen.effective)) if admin.seen else (),
    )


def _facts(admin: AdminConnection, agent_id: str, *, closed: bool) -> AgentFacts | None:
    if admin.seen is None:
        return None
    config = admin.seen.effective
    entry = _table(config, "agents", "entries").get(agent_id)
    if not isinstance(entry, dict):
        return None
    gateway, tools = admin.gateway, _table(entry, "tools")
    allowed, denied = tools.get("allow"), tools.get("deny")
    return AgentFacts(
        session_tools_closed=_closed(gateway, config),
        agent_closed=closed,
        shared_agent=bool(gateway.shared_agent),
        own_workspaces=gateway.accepts_workspace,
        tools=[str(name) for name in allowed] if isinstance(allowed, list) else (),
        no_tools=isinstance(denied, list) and "*" in denied,
        workspace_only=_table(tools, "fs").get("workspaceOnly") is True,
        sandboxed=_sandboxed(config, entry),
        own_identity=gateway.auth == "trusted-proxy",
        version_checked=admin.choice is not None and admin.choice.covered,
    )


def _closed(gateway: GatewayOptions, config: Mapping[str, Any]) -> bool:
    return not open_settings(config) and not (gateway.shared_agent and shared_settings(config))


def _sandboxed(config: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Every session of the agent runs its tools in a container that other agents do not share; the defaults fill what is unsaid."""
    sandbox = {**_table(config, "agents", "defaults", "sandbox"), **_table(entry, "sandbox")}
    return sandbox.get("mode") == "all" and sandbox.get("scope") != "shared"


def _table(config: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    value: Any = config
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
