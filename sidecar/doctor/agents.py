"""What agents may do, and so how far apart two users are. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.doctor.findings import Finding, danger, json5, listed, note, ok, openclaw, setting, sidecar, warning
from sidecar.doctor.reading import Expected, GatewaySeen
from sidecar.doctor.shape import member, table, words
from sidecar.domain.isolation import FILE_TOOLS, AgentFacts, Level, level_of
from sidecar.gateways.configuration import (
    DEFAULT_AGENT,
    AgentOptions,
    closed_agent,
    open_settings,
    opened,
    users_agents,
)
from sidecar.gateways.shared import shared_settings

_PROGRAMS = frozenset({"*", "exec", "process", "code_execution", "terminal", "bash", "group:runtime"})
_OWN_TOOLS = frozenset({"tool_search", "tool_describe", "tool_call"})
_SHOWN = 3


def agents(expected: Expected, seen: GatewaySeen) -> list[Finding]:
    """Everything about the roster of one gateway."""
    return [
        *_session_tools(expected, seen),
        *_users(expected, seen),
        *_offered(expected, seen),
        *_programs(expected, seen),
        *_others(expected, seen),
        *_house_rules(expected, seen),
        _isolation(expected, seen),
    ]


def known_agents(expected: Expected, config: Mapping[str, Any]) -> dict[str, str]:
    """The agents that work for users: slug → workspace."""
    if expected.shared_agent:
        shared = expected.shared_agent
        return {shared: f"{expected.root.rstrip('/')}/{shared}/workspace"} if shared in _entries(config) else {}
    return users_agents(config, expected.root)


def level(expected: Expected, seen: GatewaySeen) -> Level:
    """What keeps any two users of this gateway apart: the weakest of their agents' levels, or that of the first to come."""
    closed, changed = not _complaints(expected, seen), _changed(expected, seen)
    known = known_agents(expected, seen.source)
    facts = [
        AgentFacts(
            session_tools_closed=closed,
            agent_closed=slug not in changed,
            shared_agent=bool(expected.shared_agent),
            own_workspaces=expected.own_workspaces,
            tools=expected.tools_allow,
            no_tools=bool(expected.shared_agent) and not expected.tools_allow,
            workspace_only=True,
            sandboxed=sandboxed(seen.effective, slug),
        )
        for slug in known or ("",)
    ]
    return min(map(level_of, facts), key=tuple(Level).index)


def sandboxed(config: Mapping[str, Any], agent: str) -> bool:
    """Every session of the agent runs its tools in a container that it does not share with other agents."""
    mode, scope = (_of_agent(config, agent, f"sandbox.{name}") for name in ("mode", "scope"))
    return bool(mode == "all" and scope != "shared")


def _of_agent(config: Mapping[str, Any], agent: str, path: str) -> Any:
    """A member of an agent's entry, or else of the defaults."""
    own = member(_entries(config).get(agent) or {}, path)
    return member(config, f"agents.defaults.{path}") if own is None else own


def _entries(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return table(config, "agents.entries")


def _closed(expected: Expected, seen: GatewaySeen) -> dict[str, dict[str, Any]]:
    options = AgentOptions(expected.tools_allow, expected.model_allow, shared=bool(expected.shared_agent))
    known = known_agents(expected, seen.source)
    return {slug: closed_agent(slug, workspace, options, seen.effective) for slug, workspace in known.items()}


def _changed(expected: Expected, seen: GatewaySeen) -> dict[str, list[str]]:
    return opened(seen.source, _closed(expected, seen))


def _complaints(expected: Expected, seen: GatewaySeen) -> list[str]:
    return [*open_settings(seen.effective), *(shared_settings(seen.effective) if expected.shared_agent else [])]


def _session_tools(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    wrong = _complaints(expected, seen)
    served = "and users are served all the same (allow_open_gateway)" if expected.allow_open else "so nobody is served"
    for complaint in wrong:
        path, _, value = complaint.partition(" must be ")
        yield danger(
            "agents.session-tools",
            f"Through {path} agents of one user reach sessions of another, {served}.",
            setting(path, value.split('"')[1] if '"' in value else False),
        )
    if not wrong:
        yield ok("agents.session-tools", "Agents do not reach each other's sessions.")


def _users(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    closed, changed = _closed(expected, seen), _changed(expected, seen)
    if changed:
        lines = "\n".join(setting(f"agents.entries.{slug}", closed[slug]).lines for slug in list(changed)[:_SHOWN])
        yield danger(
            "agents.opened",
            f"{len(changed)} of {len(closed)} users' agents are not closed, none of their runs starts: "
            f"{listed(f'{slug} ({listed(members)})' for slug, members in changed.items())}. A running sidecar closes them within "
            "seconds; where it does not, its log says why.",
            openclaw(lines),
        )
    elif closed:
        yield ok("agents.closed", f"{len(closed)} users' agents, each as closed as it has to be.")
    else:
        yield note("agents.none", "No user has come yet; agents are written closed with their first connection.")
    if seen.includes > 1:
        yield warning(
            "agents.includes",
            "The roster of agents is put together from several files ($include), and the gateway refuses to write it: new users do "
            "not get in, and opened agents stay open.",
            openclaw("// agents.entries: in openclaw.json itself, or in one file alone"),
        )


def _offered(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    """What the gateway itself says that it would offer, beside what the configuration says."""
    allowed = {*expected.tools_allow, *_OWN_TOOLS}
    more = {slug: sorted(set(tools) - allowed) for slug, tools in seen.offered.items()}
    more = {slug: tools for slug, tools in more.items() if tools}
    if more and not any(word.startswith("group:") for word in expected.tools_allow):
        yield danger(
            "agents.offered",
            "The gateway offers users' agents more than environments.tools_allow: "
            f"{listed(f'{slug} {listed(tools)}' for slug, tools in more.items())}.",
            setting(f"agents.entries.{next(iter(more))}.tools.allow", list(expected.tools_allow)),
        )
    elif seen.offered:
        yield ok("agents.offered", f"The gateway offers them {listed(sorted(expected.tools_allow))} and nothing else.")


def _programs(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    """`exec` and its like, where a sandbox does not hold them."""
    risky = sorted(_PROGRAMS.intersection(expected.tools_allow))
    known = known_agents(expected, seen.effective)
    bare = [slug for slug in known if not sandboxed(seen.effective, slug)]
    running = [slug for slug in bare if risky and _runs(seen.effective, slug)]
    if running:
        yield danger(
            "agents.exec",
            f"{len(running)} users' agents run programs on the gateway's host without a sandbox, and so read all that the gateway "
            f"reads: {listed(running)}.",
            setting("agents.defaults.sandbox", {"mode": "all", "scope": "agent"}),
            sidecar(f"[environments]\ntools_allow = {json5(sorted(FILE_TOOLS))}"),
        )
    elif risky:
        yield warning(
            "agents.exec",
            f"environments.tools_allow names {listed(risky)}, which runs programs. The agents' entries deny exec all the same; "
            "other tools of that kind may not ask.",
            sidecar(f"[environments]\ntools_allow = {json5(sorted(FILE_TOOLS))}"),
        )
    else:
        yield ok("agents.exec", "Users' agents run no programs.")


def _runs(config: Mapping[str, Any], agent: str) -> bool:
    security = member(_entries(config).get(agent) or {}, "tools.exec.security")
    return bool(security != "deny" and member(config, "tools.exec.security") != "deny")


def _others(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    """Agents that are not users': they read what the gateway's Unix user reads, all workspaces and transcripts with it."""
    known = known_agents(expected, seen.source)
    others = [name for name in _entries(seen.source) or {DEFAULT_AGENT: {}} if name not in known]
    wide = [name for name in others if not _is_narrow(seen.effective, name)]
    if not wide:
        yield ok("agents.others", "Other agents of this gateway are kept to files of their own, or to a sandbox.")
        return
    says = f"{listed(wide)}: not users' agents, with open tools. They read every user's workspace and transcripts"
    mends = [
        setting(f"agents.entries.{name}", {"sandbox": {"mode": "all", "scope": "agent"}}) for name in wide[:_SHOWN]
    ]
    if channels := _channels(seen):
        yield warning(
            "agents.others",
            f"{says}, and people write to this gateway through {listed(channels)}, not through the sidecar.",
            *mends,
        )
    else:
        yield note("agents.others", f"{says}; only the operator talks to them.")


def _is_narrow(config: Mapping[str, Any], agent: str) -> bool:
    if sandboxed(config, agent):
        return True
    tools = member(_entries(config).get(agent) or {}, "tools") or {}
    allow = words(tools, "allow") or words(config, "tools.allow")
    only = member(tools, "fs.workspaceOnly") is True or member(config, "tools.fs.workspaceOnly") is True
    return bool(allow) and FILE_TOOLS.issuperset(allow) and only


def _channels(seen: GatewaySeen) -> list[str]:
    channels = table(seen.effective, "channels")
    return [name for name, one in channels.items() if isinstance(one, dict) and one.get("enabled") is not False and one]


def _house_rules(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    """Settings for all agents that reach into users'."""
    scope = member(seen.effective, "session.scope")
    if scope not in {None, "per-sender"}:
        yield warning(
            "sessions.scope",
            f"With session.scope {json5(scope)} a user's main session is missing from their list (2026.9.6).",
            setting("session.scope", "per-sender"),
        )
    if member(seen.effective, "agents.defaults.embeddedAgent.projectSettingsPolicy") == "trusted":
        yield warning(
            "agents.project-settings",
            "The gateway obeys .openclaw/settings.json in a workspace, which its user's agent can write.",
            setting("agents.defaults.embeddedAgent.projectSettingsPolicy", "sanitize"),
        )
    known = known_agents(expected, seen.source)
    bindings = member(seen.effective, "bindings")
    bound = [one.get("agentId") for one in bindings if isinstance(one, dict)] if isinstance(bindings, list) else []
    if mine := sorted({agent for agent in bound if isinstance(agent, str) and agent in known}):
        yield warning(
            "agents.bindings",
            f"Messages of a channel run in users' agents, around the sidecar and its limits: {listed(mine)}.",
            openclaw(f"// bindings: without those that name {listed(mine)}"),
        )


_LEVELS = {
    Level.NONE: (note, "nothing keeps users apart as long as the dangers stand."),
    Level.TRANSCRIPT: (
        note,
        "the sidecar keeps sessions, events and runs apart; users share files or tools that reach further.",
    ),
    Level.WORKSPACE: (
        ok,
        "the sidecar keeps sessions, events and runs apart, the gateway each user's files; no programs run.",
    ),
    Level.SANDBOX: (ok, "as workspace, and each user's tools run in a container of their own."),
}


def _isolation(expected: Expected, seen: GatewaySeen) -> Finding:
    found = level(expected, seen)
    make, says = _LEVELS[found]
    return make("isolation", f"{found}: {says}")
