"""What a gateway's configuration must say. Pure: the parsed `config` of `config.get` in, merge patches and complaints out.

Keys and their effect as observed on 2026.9.6 and 2026.8.2; `docs/gateway/config-agents/entries-and-multi-agent.md` of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_AGENT = "main"


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What the agents of users may do."""

    tools_allow: Sequence[str] = ("read", "write", "edit", "apply_patch")
    model_allow: Sequence[str] = ()
    """Patterns such as `anthropic/*`. Empty: the gateway's default model alone."""


def open_settings(config: Mapping[str, Any]) -> list[str]:
    """The settings, each with its mend, through which agents reach each other's sessions. Open by default in 2026.9.6."""
    tools = _object(config, "tools")
    wrong = []
    if _object(tools, "agentToAgent").get("enabled") is not False:
        wrong.append("tools.agentToAgent.enabled must be false")
    if _object(tools, "sessions").get("visibility") != "self":
        wrong.append('tools.sessions.visibility must be "self"')
    return wrong


def closed_agent(slug: str, workspace: str, options: AgentOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a user's agent: files of the own workspace, no shell, no other agent, no other's model account."""
    return {
        "workspace": workspace,
        "tools": {
            "allow": list(options.tools_allow),
            "fs": {"workspaceOnly": True},
            "exec": {"security": "deny"},
            "elevated": {"enabled": False},
        },
        "modelPolicy": {"allow": list(options.model_allow) or default_models(config)},
        "subagents": {"allowAgents": [slug]},
    }


def default_models(config: Mapping[str, Any]) -> list[str]:
    """`agents.defaults.model`: the primary and its fallbacks."""
    model = _object(_object(config, "agents"), "defaults").get("model")
    if isinstance(model, str):
        return [model]
    if not isinstance(model, dict):
        return []
    fallbacks = model.get("fallbacks")
    named = [model.get("primary"), *(fallbacks if isinstance(fallbacks, list) else [])]
    return [name for name in named if isinstance(name, str)]


def agents_patch(config: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The merge patch that makes every wanted agent exactly as wanted; empty where they all are already.

    The first user turns a gateway of one implicit agent into one of several. A roster of several needs
    `agents.ownership: "explicit"`, and without an entry of its own the operator's agent would be gone, and what followed the sole
    agent (heartbeat, system agent) would have no owner: they are written out in the same patch.
    """
    agents = _object(config, "agents")
    present = _object(agents, "entries")
    entries: dict[str, Any] = {}
    for slug, entry in wanted.items():
        change = _difference(_object(present, slug), entry)
        if change or slug not in present:
            entries[slug] = change
    if not entries:
        return {}
    patch: dict[str, Any] = {"entries": entries}
    marked = any(_object(present, name).get("default") is True for name in present)
    if agents.get("ownership") != "explicit" and not marked:
        patch |= _explicit(agents, present)
        if not present:
            entries[DEFAULT_AGENT] = {}
    return {"agents": patch}


def replaced_arrays(config: Mapping[str, Any], patch: Mapping[str, Any], at: str = "") -> list[str]:
    """Paths of the lists that `patch` replaces or removes: `config.patch` wants them named (`replacePaths`)."""
    paths = []
    for name, change in patch.items():
        here = f"{at}.{name}" if at else name
        actual = config.get(name)
        if isinstance(actual, list):
            paths.append(here)
        elif isinstance(actual, dict):
            below = change if isinstance(change, Mapping) else dict.fromkeys(actual)
            paths += replaced_arrays(actual, below, here)
    return paths


def _explicit(agents: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    sole = next(iter(present), DEFAULT_AGENT)
    defaults = _object(agents, "defaults")
    owners = {
        name: {"agentId": sole} for name in ("systemAgent", "heartbeat") if "agentId" not in _object(defaults, name)
    }
    return {"ownership": "explicit", **({"defaults": owners} if owners else {})}


_WHOLE = frozenset({"tools", "modelPolicy", "subagents"})
"""Parts of an agent's entry in which a member that is not ours (`tools.alsoAllow`) would open it again: those are removed."""


def _difference(actual: Mapping[str, Any], wanted: Mapping[str, Any], *, whole: bool = False) -> dict[str, Any]:
    change: dict[str, Any] = {name: None for name in actual if whole and name not in wanted}
    for name, value in wanted.items():
        if isinstance(value, dict):
            inner = _difference(_object(actual, name), value, whole=whole or name in _WHOLE)
            if inner or name not in actual:
                change[name] = inner
        elif actual.get(name) != value:
            change[name] = value
    return change


def _object(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}
