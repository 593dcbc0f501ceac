"""JSON as Hypothesis draws it: what a client may send, and what it may not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

MAX_SAFE = 2**53 - 1
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KEYS = st.one_of(
    st.sampled_from(["sessionKey", "agentId", "key", "seq", "message", "__proto__", "payload", "id", "x"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='\\"'), max_size=8),
)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-MAX_SAFE, MAX_SAFE),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.sampled_from(['"sessionKey":"agent:u-alice:x"', ',"seq":7}', "\\", '"', '{"seq":1}', "agent:u-alice:main"]),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
OBJECTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(KEYS, VALUES, max_size=6)
