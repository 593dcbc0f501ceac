"""Prices per million tokens, by provider, model and day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from sidecar.domain.usage import Tokens
from sidecar.usage.prices import Price, Prices

TOKENS = Tokens(input=1000, output=200, cache_read=50, cache_write=10)
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()


def price(
    model: str = "claude-sonnet-4-5*", *, each: int = 3, since: date = date.min, provider: str = "anthropic"
) -> Price:
    return Price(provider, model, Decimal(each), Decimal(each * 5), Decimal("0.3"), Decimal("3.75"), since)


def test_every_kind_of_token_has_its_price() -> None:
    # (1000 × 3 + 200 × 15 + 50 × 0.3 + 10 × 3.75) / 1,000,000
    assert price().of(TOKENS) == Decimal("0.0060525")


@pytest.mark.parametrize(
    ("provider", "model", "known"),
    [
        ("anthropic", "claude-sonnet-4-5", True),
        ("anthropic", "claude-sonnet-4-5-20250929", True),
        ("anthropic", "Claude-sonnet-4-5", False),
        ("anthropic", "my-claude-sonnet-4-5", False),
        ("amazon", "claude-sonnet-4-5", False),
    ],
)
def test_which_row_matches(provider: str, model: str, known: bool) -> None:
    assert (Prices([price()]).of(provider, model, TOKENS, NOON) is not None) == known


def test_the_latest_that_holds_counts() -> None:
    prices = Prices([price(each=1), price(each=3, since=date(2026, 11, 27)), price(each=9, since=date(2026, 11, 28))])
    midnight = datetime(2026, 11, 27, tzinfo=UTC).timestamp()
    costs = [
        prices.of("anthropic", "claude-sonnet-4-5", Tokens(1_000_000), at)
        for at in (midnight - 1, midnight, midnight + 86400)
    ]
    assert costs == [1, 3, 9]


def test_of_two_with_one_day_the_first_counts() -> None:
    prices = Prices([price("claude-sonnet-4-5", each=2), price("*", each=7)])
    assert prices.of("anthropic", "claude-sonnet-4-5", Tokens(1_000_000), NOON) == 2
    assert prices.of("anthropic", "claude-opus", Tokens(1_000_000), NOON) == 7


def test_a_row_that_does_not_hold_yet_is_none() -> None:
    assert Prices([price(since=date(2027, 1, 1))]).of("anthropic", "claude-sonnet-4-5", TOKENS, NOON) is None
