"""Real engines for tests: one pair per session, an empty database or an empty Redis per test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.redis import RedisOptions, RedisStore
from sidecar.storage.schema import migrate

_numbers = count(1)


class Reports(list[tuple[str, str, str]]):
    """Collects what a `ReportState` is told; the list of (engine, state, why)."""

    def __call__(self, engine: str, state: str, why: str) -> None:
        self.append((engine, state, why))

    def states(self, engine: str) -> list[str]:
        return [state for name, state, _ in self if name == engine]


async def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until it holds, or fail with TimeoutError."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture(scope="session")
async def engines(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedEngines]:
    """A PostgreSQL and a Valkey; do not kill these."""
    async with EmbeddedEngines(tmp_path_factory.mktemp("engines"), Reports()) as running:
        yield running


@pytest_asyncio.fixture
async def database_url(engines: EmbeddedEngines) -> AsyncIterator[str]:
    """An empty database that nobody else uses, dropped afterwards."""
    name = f"test_{next(_numbers)}"
    server = await asyncpg.connect(engines.database_url)
    try:
        await server.execute(f"create database {name}")
        yield engines.database_url.replace("/postgres?", f"/{name}?")
        await server.execute(f"drop database {name} with (force)")
    finally:
        await server.close()


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Over an empty migrated database."""
    await migrate(database_url)
    async with Database(DatabaseOptions(database_url)) as opened:
        yield opened


@pytest_asyncio.fixture
async def redis_client(engines: EmbeddedEngines) -> AsyncIterator[Redis]:
    """A plain client of the emptied server, to look behind the store."""
    client = Redis.from_url(engines.redis_url, decode_responses=True)
    async with client:
        await client.flushall()
        yield client


@pytest_asyncio.fixture
async def store(engines: EmbeddedEngines, redis_client: Redis) -> AsyncIterator[RedisStore]:
    """Over the emptied server."""
    async with RedisStore(RedisOptions(engines.redis_url)) as opened:
        yield opened
