"""An event of the gateway → pass it, drop it, or say it again with only the user's part."""

from __future__ import annotations

import enum
from typing import Any

from sidecar.domain.namespace import Namespace
from sidecar.policy.own import NOTHING, at_places, names_own, values_at
from sidecar.policy.responses import filtered
from sidecar.policy.table import Passage, Table
from sidecar.protocol.frames import Event
from sidecar.protocol.handshake import own_health


class Verdict(enum.Enum):
    PASS = "pass"  # noqa: S105 - a word, no password
    REWRITE = "rewrite"
    FOREIGN = "foreign"
    UNLISTED = "unlisted"
    UNASKED = "unasked"
    """Its user's, and only for who subscribed to it, which this client did not (`policy.unasked`)."""


def judge(event: Event, namespace: Namespace, table: Table) -> Verdict:
    """What happens to `event` on a connection of `namespace`.

    `own` passes only where the event itself says whose it is, and every scope that it names is the caller's.
    """
    row = table.events.get(event.name)
    if row is None:
        return Verdict.UNLISTED
    if row.passage is Passage.PASS:
        return Verdict.PASS
    if row.passage is not Passage.OWN:
        return Verdict.REWRITE
    return Verdict.PASS if namespace.covers(event.session_key, event.agent_id) else Verdict.FOREIGN


def rewrite(name: str, payload: Any, namespace: Namespace, table: Table, *, known: bool = False) -> Any:
    """The payload of an event whose verdict is REWRITE, as this user may see it; NOTHING where it is not about them.

    `known`: the object that it is about is known to be theirs (`claimed`).
    """
    row = table.events[name]
    if row.passage is Passage.HEALTH:
        return own_health(payload if isinstance(payload, dict) else {}, namespace)
    named = payload.get(row.own) if row.own and isinstance(payload, dict) else payload
    if any(values_at(payload, row.without)) or not (known or names_own(named, namespace)):
        return NOTHING
    return filtered(row, payload, namespace)


def claimed(name: str, payload: Any, table: Table) -> tuple[str, str] | None:
    """Kind and id by which it may be known whose an event is that names nobody."""
    handle = table.events[name].handle
    ids = at_places(payload, handle[1:]) if handle else []
    return (handle[0], ids[0]) if handle and len(ids) == 1 else None
