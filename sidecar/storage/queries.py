"""Reads `sql/*.sql`: each query is headed by `-- name: …` and at least one sentence."""

from __future__ import annotations

import re
from pathlib import Path

_HEAD = re.compile(r"^-- name: (\w+)\n((?:-- .*\n)+)", re.MULTILINE)
_FOLDER = Path(__file__).with_name("sql")


def load(subject: str) -> dict[str, str]:
    """Query name → SQL text of `sql/<subject>.sql`. Raises ValueError for a name that stands twice."""
    parts = _HEAD.split((_FOLDER / f"{subject}.sql").read_text(encoding="utf-8"))
    names, texts = parts[1::3], parts[3::3]
    if len(set(names)) != len(names):
        raise ValueError(f"sql/{subject}.sql names a query twice")
    return {name: text.strip() for name, text in zip(names, texts, strict=True)}
