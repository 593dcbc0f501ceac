"""`Database`: everything that is kept for good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import asyncpg

from sidecar.domain.audit import AuditQuery, AuditRow, StoredAudit
from sidecar.domain.environment import Environment
from sidecar.domain.principal import Principal
from sidecar.errors import ConfigurationError, Problem, SidecarError, StorageAway
from sidecar.storage import queries
from sidecar.storage.availability import Availability, ReportState, silent
from sidecar.storage.postgres_errors import postgres_errors
from sidecar.storage.storable import storable

_USERS = queries.load("users")
_ENVIRONMENTS = queries.load("environments")
_AUDIT = queries.load("audit")


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    url: str
    """`postgresql://…` as asyncpg reads it; a Unix socket by `?host=/folder`."""

    pool_size: int = 10
    """Connections at most; made when needed."""

    connect_timeout: float = 3.0
    """Seconds for one new connection, and for the wait for a free one."""

    statement_timeout: float = 5.0
    """Seconds; the server gives up, and shortly after so do we."""


class Database:
    """A pool that connects when it is needed, so it can be made while the server is away and recovers by itself.

    Every method raises StorageAway while the server does not serve, and SidecarError (`STORAGE_REFUSED`) for a value
    that PostgreSQL cannot hold. Times are Unix seconds. `report` hears when the server goes away and comes back.
    """

    def __init__(self, options: DatabaseOptions, report: ReportState = silent) -> None:
        check_url(options.url)
        self._options = options
        self._availability = Availability("postgres", report)
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, by force where one is still in use after a second."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await close_pool(pool)

    @property
    def up(self) -> bool:
        """Whether the last call was answered."""
        return self._availability.up

    async def ping(self) -> None:
        async with self.connection() as connection:
            await connection.execute("select 1")

    async def record_login(self, principal: Principal, now: float) -> None:
        """Insert or refresh the person behind a verified token."""
        known = (principal.user_id, principal.email, principal.name, principal.issuer, principal.subject)
        order = (_USERS["record_login"], *known, principal.avatar_url, moment(now), sorted(principal.roles))
        async with self.connection() as connection:
            try:
                await connection.execute(*order)
            except asyncpg.UniqueViolationError:  # two first logins met at the other index: the row is there by now
                await connection.execute(*order)

    async def environment_of(self, user_id: str) -> Environment | None:
        async with self.connection() as connection:
            row = await connection.fetchrow(_ENVIRONMENTS["environment_of"], user_id)
        return None if row is None else Environment(**dict(row.items()))

    async def put_environment(self, environment: Environment) -> Environment:
        """Insert, and return what is stored: another one where the user had theirs already, which stays as it is.

        Raises:
            SidecarError: `ENVIRONMENT_CONFLICT`, another user has that agent on that gateway.
        """
        order = astuple(environment)
        async with self.connection() as connection:
            await connection.execute(_ENVIRONMENTS["put_environment"], *order)
            row = await connection.fetchrow(_ENVIRONMENTS["environment_of"], environment.user_id)
        if row is None:
            raise SidecarError("this agent of the gateway belongs to another user", detail_code="ENVIRONMENT_CONFLICT")
        return Environment(**dict(row.items()))

    async def touch_environment(self, user_id: str, now: float) -> None:
        """Note that the user was here; nothing happens where they have no environment."""
        await self._execute(_ENVIRONMENTS["touch_environment"], user_id, moment(now))

    async def mark_provisioned(self, user_ids: Iterable[str], now: float) -> None:
        """Note that these users' agents stand in their gateway's configuration."""
        await self._execute(_ENVIRONMENTS["mark_provisioned"], list(user_ids), moment(now))

    async def users_per_gateway(self) -> dict[str, int]:
        """Gateway id → users; gateways without users are missing."""
        async with self.connection() as connection:
            rows = await connection.fetch(_ENVIRONMENTS["users_per_gateway"])
        return {row["gateway_id"]: row["users"] for row in rows}

    async def agents_on(self, gateway_id: str) -> dict[str, str]:
        """Agent id → workspace, of all users whom a gateway has."""
        async with self.connection() as connection:
            rows = await connection.fetch(_ENVIRONMENTS["agents_on"], gateway_id)
        return {row["agent_id"]: row["workspace_dir"] for row in rows}

    async def append_audit(self, rows: Sequence[AuditRow]) -> None:
        """Write all of them or none. What PostgreSQL cannot hold (NUL, lone surrogates) is replaced, not refused: a
        client must not be able to keep a batch out of the log."""
        if not rows:
            return
        await self._execute(
            _AUDIT["append_audit"],
            [moment(row.at) for row in rows],
            *(
                [storable(getattr(row, name)) for row in rows]
                for name in ("connection_id", "user_id", "action", "method", "code", "request_id")
            ),
            [json.dumps(storable(row.details)) for row in rows],
        )

    async def last_audit(self, query: AuditQuery, count: int) -> list[StoredAudit]:
        """The last `count` rows that match, oldest first."""
        since = None if query.since is None else moment(query.since)
        return await self._audit(_AUDIT["last_audit"], query.user_id, query.action, since, count)

    async def audit_between(self, query: AuditQuery, after: int, until: int) -> list[StoredAudit]:
        """The rows of its user and action whose id is greater than `after` and at most `until`, oldest first."""
        return await self._audit(_AUDIT["audit_between"], query.user_id, query.action, after, until)

    async def newest_audit(self) -> int:
        """The highest id in the audit log, 0 where it is empty."""
        async with self.connection() as connection:
            return int(await connection.fetchval(_AUDIT["newest_audit"]))

    async def _audit(self, query: str, *arguments: object) -> list[StoredAudit]:
        async with self.connection() as connection:
            rows = await connection.fetch(query, *arguments)
        return [_stored_audit(row) for row in rows]

    async def _execute(self, query: str, *arguments: object) -> None:
        async with self.connection() as connection:
            await connection.execute(query, *arguments)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
        """The one door to the server, where foreign exceptions end and outages are noticed; for this room alone."""
        try:
            with postgres_errors():
                pool = await self._open()
                async with pool.acquire(timeout=self._options.connect_timeout) as connection:
                    yield connection
        except StorageAway as error:
            self._availability.away(error.message)
            await asyncio.sleep(0)  # a closed socket refuses without waiting: who tries again must not starve others
            raise
        self._availability.answered()

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        """The pool, without connections at first: making it needs no server."""
        async with self._opening:
            if self._pool is None:
                timeout = self._options.statement_timeout
                self._pool = await asyncpg.create_pool(
                    self._options.url,
                    min_size=0,
                    max_size=self._options.pool_size,
                    timeout=self._options.connect_timeout,
                    command_timeout=timeout + 1.0,
                    server_settings={
                        "application_name": "openclaw-sidecar",
                        "statement_timeout": str(int(timeout * 1000)),
                    },
                )
            return self._pool


def check_url(url: str) -> None:
    """Raises ConfigurationError, which never repeats the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"postgresql", "postgres"} and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            [Problem("storage.database_url", "is no PostgreSQL URL", "write postgresql://user@host:5432/name")]
        )


async def close_pool(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """Gently for a second, then by force."""
    try:
        await asyncio.wait_for(pool.close(), 1.0)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()


def _stored_audit(row: asyncpg.Record) -> StoredAudit:
    columns = dict(row.items())
    at, details = columns.pop("at").timestamp(), json.loads(columns.pop("details"))
    return StoredAudit(columns.pop("id"), AuditRow(at=at, details=details, **columns))


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
