"""Tokens and what they weigh."""

from __future__ import annotations

from decimal import Decimal

from sidecar.domain.usage import Tokens, Weights


def test_the_four_add_up() -> None:
    assert Tokens(1, 20, 300, 4000).total == 4321


def test_weights() -> None:
    assert Weights().of(Tokens(1, 20, 300, 4000)) == 4321
    cheap_cache = Weights(cache_read=Decimal("0.1"), cache_write=Decimal("1.25"), output=Decimal(5))
    assert cheap_cache.of(Tokens(1, 20, 300, 4000)) == Decimal(5131)
