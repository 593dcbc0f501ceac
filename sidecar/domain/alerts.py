"""What a user is told before a limit is reached, and when it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sidecar.domain.quota import Figures, Limits, QuotaType

SHARES: Mapping[QuotaType, tuple[int, ...]] = {
    QuotaType.DAILY_TOKENS: (80, 90, 100),
    QuotaType.MONTHLY_COST: (80, 100),
}
"""Per cent of a limit at which its user is told."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A share of a limit that was reached."""

    alert_type: str
    """`daily_tokens_80`, …"""

    kind: QuotaType
    percent: int
    period: str
    """The day or the month."""

    used: Decimal
    limit: Decimal


@dataclass(frozen=True, slots=True)
class Alert:
    """One row of `quota_alerts`."""

    id: int
    user_id: str
    alert_type: str
    period: str
    used: Decimal
    limit_value: Decimal
    triggered_at: datetime
    acknowledged: bool
    resolved_at: datetime | None
    resolved_by: str
    resolution_note: str


def crossings(figures: Figures, limits: Limits) -> Iterator[Crossing]:
    """Every share that was reached, the lowest first."""
    stands = {
        QuotaType.DAILY_TOKENS: (figures.used.tokens, figures.day),
        QuotaType.MONTHLY_COST: (figures.used.cost_usd, figures.month),
    }
    for kind, shares in SHARES.items():
        (used, period), limit = stands[kind], limits.of(kind)
        for percent in shares if limit else ():
            if used * 100 >= limit * percent:
                yield Crossing(f"{kind}_{percent}", kind, percent, period, used, limit)
