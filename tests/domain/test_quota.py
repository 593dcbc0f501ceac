"""Limits, amounts and the shares at which people are told."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.alerts import SHARES, crossings
from sidecar.domain.quota import NOTHING, REFUSED_FOR, Admission, Amount, Figures, Limits, Outcome, QuotaType

amounts = st.builds(
    Amount, st.decimals(0, 10**9, allow_nan=False, places=3), st.decimals(0, 10**6, allow_nan=False, places=9)
)


def figures(tokens: int, cost: str = "0") -> Figures:
    return Figures("2026-11-27", "2026-11", Amount(Decimal(tokens), Decimal(cost)), NOTHING, 0, 0)


@given(amounts, amounts)
def test_amounts_add_up(one: Amount, other: Amount) -> None:
    assert one.plus(other) == other.plus(one)
    assert one.plus(NOTHING) == one


def test_no_limit_is_zero() -> None:
    assert Limits().of(QuotaType.DAILY_TOKENS) == 0
    assert Limits({QuotaType.API_CALLS: Decimal(3)}).of(QuotaType.API_CALLS) == 3


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_admits_or_names_its_quota_or_says_that_nobody_knows(outcome: Outcome) -> None:
    admission = Admission(outcome, figures(0))
    assert admission.admitted + (outcome in REFUSED_FOR) + (outcome is Outcome.UNKNOWN) == 1
    assert admission.repeated == (outcome is Outcome.REPEATED)


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (0, []),
        (799, []),
        (800, [80]),
        (899, [80]),
        (900, [80, 90]),
        (999, [80, 90]),
        (1000, [80, 90, 100]),
        (5000, [80, 90, 100]),
    ],
)
def test_shares_of_tokens(tokens: int, told: list[int]) -> None:
    found = list(crossings(figures(tokens), Limits({QuotaType.DAILY_TOKENS: Decimal(1000)})))
    assert [one.percent for one in found] == told
    assert [one.alert_type for one in found] == [f"daily_tokens_{percent}" for percent in told]
    assert {one.period for one in found} <= {"2026-11-27"}


def test_shares_of_money() -> None:
    limits = Limits({QuotaType.MONTHLY_COST: Decimal("0.5"), QuotaType.API_CALLS: Decimal(1)})
    assert [one.alert_type for one in crossings(figures(10**9, "0.4"), limits)] == ["monthly_cost_80"]
    assert [one.period for one in crossings(figures(0, "0.5"), limits)] == ["2026-11", "2026-11"]


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_without_a_limit_nobody_is_told(tokens: int, cost: int) -> None:
    assert list(crossings(figures(tokens, str(cost)), Limits())) == []
    assert set(SHARES) == {QuotaType.DAILY_TOKENS, QuotaType.MONTHLY_COST}
