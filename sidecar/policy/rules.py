"""What a table says of one parameter: a word, an id of a kind, one of some words, or an object whose members have rules."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


class Rule(enum.StrEnum):
    """What happens to one parameter of a request. A parameter without a rule refuses the request."""

    PASS = "pass"  # noqa: S105 - a word of the table, no password
    ANY = "any"
    DROP = "drop"
    TEXT = "text"
    PATH = "path"
    ATTACHMENTS = "attachments"
    KEY = "key"
    EXISTING_KEY = "existing-key"
    EXISTING_KEYS = "existing-keys"
    AGENT = "agent"
    MODEL = "model"
    NEW_RUN = "new-run"
    OWN_ID = "own-id"


@dataclass(frozen=True, slots=True)
class Own:
    """The id of an object that the caller is known to own; `many`: a list of them."""

    kind: str
    """`run`, or a kind that some row or event learns."""

    many: bool = False


@dataclass(frozen=True, slots=True)
class Only:
    """One of these words; None where `null` is one of them."""

    words: frozenset[str | None]


@dataclass(frozen=True, slots=True)
class Shape:
    """An object whose members have rules; `many`: a list of such objects."""

    members: Mapping[str, ParamRule]
    many: bool = False

    def __hash__(self) -> int:
        return hash((frozenset(self.members), self.many))


ParamRule = Rule | Own | Only | Shape

_OWN = re.compile(r"(owns?):([a-z][a-z-]*)")
_ONLY = re.compile(r"only:(\w[\w.-]*(?:\|\w[\w.-]*)*)")


def read_rule(word: Any) -> ParamRule:
    """A rule as the table writes it. Raises ValueError for what is none."""
    if isinstance(word, Mapping):
        return Shape(read_rules(word))
    if isinstance(word, list):
        if len(word) != 1 or not isinstance(word[0], Mapping):
            raise ValueError("a list of objects is written as a list of one object")
        return Shape(read_rules(word[0]), many=True)
    if match := _OWN.fullmatch(word):
        return Own(match[2], many=match[1] == "owns")
    if match := _ONLY.fullmatch(word):
        return Only(frozenset(None if word == "null" else word for word in match[1].split("|")))
    return Rule(word)


def read_rules(words: Mapping[str, Any]) -> dict[str, ParamRule]:
    return {name: read_rule(word) for name, word in words.items()}


def leaves(rules: Mapping[str, ParamRule]) -> Iterator[ParamRule]:
    """Every rule, those within objects too."""
    for rule in rules.values():
        if isinstance(rule, Shape):
            yield from leaves(rule.members)
        else:
            yield rule
