"""JSON that means one thing: where two parsers could read a document differently, it is refused."""

from __future__ import annotations

import json
from typing import NoReturn


def parse_object(text: bytes) -> dict[str, object]:
    """A JSON object in UTF-8, without a name that stands twice at any depth, NaN or Infinity. Raises
    ValueError."""
    try:
        parsed = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  one kind of error for all documents that are not meant
    return parsed


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("not a JSON number")
