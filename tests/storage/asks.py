"""Turns that ask to start, as tests write them."""

from __future__ import annotations

from decimal import Decimal

from sidecar.domain.quota import NOTHING, Amount, Limits, QuotaType
from sidecar.storage.accounts import Ask

MINUTE = 60_000
DAY, MONTH = "2026-11-27", "2026-11"


def limits(**values: float | str) -> Limits:
    """By the names of `QuotaType`."""
    return Limits({QuotaType(name): Decimal(str(value)) for name, value in values.items()})


def ask(
    slug: str,
    run_id: str,
    allowed: Limits | None = None,
    *,
    place: str = "main",
    session: str = "",
    estimate: Amount = NOTHING,
    ttl_ms: int = MINUTE,
    now_ms: int = 1000,
    day: str = DAY,
    month: str = MONTH,
) -> Ask:
    return Ask(slug, place, run_id, session, estimate, allowed or Limits(), ttl_ms, now_ms, day, month)
