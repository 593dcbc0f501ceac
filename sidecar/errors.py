"""Every error that this project raises on purpose.

    SidecarError
    ├── ConfigurationError     the operator's to mend; all problems at once, before listening
    ├── EngineError            an embedded engine or the data folder cannot be used
    ├── Refusal                the caller's to mend; shown to the caller, counted, audited
    │   ├── MalformedFrame     not a frame that a gateway client would send
    │   ├── TokenRefused       no, a bad, or an ended credential
    │   ├── OriginRefused      a browser page that is not ours
    │   ├── BadQuery           an address of the HTTP API with parameters that mean nothing
    │   ├── MethodRefused      method or parameter that no policy row opens
    │   ├── ForeignKey         names something outside the caller's namespace
    │   ├── GatewayNotCovered  no run on a gateway of a version that no policy table covers
    │   ├── TooManyRuns        the user's own concurrent runs are used up
    │   ├── QuotaExceeded      the user's own tokens, money, turns of a day or of a minute are
    │   ├── TooManyRequests    too many requests of one connection wait for their answer
    │   └── HouseFull          too many sockets of one address, one user, or in all
    └── Outage                 a dependency is away; retryable, nobody's fault who asks
        ├── GatewayAway        no gateway, or not ready, or lost
        ├── GatewayOpen        the gateway's session tools are open: serving would leak
        ├── StorageAway        PostgreSQL or Redis does not answer
        └── IdentityAway       an issuer's keys cannot be fetched and none are kept

Each class carries its own row of the table from error to the outside: `code` is the gateway protocol's error code,
`detail_code` what clients branch on (`error.details.code`), `status` the HTTP status before an upgrade, `close_code` the
WebSocket close code where the socket cannot go on. A message is written for the person who reads it; it never holds a
token, a secret, or anything of another user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


class SidecarError(Exception):
    """Base of the tree."""

    code: ClassVar[str] = "UNAVAILABLE"
    detail_code: str = "INTERNAL"
    status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        detail_code: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if detail_code is not None:
            self.detail_code = detail_code
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after_ms = retry_after_ms

    def to_wire(self) -> dict[str, Any]:
        """The gateway protocol's error object: `{code, message, details, retryable?, retryAfterMs?}`."""
        error: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "details": {"code": self.detail_code, **self.details},
        }
        if self.retryable:
            error["retryable"] = True
        if self.retry_after_ms is not None:
            error["retryAfterMs"] = self.retry_after_ms
        return error


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration: where (`server.port`), what, and how to mend it."""

    setting: str
    what: str
    mend: str = field(default="")

    def __str__(self) -> str:
        return f"{self.setting}: {self.what}" + (f" — {self.mend}" if self.mend else "")


class ConfigurationError(SidecarError):
    """All problems of one configuration, found before anything listens."""

    detail_code = "CONFIGURATION"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class EngineError(SidecarError):
    """An embedded PostgreSQL or Valkey, or the data folder, cannot be used; the message names the mend."""

    detail_code = "ENGINE"


class Refusal(SidecarError):
    """The caller asked for something it may not have, or not like this."""

    code = "INVALID_REQUEST"
    detail_code = "REFUSED"
    status = 403
    close_code = 1008


class MalformedFrame(Refusal):
    """`close_code` 1008 as the gateway's own, except where the raiser says otherwise."""

    detail_code = "MALFORMED_FRAME"
    status = 400


class BadQuery(Refusal):
    detail_code = "BAD_QUERY"
    status = 400


class TokenRefused(Refusal):
    """`reason` is a fixed word for logs and metrics (`expired`, `signature`, `audience` …), never token content."""

    code = "INVALID_REQUEST"
    detail_code = "AUTH_TOKEN_MISMATCH"
    status = 401

    def __init__(self, message: str, *, reason: str, detail_code: str | None = None) -> None:
        super().__init__(message, detail_code=detail_code)
        self.reason = reason


class OriginRefused(Refusal):
    detail_code = "ORIGIN_NOT_ALLOWED"


class MethodRefused(Refusal):
    detail_code = "METHOD_NOT_ALLOWED"


class ForeignKey(Refusal):
    """Says that it is not the caller's, never whose it is or whether it exists."""

    detail_code = "FOREIGN_KEY"


class GatewayNotCovered(Refusal):
    """The operator's to allow, by name of the version. Not `retryable`: clients would send the turn again until somebody does."""

    code = "UNAVAILABLE"
    detail_code = "GATEWAY_NOT_COVERED"


class TooManyRuns(Refusal):
    """Not `retryable`: the Control UI would send the turn again by itself (2026.9.6)."""

    code = "UNAVAILABLE"
    detail_code = "TOO_MANY_RUNS"
    status = 429


class QuotaExceeded(Refusal):
    """`detail_code` says which quota; `details` has `used`, `limit` and `resetsAt` (Unix ms). Not `retryable`, as TooManyRuns."""

    code = "UNAVAILABLE"
    detail_code = "QUOTA_EXCEEDED"
    status = 429


class TooManyRequests(Refusal):
    code = "UNAVAILABLE"
    detail_code = "TOO_MANY_REQUESTS"
    status = 429


class HouseFull(Refusal):
    code = "UNAVAILABLE"
    detail_code = "TOO_MANY_CONNECTIONS"
    status = 429
    close_code = 1013
    retryable = True


class Outage(SidecarError):
    """Something that we need is away. Real clients recover by themselves from what this becomes on the wire."""

    detail_code = "DEPENDENCY_UNAVAILABLE"
    status = 503
    close_code = 1013
    retryable = True


class GatewayAway(Outage):
    """Carries the reason by which real clients know a gateway that starts: they say so, wait, and come back (2026.9.6)."""

    detail_code = "GATEWAY_UNAVAILABLE"

    def to_wire(self) -> dict[str, Any]:
        error = super().to_wire()
        error["details"]["reason"] = "startup-sidecars"
        error.setdefault("retryAfterMs", 1000)
        return error


class GatewayOpen(Outage):
    """An operator has to close the gateway, or the agent, first."""

    detail_code = "GATEWAY_OPEN"


DENIALS = (Refusal, GatewayOpen)
"""What is audited: somebody was kept from something, though nothing was away."""


class StorageAway(Outage):
    detail_code = "STORAGE_UNAVAILABLE"


class IdentityAway(Outage):
    detail_code = "IDENTITY_UNAVAILABLE"
