"""Turns of a user who is over a hard limit are stopped, and the user is told why.

Through the sidecar's own connection, since the turn may be one that nobody waits for: a job's, a sub-agent's, one that was queued.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from sidecar.domain.quota import Figures, Limits, QuotaType
from sidecar.errors import SidecarError
from sidecar.gateways.rpc import RequestRefused
from sidecar.quota.options import QuotaOptions
from sidecar.quota.refusals import cut_sentence
from sidecar.quota.windows import day_at, month_at
from sidecar.telemetry.facts import Report, RunsCut

MOST_WAITING = 10_000


class Gateway(Protocol):
    """Raises RequestRefused, GatewayAway."""

    async def request(self, method: str, params: Mapping[str, Any], timeout: float = 30.0) -> Any: ...


class Cutter:
    """Of one gateway. `run()` in a task of the caller's."""

    def __init__(
        self,
        gateway_id: str,
        gateway: Gateway,
        sessions: Callable[[str], Iterable[str]],
        options: QuotaOptions,
        report: Report,
        clock: Callable[[], float],
    ) -> None:
        self._gateway_id = gateway_id
        self._gateway = gateway
        self._sessions = sessions
        """The sessions of a user in which runs live."""

        self._options = options
        self._report = report
        self._clock = clock
        self._over: dict[str, tuple[QuotaType, Figures, Limits]] = {}
        self._news = asyncio.Event()

    def stands(self, slug: str, figures: Figures, limits: Limits) -> None:
        """Hears where a user stands after each model call."""
        enforced = self._options.enforced(limits)
        used = {QuotaType.DAILY_TOKENS: figures.used.tokens, QuotaType.MONTHLY_COST: figures.used.cost_usd}
        over = next((kind for kind, value in used.items() if 0 < enforced.of(kind) <= value), None)
        if over is not None and len(self._over) < MOST_WAITING:
            self._over[slug] = over, figures, limits
            self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._over:
                slug, (kind, figures, limits) = self._over.popitem()
                await self._cut(slug, kind, figures, limits)

    async def _cut(self, slug: str, kind: QuotaType, figures: Figures, limits: Limits) -> None:
        now, zone = self._clock(), self._options.zone
        tokens = kind is QuotaType.DAILY_TOKENS
        used = figures.used.tokens if tokens else figures.used.cost_usd
        ends = (day_at if tokens else month_at)(now, zone).ends
        why = cut_sentence(kind, used, limits.of(kind), ends, zone)
        for key in list(self._sessions(slug)):
            try:
                answer = await self._gateway.request("chat.abort", {"sessionKey": key})
                if not isinstance(answer, dict) or answer.get("aborted") is not True:
                    continue  # it ended by itself
                self._report(RunsCut(self._gateway_id, kind))
                await self._gateway.request("chat.inject", {"sessionKey": key, "message": why})
            except (SidecarError, RequestRefused):
                continue  # with the gateway away nothing runs there; what goes on is seen again at its next call
