"""What one user owns on a gateway: an agent, and every session key below it.

A session key routes, it does not authorise (gateway 2026.9.6, `docs/gateway/multi-tenant-hosting.md`), so nothing that a
client writes may reach the gateway before it went through here. The grammar of the gateway, as far as it matters:

    key    = "agent:" agent-id ":" rest          trimmed and lower-cased by Unicode rules before it is looked up
    rest   = segment *( ":" segment )             some first segments belong to the gateway (`RESERVED`)
    else   = the default agent's                  `main`, `cron:x`, `%3A`, full-width colons …: all fall to somebody's agent
"""

from __future__ import annotations

import re
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
class Namespace:
    """A user's own corner of one gateway. Ids are compared whole, never by prefix."""

    user_id: str
    """As in `Principal.user_id`."""

    slug: str
    """The user in names: `u-alice`."""

    agent_id: str
    """The agent that the user's keys live under; the user's own, so equal to `slug`."""

    aliases: frozenset[str] = frozenset()
    """Canonical words that mean this user in `user:<word>`: the subject, the user id, the slug."""

    @property
    def main(self) -> str:
        """The key that a client opens in."""
        return f"agent:{self.agent_id}:main"

    @property
    def prefix(self) -> str:
        return f"agent:{self.agent_id}:"

    def owns_agent(self, agent_id: str) -> bool:
        return agent_id == self.agent_id

    def owns(self, key: str) -> bool:
        """Is this key, as a gateway writes it, the user's? True for the gateway's own sessions of the user's agent too."""
        return agent_of(key) == self.agent_id

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
            return rest
        if head == "user" and colon:
            return self._of_user(tail)
        return wanted

    def _of_user(self, named: str) -> str:
        """`user:<own id>` is the user's main session, `user:<own id>:x` the session x."""
        if named in self.aliases:
            return _DEFAULT_AGENT
        for alias in sorted(self.aliases, key=len, reverse=True):
            if named.startswith(alias + ":"):
                return named[len(alias) + 1 :]
        raise ForeignKey("that user is not you")
