"""One line of the audit log: who was refused what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
