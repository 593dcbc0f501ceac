"""The policy table: one row per gateway method and event, read from TOML. The file's head explains its words."""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class PolicyError(ValueError):
    """A table says something that has no meaning. A defect of the table, found when it is read."""


class Rule(enum.StrEnum):
    """What happens to one parameter of a request. A parameter without a rule refuses the request."""

    PASS = "pass"  # noqa: S105 - a word of the table, no password
    DROP = "drop"
    TEXT = "text"
    ATTACHMENTS = "attachments"
    KEY = "key"
    EXISTING_KEY = "existing-key"
    EXISTING_KEYS = "existing-keys"
    AGENT = "agent"
    NEW_RUN = "new-run"
    OWN_RUN = "own-run"


class Passage(enum.StrEnum):
    """What happens to an event."""

    PASS = "pass"  # noqa: S105 - a word of the table, no password
    OWN = "own"
    HEALTH = "health"


@dataclass(frozen=True, slots=True)
class MethodRow:
    """A method that users may call. Methods without a row are refused and hidden."""

    name: str
    params: Mapping[str, Rule] = field(default_factory=dict)
    force: Mapping[str, Rule] = field(default_factory=dict)
    """Parameters that are set where the client left them out: `key` and `existing-key` to the main session, `agent` to the own
    agent, `new-run` to an id of ours. Without them the gateway would take its default agent."""

    response: str = "pass"
    """The filter for the payload: a name in `policy.responses.FILTERS`."""

    answer: Any = None
    """Where set, the payload that we answer without asking the gateway."""

    starts_run: bool = False
    responses: int = 1
    """How many `res` frames answer one request: 2 for `agent` (`status: accepted`, then final)."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows for one range of gateway versions."""

    since: tuple[int, int]
    until: tuple[int, int]
    methods: Mapping[str, MethodRow]
    events: Mapping[str, Passage]
    allowed_commands: frozenset[str]
    closed_commands: frozenset[str]

    def covers(self, version: str) -> bool:
        """Is a gateway of this version (`2026.9.6`, `2026.2.6-3`) one that this table was checked against?"""
        match = re.match(r"(\d+)\.(\d+)\.", version)
        return match is not None and self.since <= (int(match[1]), int(match[2])) < self.until

    def passes_method(self, name: str) -> bool:
        return name in self.methods

    def passes_event(self, name: str) -> bool:
        return name in self.events or name == "connect.challenge"


def read_table(source: bytes) -> Table:
    """Parse a table. Raises PolicyError, naming the row."""
    try:
        raw = tomllib.loads(source.decode())
        gateway, commands = raw["gateway"], raw["commands"]
        return Table(
            since=_month(gateway["since"]),
            until=_month(gateway["until"]),
            methods={name: _row(name, row) for name, row in raw["methods"].items()},
            events={name: Passage(word) for name, word in raw["events"].items()},
            allowed_commands=frozenset(commands["allowed"]),
            closed_commands=frozenset(commands["closed"]),
        )
    except PolicyError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"the policy table cannot be read: {error!r}") from error


def _month(text: str) -> tuple[int, int]:
    year, month = text.split(".")
    return int(year), int(month)


def _row(name: str, row: Mapping[str, Any]) -> MethodRow:
    try:
        return _method(name, row)
    except PolicyError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise PolicyError(f"{name}: {error}") from error


def _method(name: str, row: Mapping[str, Any]) -> MethodRow:
    unknown = set(row) - {"params", "force", "response", "answer", "starts_run", "responses"}
    if unknown:
        raise PolicyError(f"{name}: {', '.join(sorted(unknown))}")
    params, force = _rules(row.get("params", {})), _rules(row.get("force", {}))
    if any(rule not in _FORCEABLE for rule in force.values()):
        raise PolicyError(f"{name}: only a key, an agent or a run can be forced")
    starts_run = bool(row.get("starts_run", False))
    if starts_run != (Rule.NEW_RUN in {**params, **force}.values()):
        raise PolicyError(f"{name}: what starts a run has one parameter that names it")
    return MethodRow(
        name=name,
        params={**params, **force},
        force=force,
        response=row.get("response", "pass"),
        answer=row.get("answer"),
        starts_run=starts_run,
        responses=row.get("responses", 1),
    )


_FORCEABLE = frozenset({Rule.KEY, Rule.EXISTING_KEY, Rule.AGENT, Rule.NEW_RUN})


def _rules(words: Mapping[str, str]) -> dict[str, Rule]:
    return {name: Rule(word) for name, word in words.items()}
