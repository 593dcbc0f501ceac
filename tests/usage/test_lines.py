"""Lines of the spool."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.usage import ModelCall, Source, Tokens
from sidecar.usage.lines import from_line, to_line

_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
_COUNT = st.integers(0, 2**53 - 1)
CALLS = st.builds(
    ModelCall,
    gateway_id=_TEXT,
    call_id=_TEXT,
    source=st.sampled_from(Source),
    slug=_TEXT,
    session_key=_TEXT,
    run_id=_TEXT,
    provider=_TEXT,
    model=_TEXT,
    tokens=st.builds(Tokens, _COUNT, _COUNT, _COUNT, _COUNT),
    cost_usd=st.decimals(0, 1_000_000, allow_nan=False, places=9),
    at=st.floats(0, 4e9),
    metadata=st.dictionaries(_TEXT, _TEXT | st.integers(0, 9) | st.none(), max_size=3),
)


@given(CALLS)
def test_there_and_back(call: ModelCall) -> None:
    line = to_line(call)
    assert b"\n" not in line
    assert from_line(line) == call


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        to_line(ModelCall("g", "c", Source.MESSAGE, "u-a", "k", "r", "p", "m", Tokens(1), Decimal(1), 1.0)).replace(
            b"message", b"?"
        ),
        to_line(ModelCall("g", "c", Source.MESSAGE, "u-a", "k", "r", "p", "m", Tokens(1), Decimal(1), 1.0)).replace(
            b'"1"', b'"x"'
        ),
    ],
)
def test_what_is_no_line(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_line(line)
