"""From what redis-py and the server raise to our own tree; texts of the server never pass."""

from __future__ import annotations

from redis import exceptions

from sidecar.errors import SidecarError, StorageAway

_AWAY_KINDS = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.BusyLoadingError,
    exceptions.ClusterDownError,
    exceptions.ConnectionError,
    exceptions.InvalidResponse,
    exceptions.MasterDownError,
    exceptions.NoPermissionError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TimeoutError,
    exceptions.TryAgainError,
    OSError,
    TimeoutError,
)
_AWAY_WORDS = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "UNKILLABLE", "LOADING", "NOAUTH", "WRONGPASS"})


def translated(error: BaseException) -> SidecarError:
    """StorageAway when it may work later or on another server, else SidecarError (`STORAGE_REFUSED`)."""
    if isinstance(error, _AWAY_KINDS):
        return StorageAway(f"Redis does not serve ({type(error).__name__})")
    word = str(error).split(" ", 1)[0]
    if word in _AWAY_WORDS:
        return StorageAway(f"Redis does not serve ({word})")
    return SidecarError("Redis rejected a command", detail_code="STORAGE_REFUSED")
