"""One gateway with all that the sidecar keeps for it; `app` makes one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sidecar.domain.alerts import Crossing
from sidecar.environments.provisioning import Provisioner
from sidecar.gateways.admin import AdminConnection, State
from sidecar.gateways.greeting import Upstream, greet_as_user
from sidecar.gateways.handles import Handles
from sidecar.gateways.options import GatewayOptions
from sidecar.gateways.standing import Standing, standing_of
from sidecar.policy.table import Table
from sidecar.protocol import frames
from sidecar.protocol.device import Device
from sidecar.protocol.handshake import ClientHello
from sidecar.protocol.session_events import ALL_LISTED, SESSION_SCOPED, runs_listed
from sidecar.quota.runs import Runs
from sidecar.quota.watch import Watch
from sidecar.relay.audience import Audience
from sidecar.usage.collector import Collector

ALERT = "quota.alert"
"""The event by which a client hears that a limit comes near. Those of 2026.9.6 pass over events that they do not know."""

ASK_SECONDS = 5.0
ACT_SECONDS = 600.0
"""How long the gateway may take for what is done as admin: a compaction is several calls of the model."""
EMPTYING: Mapping[str, str] = {
    "sessions.delete": "key",
    "sessions.reset": "key",
    "sessions.compact": "key",
    "sessions.compaction.restore": "key",
    "sessions.rewind": "sessionKey",
    "sessions.branches.switch": "sessionKey",
}
"""What takes messages out of a transcript, so that its usage has to be read before: method → parameter with the session."""


class Door:
    """One gateway: our own connection to it, its users' agents and runs, and the way in for users (`relay.ports.GatewayDoor`)."""

    def __init__(
        self,
        gateway: GatewayOptions,
        admin: AdminConnection,
        makers: Provisioner,
        runs: Runs,
        handles: Handles,
        collector: Collector,
        watch: Watch,
        seal: bytes,
    ) -> None:
        self.gateway = gateway
        self.admin = admin
        self.makers = makers
        self.runs = runs
        self.handles = handles
        self._collector = collector
        self._seal = seal
        self._audience = Audience()
        self._watch = watch
        runs.ask_living = self._living
        admin.listeners.on_event.append(collector.hear)
        admin.listeners.on_event.append(self._heard)
        admin.listeners.on_sessions.append(self._looked)
        admin.listeners.on_lost.append(self._watch.forget)
        admin.listeners.on_sessions.append(lambda _: collector.listens())
        admin.listeners.on_lost.append(collector.lost)

    @property
    def accepts_workspace(self) -> bool:
        return self.gateway.accepts_workspace

    def require(self) -> Table:
        return self.admin.require()

    def require_runs(self, agent_id: str) -> Table:
        table = self.admin.require_runs()
        self.makers.require_closed(agent_id)
        return table

    async def as_admin(self, method: str, params: Mapping[str, Any]) -> Any:
        if method in EMPTYING:
            async with self._collector.emptying(params[EMPTYING[method]]):
                return await self.admin.request(method, params, ACT_SECONDS)
        return await self.admin.request(method, params, ACT_SECONDS)

    @property
    def audience(self) -> Audience | None:
        return self._audience if self.admin.scopes_events else None

    async def greet(self, slug: str, hello: ClientHello, *, first_time: bool) -> Upstream:
        if self.admin.scopes_events and SESSION_SCOPED not in hello.caps:
            hello = replace(hello, caps=(*hello.caps, SESSION_SCOPED))
        device = Device.derive(self._seal, self.gateway.id, slug)
        return await greet_as_user(self.gateway, slug, device, hello, self.admin.failed, first_time=first_time)

    def tell_alert(self, slug: str, crossing: Crossing) -> None:
        """A user came near a limit, or to it: to their connections here. No number, as for what no gateway said."""
        told = {
            "type": crossing.alert_type,
            "quota": crossing.kind.value,
            "percent": crossing.percent,
            "period": crossing.period,
            "used": float(crossing.used),
            "limit": float(crossing.limit),
        }
        self._audience.say(slug, frames.event(ALERT, told))

    def _heard(self, raw: bytes) -> None:
        if (about := self._watch.hear(raw)) is not None:
            slug, key = about
            self._audience.hear(slug, (key,))

    def _looked(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for slug, key in reversed(self._watch.look(rows)):
            self._audience.hear(slug, (key,))

    async def _living(self, slug: str) -> set[str] | None:
        """As `Runs.ask_living`. What waits in the gateway's lane is listed too (2026.9.6 and 2026.8.2)."""
        layout = self.gateway.layout
        answer = await self.admin.request(
            "sessions.list", {"agentId": layout.shared_agent or slug, **ALL_LISTED}, ASK_SECONDS
        )
        return runs_listed(answer, lambda key: layout.slug_of(key, None) == slug)

    def standing(self, agent_id: str) -> Standing:
        return standing_of(self.admin, agent_id, closed=self.makers.is_closed(agent_id))

    async def why_not_ready(self) -> str:
        return "" if self.admin.serves else f"{self.admin.state}: {self.admin.why}"

    def doubt(self) -> str:
        """What an operator should know of a gateway that serves."""
        return self.admin.why if self.admin.state is State.UNCOVERED else ""
