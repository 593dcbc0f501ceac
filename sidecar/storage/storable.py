"""What PostgreSQL can hold of what clients may write."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def storable(value: Any) -> Any:
    """The same JSON value, with what neither `text` nor `jsonb` takes replaced: NUL, lone surrogates, NaN, infinity.

    Anything that is no JSON value becomes its text.
    """
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if value is None or isinstance(value, int):
        return value
    return storable(str(value))
