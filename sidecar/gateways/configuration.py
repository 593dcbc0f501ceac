"""What a gateway's configuration must say. Pure: the parsed `config` of `config.get` in, merge patches and complaints out.

Keys and their effect as observed on 2026.9.6 and 2026.8.2; `docs/gateway/config-agents/entries-and-multi-agent.md` of the package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.gateways.shared import as_shared

DEFAULT_AGENT = "main"
USERS_AGENT = re.compile(r"u-[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What the agents of users may do."""

    tools_allow: Sequence[str] = ("read", "write", "edit", "apply_patch")
    model_allow: Sequence[str] = ()
    """Patterns such as `anthropic/*`. Empty: the gateway's default model alone."""

    shared: bool = False
    """The agent is everybody's, and closed further."""


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
    """The entry of a user's agent: files of the own workspace, no shell, no other agent, no other's model account.

    `agents.defaults.cwd` would move the files' root of every agent without a `cwd` of its own (2026.9.6; 2026.8.2 has neither
    key), and code mode would put an interpreter in the place of the tools that are allowed.
    """
    entry = {
        "workspace": workspace,
        **({"cwd": workspace} if "cwd" in _object(_object(config, "agents"), "defaults") else {}),
        "tools": {
            "allow": list(options.tools_allow),
            "fs": {"workspaceOnly": True},
            "exec": {"security": "deny"},
            "elevated": {"enabled": False},
            "codeMode": False,
        },
        "modelPolicy": {"allow": list(options.model_allow) or default_models(config)},
        "subagents": {"allowAgents": [slug]},
    }
    return as_shared(entry, options.tools_allow) if options.shared else entry


def users_agents(config: Mapping[str, Any], root: str) -> dict[str, str]:
    """Agents that a sidecar with this `environments.root` made, by their names and where they work: slug → its right workspace."""
    below = root.rstrip("/") + "/"
    entries = _object(_object(config, "agents"), "entries")
    return {
        slug: f"{below}{slug}/workspace"
        for slug in entries
        if USERS_AGENT.fullmatch(slug) and str(_object(entries, slug).get("workspace")).startswith(below)
    }


def opened(config: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The wanted agents that are there but not as wanted: slug → the members that differ (`tools.allow`, `cwd`)."""
    entries = _object(_object(config, "agents"), "entries")
    found = {slug: _entry_difference(_object(entries, slug), wanted[slug]) for slug in wanted if slug in entries}
    return {slug: _paths(change) for slug, change in found.items() if change}


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
        change = _entry_difference(_object(present, slug), entry)
        if change or slug not in present:
            entries[slug] = change
    if not entries:
        return {}
    patch: dict[str, Any] = {"entries": entries}
    others = [name for name in present if name not in wanted]
    if agents.get("ownership") != "explicit" and not any(
        _object(present, name).get("default") is True for name in others
    ):
        owner = next(iter(others), DEFAULT_AGENT)
        patch |= _explicit(agents, owner)
        if not others:
            entries.setdefault(DEFAULT_AGENT, {})
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


def _explicit(agents: Mapping[str, Any], owner: str) -> dict[str, Any]:
    defaults = _object(agents, "defaults")
    owners = {
        name: {"agentId": owner} for name in ("systemAgent", "heartbeat") if "agentId" not in _object(defaults, name)
    }
    return {"ownership": "explicit", **({"defaults": owners} if owners else {})}


_WHOLE = frozenset({"tools", "modelPolicy", "subagents", "memory"})
"""Parts of an agent's entry in which a member that is not ours (`tools.alsoAllow`) would open it again: those are removed."""

_TASTE = frozenset(
    {
        *("name", "description", "identity", "skills", "skillsLimits", "contextLimits", "contextInjection", "agentDir"),
        *("bootstrapMaxChars", "bootstrapTotalMaxChars", "groupChat", "heartbeat", "humanDelay", "typingMode", "tts"),
        *("model", "utilityModel", "decisionModel", "params", "embeddedAgent", "experimental", "fastModeDefault"),
        *("thinkingDefault", "verboseDefault", "reasoningDefault", "toolProgressDetail"),
    }
)
"""Members of an agent's entry that an operator may add: they decide neither where it works nor with what. Every other one is
removed, whatever it is called: `cwd` moves the root of its files, `runtime` and `models` put another program in the place of its
tools, `default` makes it the gateway's own."""

_SANDBOX: Mapping[str, Any] = {
    "mode": ("all", "non-main"),
    "scope": ("agent", "session"),
    "workspaceAccess": ("none", "ro", "rw"),
    "backend": ("docker", "podman"),
    "prune": None,
    "docker": dict.fromkeys(
        (
            *("image", "containerPrefix", "workdir", "readOnlyRoot", "tmpfs", "user", "capDrop", "pidsLimit", "memory"),
            *("memorySwap", "cpus", "ulimits", "seccompProfile", "apparmorProfile"),
        )
    ),
}
"""What of a sandbox that an operator gave to a user's agent stays: what makes it tighter. Binds, networks, a shared container or
`off` go."""


def _entry_difference(actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    change = _difference(actual, wanted)
    for name, value in actual.items():
        if name in wanted or name in _TASTE:
            continue
        loose = _loose(value, _SANDBOX) if name == "sandbox" and isinstance(value, dict) else None
        if loose != {}:
            change[name] = loose
    return change


def _loose(actual: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that takes out of `actual` what `kept` does not name, or not with this value."""
    change: dict[str, Any] = {}
    for name, value in actual.items():
        allowed = kept.get(name, ())
        if isinstance(allowed, dict):
            inner = _loose(value, allowed) if isinstance(value, dict) else None
            if inner != {}:
                change[name] = inner
        elif allowed is not None and value not in allowed:
            change[name] = None
    return change


def _paths(change: Mapping[str, Any], at: str = "") -> list[str]:
    paths = []
    for name, value in change.items():
        here = f"{at}.{name}" if at else name
        paths += _paths(value, here) if isinstance(value, dict) and value else [here]
    return paths


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
