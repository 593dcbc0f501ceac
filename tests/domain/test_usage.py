"""Tokens and what they weigh."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sidecar.domain.usage import Tokens, UsageSum, Weights, spreadsheet


def test_the_four_add_up() -> None:
    assert Tokens(1, 20, 300, 4000).total == 4321


def test_weights() -> None:
    assert Weights().of(Tokens(1, 20, 300, 4000)) == 4321
    cheap_cache = Weights(cache_read=Decimal("0.1"), cache_write=Decimal("1.25"), output=Decimal(5))
    assert cheap_cache.of(Tokens(1, 20, 300, 4000)) == Decimal(5131)


@pytest.mark.parametrize(
    ("name", "cell"),
    [("2026-11-27", "2026-11-27"), ("=1+1", "'=1+1"), ("-1", "'-1"), ("\t@x", "' @x"), ("a\nb", "a b"), ("", "")],
)
def test_a_line_of_a_spreadsheet(name: str, cell: str) -> None:
    head, line = spreadsheet("session", [UsageSum(name, 3, 1, Tokens(1, 20, 300, 4000), Decimal("0.000000001"))])
    assert head == [
        "session",
        "calls",
        "estimated",
        "input",
        "output",
        "cache_read",
        "cache_write",
        "total",
        "cost_usd",
    ]
    assert line == [cell, 3, 1, 1, 20, 300, 4000, 4321, "0.000000001"]
