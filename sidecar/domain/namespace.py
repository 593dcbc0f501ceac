"""What one user owns on a gateway: an agent, or a corner of one, and every session key below it.

A session key routes, it does not authorise (gateway 2026.9.6, `docs/gateway/multi-tenant-hosting.md`), so nothing that a
client writes may reach the gateway before it went through here. The grammar of the gateway, as far as it matters:

    key    = "agent:" agent-id ":" rest          trimmed and lower-cased by Unicode rules before it is looked up
    rest   = segment *( ":" segment )             some first segments belong to the gateway (`RESERVED`)
    else   = the default agent's                  `main`, `cron:x`, `%3A`, full-width colons …: all fall to somebody's agent

A gateway is laid out in one of two ways:

    an agent each    agent:<slug>:<rest>                 with all that the agent has: its files, jobs, sub-agents
    a shared agent   agent:<shared>:user:<slug>:<rest>   with nothing else: what the agent has is everybody's, so nobody's
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.errors import ForeignKey, MalformedFrame

MAX_REST = 512
"""Characters of a key after its namespace prefix."""

RESERVED = frozenset(
    {
        "acp",
        "agent",
        "cron",
        "global",
        "harness",
        "heartbeat",
        "hook",
        "internal-session-effects",
        "node",
        "run",
        "subagent",
        "unknown",
    }
)
"""Segments that the gateway makes itself, and gives a meaning to wherever they stand (seen in 2026.9.6)."""

_SEGMENT = re.compile(r"[a-z0-9._@+=~#|-]+")
_DEFAULT_AGENT = "main"


def canonical(key: str) -> str:
    """`key` as the gateway would look it up: trimmed and lower-cased. U+212A becomes `k` here as it does there."""
    return key.strip().lower()


def agent_of(key: str) -> str | None:
    """The agent id that a gateway's own key names, or None for a key of any other shape."""
    head, _, tail = key.partition(":")
    agent_id, _, rest = tail.partition(":")
    return agent_id if head == "agent" and agent_id and rest else None


@dataclass(frozen=True, slots=True)
class Layout:
    """How one gateway's sessions are parted among its users."""

    shared_agent: str = ""
    """The agent that all of them share; empty: each has one of their own."""

    own_workspaces: bool = False
    """Each run works in its user's workspace, whosever the agent is: a patched gateway that takes it with the run."""

    def namespace(self, user_id: str, slug: str, aliases: frozenset[str] = frozenset()) -> Namespace:
        return Namespace(user_id, slug, self.shared_agent or slug, aliases)

    def slug_of(self, key: str | None, agent_id: str | None) -> str | None:
        """The user to whom a gateway's own words belong: a session's key, else an agent. None: they are nobody's.

        A shared agent by itself is nobody's, and so are its sessions outside every user's corner: its sub-agents, its jobs.
        """
        named = agent_id if key is None else agent_of(key)
        if self.shared_agent:
            named = _slug_in(key.split(":"), self.shared_agent) if key is not None else None
        return named if named is not None and named.startswith(SLUG_PREFIX) else None


SLUG_PREFIX = "u-"
"""Every slug begins so (`domain.slug`), and no shared agent: an id tells by itself which of the two it is."""


def _slug_in(segments: Sequence[str], shared_agent: str) -> str | None:
    match segments:
        case ["agent", agent_id, "user", slug, first, *_] if agent_id == shared_agent and first:
            return slug
    return None


@dataclass(frozen=True, slots=True)
class Namespace:
    """A user's own corner of one gateway. Ids are compared whole, never by prefix."""

    user_id: str
    """As in `Principal.user_id`."""

    slug: str
    """The user in names: `u-alice`."""

    agent_id: str
    """The agent that the user's keys live under: their own, and then equal to `slug`, or the shared one."""

    aliases: frozenset[str] = frozenset()
    """Canonical words that mean this user in `user:<word>`: the subject, the user id, the slug."""

    @property
    def is_shared(self) -> bool:
        """Is the agent everybody's?"""
        return self.agent_id != self.slug

    @property
    def main(self) -> str:
        """The key that a client opens in."""
        return f"{self.prefix}main"

    @property
    def prefix(self) -> str:
        """What all keys of the user begin with; its last segment is whole."""
        return f"agent:{self.agent_id}:user:{self.slug}:" if self.is_shared else f"agent:{self.agent_id}:"

    def owns_agent(self, agent_id: str) -> bool:
        """Is the agent, with all that it has, the user's? Never the shared one; it may stand beside an own key (`covers`)."""
        return agent_id == self.agent_id and not self.is_shared

    def owns(self, key: str) -> bool:
        """Is this key, as a gateway writes it, the user's? True for the gateway's own sessions of the user's agent too."""
        if self.is_shared:
            return _slug_in(key.split(":"), self.agent_id) == self.slug
        return agent_of(key) == self.agent_id

    def covers(self, key: str | None, agent_id: str | None) -> bool:
        """Does what names this key and this agent belong to the user? What names neither does not.

        A key decides; an agent beside it must be the one that the key is in. An agent alone must be the user's.
        """
        if key is None:
            return agent_id is not None and self.owns_agent(agent_id)
        return self.owns(key) and agent_id in {None, self.agent_id}

    def adopt(self, key: str) -> str:
        """Whatever a client wrote → a key of this user that a client may create.

        Idempotent; whatever it returns is owned. Raises ForeignKey for somebody else's, MalformedFrame for what is no key.
        """
        rest = self._rest(key)
        reserved = RESERVED.intersection(rest.split(":"))
        if reserved:
            raise MalformedFrame(f"session keys with the segment '{min(reserved)}' are made by the gateway alone")
        return self.prefix + rest

    def adopt_existing(self, key: str) -> str:
        """As `adopt`, for requests that cannot create a session: the gateway's own (`cron:…`, `subagent:…`) may be named.

        They must be named in full (`agent:<own>:cron:…`): a bare one would fall to the default agent.
        """
        rest = self._rest(key)
        head = rest.split(":", 1)[0]
        in_full = canonical(key).startswith(self.prefix)
        if (head in RESERVED and not in_full) or head in {"agent", "global", "unknown"}:
            raise MalformedFrame("name the session in full: agent:<your agent>:…")
        return self.prefix + rest

    def _rest(self, key: str) -> str:
        wanted = canonical(key)
        rest = self._below_own_prefix(wanted)
        if len(rest) > MAX_REST:
            raise MalformedFrame(f"a session key has at most {MAX_REST} characters")
        if not all(map(_SEGMENT.fullmatch, rest.split(":"))):
            raise MalformedFrame("a session key holds letters, digits and . _ @ + = ~ # | - in segments parted by ':'")
        return rest

    def _below_own_prefix(self, wanted: str) -> str:
        head, colon, tail = wanted.partition(":")
        if head == "agent" and colon:
            agent_id, _, rest = tail.partition(":")
            if agent_id not in {self.agent_id, _DEFAULT_AGENT}:
                raise ForeignKey("that agent is not yours")
            return self._below_shared(rest) if self.is_shared else rest
        if head == "user" and colon:
            return self._of_user(tail)
        return wanted

    def _below_shared(self, rest: str) -> str:
        """Clients make keys of an agent's id (`agent:<shared>:notes`): the user's own. Who names a user there must say the slug."""
        head, colon, tail = rest.partition(":")
        if head != "user" or not colon:
            return rest
        slug, _, below = tail.partition(":")
        if slug != self.slug:
            raise ForeignKey("that user is not you")
        return below

    def _of_user(self, named: str) -> str:
        """`user:<own id>` is the user's main session, `user:<own id>:x` the session x."""
        if named in self.aliases:
            return _DEFAULT_AGENT
        for alias in sorted(self.aliases, key=len, reverse=True):
            if named.startswith(alias + ":"):
                return named[len(alias) + 1 :]
        raise ForeignKey("that user is not you")
