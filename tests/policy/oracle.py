"""What a gateway would make of what the sidecar lets through, said again apart from the code under test."""

from __future__ import annotations

import re
from typing import Any

from sidecar.policy.table import Rule
from tests.policy.people import TABLE

MAX_RUN_ID = 128
_COMMAND = re.compile(rf"(?<!\S)/(?:{'|'.join(sorted(TABLE.closed_commands))})(?=$|\s|:)")


def seen_by_gateway(key: str) -> str:
    """How a gateway looks a key up: trimmed and lower-cased."""
    return key.strip().lower()


def is_bobs(key: Any) -> bool:
    """Bob's as a gateway would look it up, with nothing in it that reads as something else."""
    return (
        isinstance(key, str)
        and seen_by_gateway(key) == key
        and key.startswith("agent:u-bob:")
        and key.isascii()
        and key.isprintable()
    )


def obeys(rule: Rule | None, value: Any) -> bool:
    """May `value` stand in a parameter with this rule, in a request of Bob's that goes on to the gateway?"""
    match rule:
        case Rule.KEY | Rule.EXISTING_KEY:
            return is_bobs(value)
        case Rule.EXISTING_KEYS:
            return isinstance(value, list) and all(map(is_bobs, value))
        case Rule.AGENT:
            return bool(value == "u-bob")
        case Rule.NEW_RUN | Rule.OWN_RUN:
            return isinstance(value, str) and 0 < len(value) <= MAX_RUN_ID and value.isascii() and value.isprintable()
        case Rule.TEXT:
            return isinstance(value, str) and _COMMAND.search(value.lower()) is None
        case Rule.ATTACHMENTS:
            return isinstance(value, list) and not re.search("passwd|media://|https?://", repr(value))
        case _:
            return rule is Rule.PASS


def names_foreign(value: Any) -> bool:
    """Does any text inside `value` name Alice?"""
    if isinstance(value, dict):
        return any(names_foreign(member) for pair in value.items() for member in pair)
    if isinstance(value, list):
        return any(map(names_foreign, value))
    return isinstance(value, str) and "alice" in value.lower()
