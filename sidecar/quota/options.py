"""What operators decide about quotas."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from sidecar.domain.quota import NOTHING, Amount, Limits, QuotaType
from sidecar.domain.usage import Weights

ROLES = ("administrator", "user", "guest")
"""Who has several is limited as the first of them."""

OnFailure = Literal["closed", "open", "local"]
_HUNDRED = Decimal(100)
UTC = ZoneInfo("UTC")
ALIKE = Weights()


@dataclass(frozen=True, slots=True)
class Rule:
    """How one limit is enforced."""

    hard: bool = True
    """Turns are refused, and running ones cut; else it is only told."""

    grace_percent: Decimal = Decimal(0)
    """By so much it may be passed."""

    on_redis_failure: OnFailure = "closed"
    """Nothing starts; everything does; or what was left at last sight, divided by the replicas."""


@dataclass(frozen=True, slots=True)
class QuotaOptions:
    defaults: Mapping[str, Limits]
    """By role."""

    rules: Mapping[QuotaType, Rule] = field(default_factory=dict)
    zone: ZoneInfo = UTC
    weights: Weights = ALIKE
    estimate: Amount = NOTHING
    """Of a turn in a session of which nothing is known."""

    replicas: int = 1

    def rule(self, kind: QuotaType) -> Rule:
        return self.rules.get(kind, _HARD)

    @property
    def closes(self) -> bool:
        """Does nothing start any more while Redis is away?"""
        return any(self.rule(kind).on_redis_failure == "closed" for kind in QuotaType)

    def limits(self, roles: Collection[str], own: Mapping[QuotaType, Decimal]) -> Limits:
        """Of a user: their own values, else those of their role."""
        role = next((one for one in ROLES if one in roles), ROLES[-1])
        return Limits({**self.defaults[role].values, **own})

    def enforced(self, limits: Limits) -> Limits:
        """Up to where turns start: with the grace, and without what is only told."""
        hard = {kind: value for kind, value in limits.values.items() if self.rule(kind).hard}
        return Limits({kind: value * (1 + self.rule(kind).grace_percent / _HUNDRED) for kind, value in hard.items()})


_HARD = Rule()
