"""One line of the audit log: who was refused what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ACTIONS = ("denied", "as_admin", "token_rejected", "socket_refused")
"""What rows are of: a request refused, one done as admin, a credential refused, a socket refused before anybody was known."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Texts may be anything a client wrote; `code` is an error's `detail_code` or a token's `reason`."""

    at: float
    """Unix seconds."""

    action: str
    connection_id: str = ""
    user_id: str = ""
    method: str = ""
    code: str = ""
    request_id: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values only."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which rows; an empty text matches all."""

    user_id: str = ""
    action: str = ""
    since: float | None = None
    """Unix seconds; None: from the first on."""


@dataclass(frozen=True, slots=True)
class StoredAudit:
    """A row as it was kept. Ids grow, but of two that are written at once the higher may be seen first."""

    id: int
    row: AuditRow
