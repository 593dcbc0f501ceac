"""A live gateway beside the policy table: what is new, gone or changed. Pure; `sidecar gateway diff` shows it.

Nothing of this opens anything: what has no row is refused whatever it says. It tells whoever extends the table, or has to decide
whether to trust a version that the table was not made for, what to look at.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.policy.rules import ParamRule, Rule, Shape
from sidecar.policy.schema import Node, Schema
from sidecar.policy.table import EventRow, MethodRow, PolicyError, Table

DYNAMIC = "dynamic"
"""The scope of methods that ask for one or another by their parameters."""


@dataclass(frozen=True, slots=True)
class Surface:
    """What a gateway says of itself in `hello-ok`."""

    version: str
    methods: frozenset[str]
    events: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reviewed:
    """In what the tables and a gateway are known to differ, so that it is no news."""

    methods: frozenset[str] = frozenset()
    """Not advertised, and answered or asked for all the same: that they are not named says nothing."""

    events: frozenset[str] = frozenset()
    """The same of events that come."""

    closed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Method → parameters in the schema that are refused on purpose."""

    newer: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Method → parameters not in the schema that a gateway takes all the same: the package with the schema lags behind."""


@dataclass(frozen=True, slots=True)
class ScopeChange:
    """A method whose scope does not fit how its row is executed."""

    method: str
    scope: str
    as_admin: bool
    """True: it is executed as admin and asks for less. False: it is executed as the user, who does not have the scope."""


@dataclass(frozen=True, slots=True)
class Difference:
    """All names sorted; parameters by method, those within objects dotted (`targets[].key`)."""

    new_methods: tuple[str, ...] = ()
    """Advertised, with neither row nor denial: refused."""

    gone_methods: tuple[str, ...] = ()
    """With a row, and not advertised, which it was."""

    new_events: tuple[str, ...] = ()
    gone_events: tuple[str, ...] = ()
    new_params: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """In the schema, without a rule and not refused on purpose: refused all the same."""

    gone_params: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Sent by a rule, or set by the row, and not in the schema: the gateway may refuse the request."""

    scopes: tuple[ScopeChange, ...] = ()
    not_compared: tuple[str, ...] = ()
    """Open methods whose parameters the schema does not tell; empty without a schema."""

    @property
    def same(self) -> bool:
        return self == Difference(not_compared=self.not_compared)


def read_reviewed(source: bytes) -> Reviewed:
    """Parse `reviewed.toml`. Raises PolicyError."""
    try:
        raw = tomllib.loads(source.decode())
        silent = raw["unadvertised"]
        methods, events = frozenset(silent["methods"]), frozenset(silent["events"])
        closed, newer = ({name: frozenset(all_) for name, all_ in raw[part].items()} for part in ("closed", "newer"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"what was reviewed cannot be read: {error!r}") from error
    return Reviewed(methods, events, closed, newer)


def surface_of(hello: Mapping[str, Any]) -> Surface:
    """From the payload of `hello-ok`; what is missing there is empty."""
    server, features = _object(hello, "server"), _object(hello, "features")
    return Surface(str(server.get("version", "")), _names(features.get("methods")), _names(features.get("events")))


def compare(
    table: Table,
    surface: Surface,
    schema: Schema | None = None,
    *,
    scopes: Collection[str],
    reviewed: Reviewed | None = None,
) -> Difference:
    """What differs. `scopes`: those of a user's connection."""
    rows = {name: row for name, row in table.methods.items() if _holds(row, surface.version)}
    events = {name for name, row in table.events.items() if _holds(row, surface.version)}
    reviewed = reviewed or Reviewed()
    known_methods, known_events = (
        {*table.methods, *table.denied_methods},
        {*table.events, *table.denied_events, "connect.challenge"},
    )
    params = _params(rows, schema, reviewed) if schema else {}
    return Difference(
        new_methods=_sorted(surface.methods - known_methods),
        gone_methods=_sorted({*rows} - surface.methods - reviewed.methods),
        new_events=_sorted(surface.events - known_events),
        gone_events=_sorted({*events} - surface.events - reviewed.events),
        new_params={name: new for name, (new, _) in params.items() if new},
        gone_params={name: gone for name, (_, gone) in params.items() if gone},
        scopes=tuple(_scopes(rows, schema, scopes)) if schema else (),
        not_compared=_sorted({name for name, row in rows.items() if _sent(row)} - {*params}) if schema else (),
    )


def _params(
    rows: Mapping[str, MethodRow], schema: Schema, reviewed: Reviewed
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Method → (new, gone), for each open method whose parameters are known."""
    found = {}
    for name, row in sorted(rows.items()):
        if _sent(row) and name in schema.params:
            rules: dict[str, ParamRule] = {**dict.fromkeys(row.fixed, Rule.ANY), **row.params}
            new, gone = _members(rules, schema, schema.params[name])
            found[name] = (
                _sorted(new - reviewed.closed.get(name, frozenset())),
                _sorted(gone - reviewed.newer.get(name, frozenset())),
            )
    return found


def _members(rules: Mapping[str, ParamRule], schema: Schema, node: Node) -> tuple[set[str], set[str]]:
    """(new, gone). What is taken out of a request may be gone: nobody misses it."""
    members = schema.members(node)
    if members is None:
        return set(), set()
    new = {*members} - {*rules}
    gone = {name for name, rule in rules.items() if rule is not Rule.DROP} - {*members}
    for name, rule in rules.items():
        if isinstance(rule, Shape) and name in members:
            inner = schema.items(members[name]) if rule.many else members[name]
            prefix = f"{name}[]." if rule.many else f"{name}."
            below = _members(rule.members, schema, inner)
            new |= {prefix + one for one in below[0]}
            gone |= {prefix + one for one in below[1]}
    return new, gone


def _scopes(rows: Mapping[str, MethodRow], schema: Schema, scopes: Collection[str]) -> Iterator[ScopeChange]:
    for name, row in sorted(rows.items()):
        scope = schema.scopes.get(name, DYNAMIC)
        if _sent(row) and scope != DYNAMIC and (scope in scopes) is row.as_admin:
            yield ScopeChange(name, scope, row.as_admin)


def _sent(row: MethodRow) -> bool:
    """Does the gateway ever see it?"""
    return row.answer is None


def _holds(row: MethodRow | EventRow, version: str) -> bool:
    """Is the row about gateways of this version?"""
    known = _numbers(version)
    return not (row.since and known < _numbers(row.since)) and not (row.until and known >= _numbers(row.until))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _names(value: object) -> frozenset[str]:
    return frozenset(one for one in value if isinstance(one, str)) if isinstance(value, list) else frozenset()


def _object(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _sorted(names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
