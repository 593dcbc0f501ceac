from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.audit import AuditRow
from sidecar.storage.postgres import Database
from sidecar.storage.storable import storable

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
"""Lone surrogates and NUL included."""


@given(anything)
def test_what_comes_out_is_strict_json_without_nul(value: Any) -> None:
    text = json.dumps(storable(value), allow_nan=False, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text


@given(anything)
def test_storable_is_idempotent(value: Any) -> None:
    assert storable(storable(value)) == storable(value)


def test_what_can_be_held_stays_as_it_is() -> None:
    value = {"a": [1, 2.5, True, None, "ü€😀"]}
    assert storable(value) == value


@given(st.lists(st.tuples(st.text(st.characters(), max_size=8), anything), max_size=20))
def test_nothing_is_lost_in_conversion(pairs: list[tuple[str, Any]]) -> None:
    assert len(storable(pairs)) == len(pairs)


async def test_postgres_takes_it(database: Database) -> None:
    hostile = "\0\ud800\U0010ffff' ; drop table audit_log; -- \\u0000"
    await database.append_audit(
        [AuditRow(0.0, hostile, hostile, hostile, hostile, hostile, hostile, {hostile: [hostile, float("inf"), b"x"]})]
    )
