"""One example of every kind of fact."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sidecar.telemetry import facts
from sidecar.telemetry.facts import Fact

_WORDS: dict[tuple[str, str], Any] = {("FramesRelayed", "direction"): "up"}
_VALUES: dict[str, Any] = {"str": "word", "int": 3, "float": 0.25, "bool": True}


def kinds() -> list[type[Fact]]:
    """Every class of fact that the module declares, in its order."""
    return [
        kind for kind in vars(facts).values() if isinstance(kind, type) and issubclass(kind, Fact) and kind is not Fact
    ]


def example(kind: type[Fact]) -> Fact:
    """A fact of this kind with plain values."""
    values = {item.name: _WORDS.get((kind.__name__, item.name), _VALUES[str(item.type)]) for item in fields(kind)}
    return kind(**values)
