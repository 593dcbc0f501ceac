"""From what PostgreSQL and its drivers raise to our own tree; texts of the server never pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import sqlalchemy.exc

from sidecar.errors import ConfigurationError, Problem, SidecarError, StorageAway

_AWAY_STATES = {
    "08": "the connection was lost",
    "25006": "the server is read-only",
    "28": "the server refuses the login of storage.database_url",
    "3D": "the database of storage.database_url does not exist",
    "40": "the transaction has to be repeated",
    "42P01": "the database is not migrated",
    "53": "the server is out of resources",
    "55P03": "a lock was not free in time",
    "57": "the server ended the query or is starting or stopping",
    "58": "the server has trouble with its disk",
    "XX": "the server has an internal error",
}
"""SQLSTATE, or its class, → what it means here (PostgreSQL's appendix A)."""


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Let no foreign exception out.

    Raises:
        ConfigurationError: the URL cannot be used.
        StorageAway: no connection, no answer in time, or an answer that asks to come again later.
        SidecarError: `STORAGE_REFUSED`, the server rejects the statement or a value; `details.sqlstate` says why.
    """
    try:
        yield
    except asyncpg.ClientConfigurationError:
        raise ConfigurationError([Problem("storage.database_url", "cannot be used", "see its options")]) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise translated(error) from None
    except (OSError, TimeoutError, asyncpg.InternalClientError) as error:
        # asyncpg raises the last where a connection that is just breaking is used once more
        raise StorageAway(f"PostgreSQL does not answer ({type(error).__name__})") from None


def translated(error: Exception) -> SidecarError:
    """One exception of asyncpg or SQLAlchemy."""
    state = sqlstate(error)
    for known in (state, state[:2]):
        if known and known in _AWAY_STATES:
            return StorageAway(f"PostgreSQL does not serve: {_AWAY_STATES[known]}", details={"sqlstate": state})
    if not state and not _is_value_error(error):
        return StorageAway(f"PostgreSQL does not answer ({type(error).__name__})")
    return SidecarError(
        "PostgreSQL rejected a statement or a value",
        detail_code="STORAGE_REFUSED",
        details={"sqlstate": state or "22000"},
    )


def sqlstate(error: BaseException) -> str:
    """The five characters, looked for down the chain of wrappers; empty where there are none."""
    seen: BaseException | None = error
    while seen is not None:
        state = getattr(seen, "sqlstate", None)
        if isinstance(state, str):
            return state
        seen = getattr(seen, "orig", None) or seen.__cause__
    return ""


def _is_value_error(error: Exception) -> bool:
    """asyncpg refuses a value that it cannot encode before the server sees it."""
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)
