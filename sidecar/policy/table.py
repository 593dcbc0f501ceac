"""The policy table: one row per gateway method and event, read from TOML. The file's head explains its words."""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sidecar.policy.resets import METHOD
from sidecar.policy.rules import Own, ParamRule, Rule, Shape, leaves, read_rules


class PolicyError(ValueError):
    """A table says something that has no meaning. A defect of the table, found when it is read."""


ROLES = frozenset({"administrator", "user", "guest"})
GUEST = frozenset({"guest"})


class Class(enum.StrEnum):
    """What a row comes to, for people: the column of the reference."""

    PASS = "pass"  # noqa: S105 - a word, no password
    ADOPT = "adopt"
    FILTER = "adopt+filter"
    EMPTY = "empty answer"
    AS_ADMIN = "as-admin"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class MethodRow:
    """A method that users may call. Methods without a row are refused and hidden."""

    name: str
    params: Mapping[str, ParamRule] = field(default_factory=dict)
    force: Mapping[str, ParamRule] = field(default_factory=dict)
    """Parameters that are set where the client left them out: `key` and `existing-key` to the main session, `agent` to the own
    agent, `new-run` to an id of ours. Without them the gateway would take its default agent."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that are always these, whatever the client says (`set` in the table)."""

    response: str = "pass"
    """The filter for the payload: a name in `policy.responses.FILTERS`."""

    rows: tuple[str, ...] = ()
    """Lists in the payload of which only rows stay that name the caller; `.`: it is one."""

    own: str = ""
    """The member of such a row that names its owner; empty: the row itself."""

    without: tuple[str, ...] = ()
    """Dotted places: a row of such a list in which one of them holds something does not stay."""

    fields: frozenset[str] = frozenset()
    """Where given, the members of the payload that stay."""

    learns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Kind → dotted places in the filtered payload where ids of the caller's objects stand."""

    answer: Any = None
    """Where set, the payload that we answer without asking the gateway."""

    otherwise: Any = None
    """The same for callers for whom the row does not hold; else they are refused."""

    as_admin: bool = False
    """The gateway asks for admin: executed on the sidecar's own connection, and audited."""

    counts: bool = False
    """As admin: it counts as a run until it is answered."""

    starts_run: bool = False
    starts_when: tuple[str, ...] = ()
    """It starts a run only if the client gives one of these; empty: always."""

    run: str = ""
    """The member of the answer that names the run, where the gateway chooses its id; empty: a parameter names it."""

    resets: bool = False
    """Its `message` may begin with `/new` or `/reset` (`policy.resets`)."""

    responses: int = 1
    """How many `res` frames answer one request: 2 for `agent` (`status: accepted`, then final)."""

    scope: str = ""
    """`agent`: it reaches all of an agent, `settings`: it tells what an operator set of one; empty: as its parameters say
    (`policy.shared`)."""

    unless: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Forced parameter → others that stand for it: where the client gave one of them, it is not forced."""

    roles: frozenset[str] = ROLES
    profile: bool = False
    """It holds where the gateway knows each user as one: behind a shared secret all are its owner."""

    profile_params: frozenset[str] = frozenset()
    """Parameters of which the same is true: elsewhere they are taken out."""

    not_for_guests: frozenset[str] = frozenset()
    """Parameters that have no rule for who only is a guest."""

    since: str = ""
    until: str = ""
    """The first version that has it, and the first that has it no more, where not all that the table covers do."""

    observed: str = ""
    """Where its class was seen, if not where the table's head says."""

    @property
    def passage(self) -> Class:
        if self.answer is not None:
            return Class.EMPTY
        if self.as_admin:
            return Class.AS_ADMIN
        if self.response != "pass" or self.rows or self.fields:
            return Class.FILTER
        return Class.ADOPT if set(leaves(self.params)) - {Rule.PASS, Rule.DROP} else Class.PASS


class Passage(enum.StrEnum):
    """What happens to an event."""

    PASS = "pass"  # noqa: S105 - a word of the table, no password
    OWN = "own"
    HEALTH = "health"
    FILTER = "filter"


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event that users may get."""

    passage: Passage
    own: str = ""
    """With FILTER: the member of the payload that names its owner; empty: the payload itself."""

    response: str = "own"
    """With FILTER: as for methods."""

    fields: frozenset[str] = frozenset()
    without: tuple[str, ...] = ()
    """Dotted places: an event in which one of them holds something does not pass."""

    since: str = ""
    until: str = ""
    """As for methods."""

    handle: tuple[str, str] | None = None
    """Kind and dotted place of the id by which it is known whose an event is that names nobody."""

    learns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """The rows for one range of gateway versions."""

    since: tuple[int, int]
    until: tuple[int, int]
    methods: Mapping[str, MethodRow]
    events: Mapping[str, EventRow]
    allowed_commands: frozenset[str]
    closed_commands: frozenset[str]
    users_commands: frozenset[str] = frozenset()
    """Of the allowed ones, those that guests may not."""

    observed: str = ""
    """The versions where rows were seen to do what they say."""

    denied_methods: Mapping[str, str] = field(default_factory=dict)
    """Name → why not, for every other method that a gateway of these versions has."""

    denied_events: Mapping[str, str] = field(default_factory=dict)

    def covers(self, version: str) -> bool:
        """Is a gateway of this version (`2026.9.6`, `2026.2.6-3`) one that this table was checked against?"""
        month = month_of(version)
        return month is not None and self.since <= month < self.until

    def passes_method(self, name: str, roles: Collection[str] = ROLES) -> bool:
        row = self.methods.get(name)
        return row is not None and (row.otherwise is not None or not row.roles.isdisjoint(roles))

    def knows_method(self, name: str) -> bool:
        """Is it a method of these gateways, open or denied, and no word of a client's?"""
        return name in self.methods or name in self.denied_methods

    def passes_event(self, name: str) -> bool:
        return name in self.events or name == "connect.challenge"

    def without_profiles(self) -> Table:
        """The same for a gateway that takes all users for its owner."""
        kept = {
            name: MethodRow(name, answer=row.otherwise) if row.profile else _dropping(row, row.profile_params)
            for name, row in self.methods.items()
            if not row.profile or row.otherwise is not None
        }
        return replace(self, methods=kept)

    def for_guests(self) -> Table:
        """The same for who only is a guest."""
        fewer = {
            name: replace(row, params={one: row.params[one] for one in row.params if one not in row.not_for_guests})
            for name, row in self.methods.items()
            if row.not_for_guests
        }
        allowed = self.allowed_commands - self.users_commands
        return replace(self, methods={**self.methods, **fewer}, allowed_commands=allowed)

    def kinds(self) -> frozenset[str]:
        """Kinds of objects whose owners are learned."""
        learned = [row.learns for row in self.methods.values()] + [row.learns for row in self.events.values()]
        return frozenset(kind for kinds in learned for kind in kinds)


def _dropping(row: MethodRow, params: Collection[str]) -> MethodRow:
    return replace(row, params={**row.params, **dict.fromkeys(params, Rule.DROP)}) if params else row


def month_of(version: str) -> tuple[int, int] | None:
    """Year and month of a gateway's version; None for what is none."""
    match = re.match(r"(\d+)\.(\d+)\.", version)
    return (int(match[1]), int(match[2])) if match else None


def read_table(source: bytes) -> Table:
    """Parse a table. Raises PolicyError, naming the row."""
    try:
        raw = tomllib.loads(source.decode())
        gateway, commands, denied = raw["gateway"], raw["commands"], raw.get("denied", {})
        table = Table(
            since=_month(gateway["since"]),
            until=_month(gateway["until"]),
            methods={name: _named(name, row, _method) for name, row in raw["methods"].items()},
            events={name: _named(name, row, _event) for name, row in raw["events"].items()},
            allowed_commands=frozenset(commands["allowed"]),
            closed_commands=frozenset(commands["closed"]),
            users_commands=frozenset(commands.get("users", ())),
            observed=str(gateway.get("observed", "")),
            denied_methods=dict(denied.get("methods", {})),
            denied_events=dict(denied.get("events", {})),
        )
    except PolicyError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"the policy table cannot be read: {error!r}") from error
    _check(table)
    return table


def _check(table: Table) -> None:
    twice = {*table.methods} & {*table.denied_methods} | {*table.events} & {*table.denied_events}
    if twice:
        raise PolicyError(f"both open and denied: {', '.join(sorted(twice))}")
    known = {*table.kinds(), "run"}
    for row in table.methods.values():
        if row.resets and METHOD not in table.methods:
            raise PolicyError(f"{row.name}: resets need a row {METHOD}")
        asked = {rule.kind for rule in leaves(row.params) if isinstance(rule, Own)}
        if not asked <= known:
            raise PolicyError(f"{row.name}: nobody learns who owns a {min(asked - known)}")


def _month(text: str) -> tuple[int, int]:
    year, month = text.split(".")
    return int(year), int(month)


_Row = TypeVar("_Row", MethodRow, EventRow)


def _named(name: str, row: Any, read: Callable[[str, Any], _Row]) -> _Row:
    try:
        return read(name, row)
    except PolicyError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"{name}: {error}") from error


_METHOD_WORDS = frozenset(
    {
        "params", "force", "unless", "set", "response", "rows", "own", "without", "fields", "learns", "answer", "otherwise",
        "as_admin", "counts", "starts_run", "starts_when", "run", "resets", "profile", "profile_params", "not_for_guests", "until",
        "responses", "scope", "roles", "since", "observed",
    }
)  # fmt: skip
_FORCEABLE = frozenset({Rule.KEY, Rule.EXISTING_KEY, Rule.AGENT, Rule.NEW_RUN})


def _method(name: str, row: Mapping[str, Any]) -> MethodRow:
    _refuse_unknown(name, row, _METHOD_WORDS)
    params, force = read_rules(row.get("params", {})), read_rules(row.get("force", {}))
    if any(rule not in _FORCEABLE for rule in leaves(force)):
        raise PolicyError(f"{name}: only a key, an agent or a run can be forced")
    starts_run, run = bool(row.get("starts_run", False)), row.get("run", "")
    if starts_run != (bool(run) != (Rule.NEW_RUN in {**params, **force}.values())):
        raise PolicyError(f"{name}: what starts a run has one parameter, or a member of its answer, that names it")
    roles = frozenset(row.get("roles", ROLES))
    if not roles or not roles <= ROLES:
        raise PolicyError(f"{name}: roles are {', '.join(sorted(ROLES))}")
    scope = row.get("scope", "")
    if scope not in {"", "agent", "settings"}:
        raise PolicyError(f"{name}: the scope is an agent or its settings")
    return MethodRow(
        name=name,
        params={**params, **{one: _both(params.get(one), rule) for one, rule in force.items()}},
        force=force,
        unless={one: _places(others) for one, others in row.get("unless", {}).items()},
        fixed=dict(row.get("set", {})),
        response=row.get("response", "pass"),
        rows=_places(row.get("rows", ())),
        own=row.get("own", ""),
        without=_places(row.get("without", ())),
        fields=frozenset(row.get("fields", ())),
        learns=_learns(row),
        answer=row.get("answer"),
        otherwise=row.get("otherwise"),
        as_admin=bool(row.get("as_admin", False)),
        counts=bool(row.get("counts", False)),
        starts_run=starts_run,
        starts_when=_places(row.get("starts_when", ())),
        run=run,
        resets=bool(row.get("resets", False)),
        responses=row.get("responses", 1),
        scope=scope,
        roles=roles,
        profile=bool(row.get("profile", False)),
        profile_params=_some_of(params, row.get("profile_params", ())),
        not_for_guests=_some_of(params, row.get("not_for_guests", ())),
        since=row.get("since", ""),
        until=row.get("until", ""),
        observed=row.get("observed", ""),
    )


def _both(written: ParamRule | None, forced: ParamRule) -> ParamRule:
    """What is forced counts; of an object of which only some members are forced, the others keep their rules."""
    if isinstance(written, Shape) and isinstance(forced, Shape):
        return Shape({**written.members, **forced.members})
    return forced


def _event(name: str, row: Any) -> EventRow:
    if isinstance(row, str):
        return EventRow(Passage(row))
    _refuse_unknown(
        name, row, frozenset({"own", "filter", "pass", "fields", "learns", "without", "handle", "since", "until"})
    )
    handle = next(iter(row.get("handle", {}).items()), None)
    return EventRow(
        Passage.PASS if row.get("pass") else Passage.FILTER,
        own=row.get("own", ""),
        response=row.get("filter", "own"),
        fields=frozenset(row.get("fields", ())),
        without=_places(row.get("without", ())),
        since=row.get("since", ""),
        until=row.get("until", ""),
        handle=handle,
        learns=_learns(row),
    )


def _refuse_unknown(name: str, row: Mapping[str, Any], words: frozenset[str]) -> None:
    unknown = set(row) - words
    if unknown:
        raise PolicyError(f"{name}: {', '.join(sorted(unknown))}")


def _some_of(params: Collection[str], written: Sequence[str]) -> frozenset[str]:
    if not set(written) <= set(params):
        raise ValueError(f"no such parameters: {', '.join(sorted(set(written) - set(params)))}")
    return frozenset(written)


def _places(written: str | Sequence[str]) -> tuple[str, ...]:
    return (written,) if isinstance(written, str) else tuple(written)


def _learns(row: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    if "run" in row.get("learns", {}):
        raise ValueError("runs are claimed, not learned")
    return {kind: _places(places) for kind, places in row.get("learns", {}).items()}
