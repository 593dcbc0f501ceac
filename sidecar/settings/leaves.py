"""A walk over the tree: one `Leaf` per setting, with its dotted name, its variable, and its words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, get_args, get_origin

import orjson
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from sidecar.settings.tree import Settings
from sidecar.settings.values import Kind

PREFIX = "SIDECAR_"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting, or a list of tables as a whole."""

    path: tuple[str, ...]
    """Its keys, without indices: `("gateways", "url")`."""

    name: str
    """Its dotted name; a list of tables has `[]`: `gateways[].url`."""

    variable: str
    """The variable that sets it; for a key within a list of tables, the variable of the list."""

    kind: str
    """Words for its type that follow `must be`."""

    base: type | None
    """`int`, `float` or `bool` where text must be turned into one; `tuple` where it is JSON; else None."""

    field: FieldInfo

    table: type[BaseModel] | None
    """The section that each entry is, where this is a list of tables."""

    in_list: bool
    """Whether it stands within a list of tables, and so has no variable of its own."""

    @property
    def secret(self) -> bool:
        return self.field.annotation is SecretStr

    @property
    def default(self) -> str:
        """The default as TOML would write it."""
        return to_toml(self.field.get_default())


def to_toml(value: object) -> str:
    """A default as it would be written in the file."""
    plain = [to_plain(item) for item in value] if isinstance(value, tuple) else to_plain(value)
    return orjson.dumps(plain).decode().replace(",", ", ")


def to_plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path | IPv4Network | IPv6Network):
        return str(value)
    return value


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """The section class in `tuple[Section, ...]`."""
    if get_origin(annotation) is tuple and isinstance(get_args(annotation)[0], type):
        item = get_args(annotation)[0]
        return item if issubclass(item, BaseModel) else None
    return None


def _kind(field: FieldInfo) -> str:
    own = [item.words for item in field.metadata if isinstance(item, Kind)]
    if own:
        return own[0]
    item = get_args(field.annotation)[0]
    words = [data.words for data in getattr(item, "__metadata__", ()) if isinstance(data, Kind)]
    return f"a list, each {words[0]}" if words else "a list of tables"


def _leaf(field: FieldInfo, path: tuple[str, ...], parent: str, variable: str) -> Leaf:
    annotation = field.annotation
    bases: tuple[type, ...] = (tuple, int, float, bool)
    base = next((kind for kind in bases if kind in {annotation, get_origin(annotation)}), None)
    name = f"{parent}.{path[-1]}" if parent else path[-1]
    own = PREFIX + "__".join(path).upper()
    return Leaf(path, name, variable or own, _kind(field), base, field, _table_of(annotation), bool(variable))


def leaves(
    section: type[BaseModel] = Settings, path: tuple[str, ...] = (), parent: str = "", variable: str = ""
) -> Iterator[Leaf]:
    """Every setting in the order of the tree; a list of tables comes before what its entries hold."""
    for key, field in section.model_fields.items():
        here = (*path, key)
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from leaves(annotation, here, f"{parent}.{key}" if parent else key, variable)
            continue
        leaf = _leaf(field, here, parent, variable)
        yield leaf
        if leaf.table is not None:
            yield from leaves(leaf.table, here, f"{leaf.name}[]", leaf.variable)


def by_variable() -> Mapping[str, Leaf]:
    """The variables that are understood, each with what it sets."""
    return {leaf.variable: leaf for leaf in leaves() if not leaf.in_list}


def dotted(location: tuple[str | int, ...]) -> str:
    """`("gateways", 0, "url")` → `gateways[0].url`."""
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name
