"""What a user may use, and how far they have come."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


class QuotaType(enum.StrEnum):
    """The limits there are, by the names under which `user_quotas` keeps them."""

    DAILY_TOKENS = "daily_tokens"
    MONTHLY_COST = "monthly_cost"
    API_CALLS = "api_calls"
    """Turns that a user started in a day: what the gateway begins by itself is none."""

    CONCURRENT_RUNS = "concurrent_runs"
    MESSAGES_PER_MINUTE = "messages_per_minute"


NO_LIMIT = Decimal(0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one user; 0: unlimited."""

    values: Mapping[QuotaType, Decimal] = field(default_factory=dict)

    def of(self, kind: QuotaType) -> Decimal:
        return self.values.get(kind, NO_LIMIT)


@dataclass(frozen=True, slots=True)
class Amount:
    """What counts towards a quota of tokens, and one of money."""

    tokens: Decimal = Decimal(0)
    """Weighted."""

    cost_usd: Decimal = Decimal(0)

    def plus(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.cost_usd + other.cost_usd)


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Figures:
    """Where a user stands at one moment."""

    day: str
    """Of `used.tokens` and `calls`: `2026-11-27`."""

    month: str
    """Of `used.cost_usd`: `2026-11`."""

    used: Amount
    """Settled: what model calls are known to have taken."""

    reserved: Amount
    """For the turns that run."""

    calls: int
    runs: int
    """Turns that run now."""


class Outcome(enum.StrEnum):
    """What becomes of a turn that asks to start."""

    ADMITTED = "admitted"
    REPEATED = "repeated"
    """Admitted before, and it lives: the same request again."""

    UNKNOWN = "unknown"
    """Nobody knows what the user has used: the ledger must say so first."""

    RUNS = "runs"
    RATE = "rate"
    CALLS = "calls"
    TOKENS = "tokens"
    COST = "cost"


REFUSED_FOR: Mapping[Outcome, QuotaType] = {
    Outcome.RUNS: QuotaType.CONCURRENT_RUNS,
    Outcome.RATE: QuotaType.MESSAGES_PER_MINUTE,
    Outcome.CALLS: QuotaType.API_CALLS,
    Outcome.TOKENS: QuotaType.DAILY_TOKENS,
    Outcome.COST: QuotaType.MONTHLY_COST,
}


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to a turn that asks to start, and the figures by which it was given."""

    outcome: Outcome
    figures: Figures
    estimate: Amount = NOTHING
    """What the turn itself reserves, or would have."""

    wait_ms: int = 0
    """With `RATE`: after so long one more fits."""

    @property
    def admitted(self) -> bool:
        return self.outcome in {Outcome.ADMITTED, Outcome.REPEATED}

    @property
    def repeated(self) -> bool:
        return self.outcome is Outcome.REPEATED
