"""Reading a gateway's configuration without trusting its shape: what is missing or of another type is empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def member(config: Mapping[str, Any], path: str) -> Any:
    """What stands at `gateway.auth.mode`; None where nothing does."""
    value: Any = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def table(config: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    value = member(config, path)
    return value if isinstance(value, Mapping) else {}


def words(config: Mapping[str, Any], path: str) -> list[str]:
    """The texts of a list."""
    value = member(config, path)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar with its path; entries of lists as `mappings[0]`."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{at}.{name}" if at else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{at}[{index}]")
    else:
        yield at, value
