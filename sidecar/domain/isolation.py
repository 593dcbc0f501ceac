"""How far apart two users of one gateway are, and what weakens it: `/api/openclaw/status` tells users, the doctor operators. Pure.

none         an agent may reach another user's sessions, or somebody changed what keeps the user's own within its bounds
transcript   sessions, events and runs are kept apart, by the sidecar
workspace    files too: the gateway keeps the user's tools within a workspace of the user's own, and none of them runs programs
sandbox      the tools run in a container of the user's own
dedicated    the user has a gateway of their own
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from dataclasses import dataclass

FILE_TOOLS = frozenset({"read", "write", "edit", "apply_patch"})
"""Tools that `tools.fs.workspaceOnly` keeps within an agent's workspace (seen on 2026.9.6 and 2026.8.2)."""


class Level(enum.StrEnum):
    NONE = "none"
    TRANSCRIPT = "transcript"
    WORKSPACE = "workspace"
    SANDBOX = "sandbox"
    DEDICATED = "dedicated"


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What is known of the agent that works for a user; what is not known is taken as open."""

    session_tools_closed: bool = False
    """The gateway lets no agent reach the sessions of another."""

    agent_closed: bool = False
    """The agent's entry in the gateway's configuration is as the sidecar writes it."""

    shared_agent: bool = False
    """The agent is everybody's."""

    own_workspaces: bool = False
    """Whosever the agent is, each run works in its user's workspace: a gateway that was patched for that."""

    tools: Collection[str] = ()
    """The tools that the agent may use; empty: no limit is known."""

    no_tools: bool = False
    """It may use none."""

    workspace_only: bool = False
    """Its file tools are kept within its workspace."""

    sandboxed: bool = False
    """All its tools run in a container that no other agent shares."""

    dedicated: bool = False
    """Nobody else uses the gateway."""

    own_identity: bool = False
    """The gateway itself tells the user from others."""

    version_checked: bool = False
    """The policy was made for the gateway's version."""

    @property
    def reaching(self) -> list[str]:
        """Tools that may reach beyond a workspace."""
        return sorted(set(self.tools) - FILE_TOOLS)


def level_of(facts: AgentFacts) -> Level:
    """The strongest level that these facts carry."""
    if facts.dedicated:
        return Level.DEDICATED
    if not (facts.session_tools_closed and facts.agent_closed):
        return Level.NONE
    if facts.sandboxed and not facts.shared_agent:
        return Level.SANDBOX
    within = facts.no_tools or (bool(facts.tools) and not facts.reaching and facts.workspace_only)
    own = facts.own_workspaces or not facts.shared_agent
    return Level.WORKSPACE if within and own else Level.TRANSCRIPT


def weaknesses(facts: AgentFacts) -> Iterator[str]:
    """What keeps these facts from carrying more, each in a sentence for the user. No names of others, no places."""
    if facts.dedicated:
        return
    if not facts.session_tools_closed:
        yield "Agents of this gateway may reach each other's sessions."
    if not facts.agent_closed:
        yield "Somebody changed your agent's settings on the gateway; it starts nothing until they are as they should be."
    if facts.shared_agent:
        apart = "conversations and files are" if facts.own_workspaces else "conversations are"
        yield f"All users share one agent: only your {apart} your own."
    if not (facts.no_tools or facts.sandboxed):
        yield from _reaching(facts)
    if not facts.own_identity:
        yield "The gateway takes all users for one person; only this service tells them apart."
    if not facts.version_checked:
        yield "The gateway's version is newer than what this service was checked against."
    yield "All agents of this gateway run in one process, as one user of its host."


def _reaching(facts: AgentFacts) -> Iterator[str]:
    if facts.reaching:
        yield f"Your agent has tools that may reach beyond its workspace: {', '.join(facts.reaching)}."
    if not facts.tools:
        yield "Nothing limits which tools your agent uses."
    if not facts.workspace_only:
        yield "Your agent's file tools are not kept within its workspace."
