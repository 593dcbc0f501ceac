"""A look at the two stores that changes nothing: do they answer, which version, which schema, whose clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from alembic.config import Config
from alembic.script import ScriptDirectory
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sidecar.errors import ConfigurationError, Problem, StorageAway
from sidecar.storage.postgres import check_url
from sidecar.storage.postgres_errors import postgres_errors

SECONDS = 5.0
_MIGRATIONS = Path(__file__).with_name("migrations")


@dataclass(frozen=True, slots=True)
class StoreLook:
    """`skew`: seconds that the server's clock is ahead of ours, within half a round trip."""

    version: str
    skew: float
    revision: str = ""
    """Of the schema, PostgreSQL; `none` where there is none yet."""

    eviction: str = ""
    """Redis: `maxmemory-policy` where memory is limited."""


def newest_revision() -> str:
    """The schema that this version of the sidecar needs."""
    configuration = Config()
    configuration.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return ScriptDirectory.from_config(configuration).get_current_head() or ""


async def look_at_postgres(url: str, clock: Callable[[], float] = time.time) -> StoreLook:
    """Raises StorageAway, ConfigurationError."""
    check_url(url)
    with postgres_errors():
        connection = await asyncpg.connect(url, timeout=SECONDS, command_timeout=SECONDS)
        try:
            before = clock()
            theirs = await connection.fetchval("select extract(epoch from clock_timestamp())::float8")
            middle = (before + clock()) / 2
            version = await connection.fetchval("show server_version")
            table = await connection.fetchval("select to_regclass('alembic_version')")
            revision = await connection.fetchval("select max(version_num) from alembic_version") if table else None
        finally:
            await connection.close(timeout=SECONDS)
    return StoreLook(str(version).split(" ", maxsplit=1)[0], theirs - middle, revision or "none")


async def look_at_redis(url: str, clock: Callable[[], float] = time.time) -> StoreLook:
    """Raises StorageAway, ConfigurationError."""
    try:
        client = Redis.from_url(
            url,
            socket_timeout=SECONDS,
            socket_connect_timeout=SECONDS,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        raise ConfigurationError([Problem("storage.redis_url", "is no Redis URL")]) from None
    try:
        async with client:
            before = clock()
            seconds, micros = await client.time()
            middle = (before + clock()) / 2
            facts = await client.info("all")
    except (RedisError, OSError) as error:
        raise StorageAway(type(error).__name__) from None
    limited = int(facts.get("maxmemory", 0)) > 0
    eviction = str(facts.get("maxmemory_policy", "")) if limited else ""
    version = str(facts.get("valkey_version") or facts.get("redis_version", "?"))
    return StoreLook(version, seconds + micros / 1e6 - middle, eviction=eviction)
