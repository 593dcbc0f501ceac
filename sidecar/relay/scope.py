"""All that one connection knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sidecar.domain.namespace import Namespace
from sidecar.domain.principal import Principal
from sidecar.gateways.greeting import Upstream
from sidecar.policy.own import at_places
from sidecar.policy.requests import Patched
from sidecar.policy.table import EventRow, MethodRow, Table
from sidecar.protocol.handshake import ClientHello
from sidecar.relay.audience import Audience
from sidecar.relay.ports import HandleBook, RunLedger

MAX_PENDING = 256
MAX_ALIASES = 64


@dataclass(frozen=True, slots=True)
class Pending:
    """A request on its way, by the id that its answer will carry."""

    row: MethodRow
    new_run: str = ""
    """The id, upstream, of the run that it was counted in for; empty where it starts none, or repeats one that lives."""


@dataclass(slots=True)
class Scope:
    """Made when the handshake is over; changes only as its fields say."""

    connection_id: str
    """Random; the client sees it as `server.connId`, logs tie lines together by it."""

    principal: Principal
    """Who. Fixed for the life of the connection, which ends when its token does."""

    namespace: Namespace
    """Where they may be."""

    gateway_id: str
    hello: ClientHello
    """What the client said of itself."""

    table: Table
    """The policy for this gateway's version."""

    upstream: Upstream
    """The connection that is made for this client, and closed with it."""

    runs: RunLedger
    handles: HandleBook
    as_admin: Callable[[str, Mapping[str, Any]], Awaitable[Any]]
    """Execute a method on the sidecar's own connection. Raises RequestRefused, GatewayAway."""

    still_open: Callable[[], object]
    """Raises GatewayAway, GatewayOpen or GatewayNotCovered where no run may start (any more)."""

    audience: Audience | None = None
    """Who else of this user is here; None where the gateway sends every event to everybody (before 2026.8)."""

    patched: Patched | None = None
    """The user's workspace, on a gateway that takes one."""

    pending: dict[str, Pending] = field(default_factory=dict)
    """Requests without their answer yet; bounded by `MAX_PENDING`."""

    aliases: dict[str, str] = field(default_factory=dict)
    """Run ids of ours → the ids that the client chose, where those were another user's already."""

    behind: int = 0
    """Sequenced events dropped so far: by as much is every later `seq` lowered."""

    def alias(self, ours: str, theirs: str) -> None:
        """Remember that the client calls the run `ours` by its own word; the oldest of too many is forgotten."""
        self.aliases[ours] = theirs
        if len(self.aliases) > MAX_ALIASES:
            del self.aliases[next(iter(self.aliases))]

    def in_own_words(self, raw: bytes) -> bytes:
        """The client's own words for runs that go by an id of ours; 48 hex digits of ours cannot stand there by chance."""
        for ours, theirs in self.aliases.items():
            raw = raw.replace(ours.encode(), orjson.dumps(theirs)[1:-1])
        return raw

    def learn(self, row: MethodRow | EventRow, payload: Any) -> None:
        """What the gateway names beside the caller's own agent is the caller's from now on."""
        for kind, places in row.learns.items():
            self.handles.learn(kind, at_places(payload, places), self.namespace.slug)
