"""What the relay needs of other rooms, as narrow as it needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.domain.environment import Environment
from sidecar.domain.namespace import Namespace
from sidecar.domain.principal import Principal
from sidecar.gateways.greeting import Upstream
from sidecar.policy.table import Table
from sidecar.protocol.handshake import ClientHello
from sidecar.relay.audience import Audience
from sidecar.telemetry.facts import Report


class RunLedger(Protocol):
    """Whose run is it, and may it start? All raise StorageAway; `slug` stands for the user."""

    async def begin(self, slug: str, run_id: str, session_key: str) -> tuple[str, bool]: ...

    async def require_own(self, slug: str, run_id: str) -> str: ...

    async def admit(self, slug: str, run_id: str) -> bool: ...

    def holding(self, slug: str, act: str) -> contextlib.AbstractContextManager[None]: ...

    def taken(self, slug: str, run_id: str) -> None: ...

    def started(self, slug: str, run_id: str) -> None: ...

    def ended(self, slug: str, run_id: str) -> None: ...


class HandleBook(Protocol):
    """Whose is this object? `require` raises ForeignKey, StorageAway."""

    def learn(self, kind: str, handles: Iterable[str], slug: str) -> None: ...

    def is_known(self, kind: str, handle: str, slug: str) -> bool: ...

    async def require(self, kind: str, handle: str, slug: str) -> None: ...


class GatewayDoor(Protocol):
    """One gateway, as a user's connection sees it."""

    @property
    def runs(self) -> RunLedger: ...

    @property
    def handles(self) -> HandleBook: ...

    @property
    def accepts_workspace(self) -> bool: ...

    @property
    def audience(self) -> Audience | None:
        """Who is here of its users; None where the gateway sends every event to everybody (before 2026.8)."""

    def require(self) -> Table:
        """The policy in force. Raises GatewayAway, GatewayOpen."""

    def require_runs(self, agent_id: str) -> Table:
        """The same before a run starts, or something is done as admin. Raises GatewayNotCovered too."""

    async def as_admin(self, method: str, params: Mapping[str, Any]) -> Any:
        """The payload of what the sidecar's own connection is answered. Raises RequestRefused, GatewayAway."""

    async def greet(self, slug: str, hello: ClientHello, *, first_time: bool) -> Upstream:
        """Connect as this user; `first_time`: the gateway does not know them yet. Raises GatewayAway, ProtocolRefused."""


class Home(Protocol):
    """Where a user is."""

    @property
    def environment(self) -> Environment: ...

    @property
    def namespace(self) -> Namespace: ...


@dataclass(frozen=True, slots=True)
class Rooms:
    """Handed in by `app`."""

    verify: Callable[[str, str], Awaitable[Principal]]
    """(token, connection id) → who. Raises TokenRefused, IdentityAway."""

    home: Callable[[Principal], Awaitable[Home]]
    """Made on first use. Raises Outage, SidecarError."""

    door: Callable[[str], GatewayDoor]
    """Gateway id → its door."""

    report: Report
