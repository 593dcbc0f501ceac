"""What a gateway would make of what the sidecar lets through, said again apart from the code under test."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from sidecar.policy.rules import Only, Own, ParamRule, Rule, Shape
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


def is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isascii() and value.isprintable()


def is_inside(path: str) -> bool:
    """Does it stay below a folder that it is joined to, on any system?"""
    below = PurePosixPath(path.replace("\\", "/"))
    return not (below.is_absolute() or PureWindowsPath(path).drive or ".." in below.parts or path.startswith("~"))


def holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value))


def obeys(rule: ParamRule | None, value: Any) -> bool:
    """May `value` stand in a parameter with this rule, in a request of Bob's that goes on to the gateway?"""
    match rule:
        case Own(_, many=True) | Shape(_, many=True):
            one = Own(rule.kind) if isinstance(rule, Own) else Shape(rule.members)
            return isinstance(value, list) and all(obeys(one, member) for member in value)
        case Own():
            return is_id(value)
        case Only(words):
            return value in words
        case Shape(members):
            return isinstance(value, dict) and all(obeys(members.get(name), one) for name, one in value.items())
        case Rule.PATH:
            return isinstance(value, str) and is_inside(value)
        case Rule.MODEL:
            return value is None or (isinstance(value, str) and not re.search(r"[@\s]", value))
        case Rule.OWN_ID:
            return isinstance(value, str) and re.fullmatch(r"u-bob-[0-9a-f]{32}", value) is not None
        case Rule.PASS:
            return not holds_objects(value)
        case Rule.KEY | Rule.EXISTING_KEY:
            return is_bobs(value)
        case Rule.EXISTING_KEYS:
            return isinstance(value, list) and all(map(is_bobs, value))
        case Rule.AGENT:
            return bool(value == "u-bob")
        case Rule.NEW_RUN:
            return is_id(value) and len(value) <= MAX_RUN_ID
        case Rule.TEXT:
            return isinstance(value, str) and _COMMAND.search(value.lower()) is None
        case Rule.ATTACHMENTS:
            return isinstance(value, list) and not re.search("passwd|media://|https?://", repr(value))
        case _:
            return rule is Rule.ANY


_SAID = {"content", "text", "message", "arguments"}


def holds_anothers_session(value: Any) -> bool:
    """Does a member, but for what was said, hold another one's session key?"""
    if isinstance(value, dict):
        return any(holds_anothers_session(member) for name, member in value.items() if name not in _SAID)
    if isinstance(value, list):
        return any(map(holds_anothers_session, value))
    parts = value.lower().split(":") if isinstance(value, str) else []
    return len(parts) > 2 and parts[0] == "agent" and parts[1] not in {"", "u-bob"} and bool(parts[2])


def names_foreign(value: Any) -> bool:
    """Does any text inside `value` name Alice?"""
    if isinstance(value, dict):
        return any(names_foreign(member) for pair in value.items() for member in pair)
    if isinstance(value, list):
        return any(map(names_foreign, value))
    return isinstance(value, str) and "alice" in value.lower()
