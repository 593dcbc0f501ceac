"""A look at PostgreSQL and Redis that changes nothing, and who holds a data folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from sidecar.errors import ConfigurationError, StorageAway
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.engines.look import holder
from sidecar.storage.probe import look_at_postgres, look_at_redis, newest_revision
from sidecar.storage.schema import migrate


async def test_an_empty_database_and_one_that_is_migrated(database_url: str) -> None:
    empty = await look_at_postgres(database_url)
    assert empty.revision == "none"
    assert empty.version.startswith("18.")
    assert abs(empty.skew) < 5
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 0, (
        "nothing is made"
    )
    await connection.close()
    await migrate(database_url)
    assert (await look_at_postgres(database_url)).revision == newest_revision()


async def test_redis_and_what_it_does_when_it_is_full(engines: EmbeddedEngines, redis_client: Redis) -> None:
    look = await look_at_redis(engines.redis_url)
    assert look.version.startswith("9.")
    assert look.eviction == "", "without a limit it is never full"
    await redis_client.config_set("maxmemory", "100mb")
    await redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert (await look_at_redis(engines.redis_url)).eviction == "allkeys-lru"
    finally:
        await redis_client.config_set("maxmemory", "0")
        await redis_client.config_set("maxmemory-policy", "noeviction")


async def test_clocks_are_compared_with_ours(engines: EmbeddedEngines, database_url: str) -> None:
    late = time.time() - 3600
    for look in (
        await look_at_postgres(database_url, lambda: late),
        await look_at_redis(engines.redis_url, lambda: late),
    ):
        assert 3590 < look.skew < 3620


async def test_what_does_not_answer_is_away_and_what_is_no_url_is_wrong() -> None:
    with pytest.raises(StorageAway):
        await look_at_postgres("postgresql://u:secret@127.0.0.1:1/x")
    with pytest.raises(StorageAway) as away:
        await look_at_redis("redis://:secret@127.0.0.1:1/0")
    assert "secret" not in away.value.message
    for look in (look_at_postgres, look_at_redis):
        with pytest.raises(ConfigurationError):
            await look("http://127.0.0.1:1")


HOLD = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_the_holder_of_a_folder_is_seen_and_leaves_no_trace(tmp_path: Path) -> None:
    assert holder(tmp_path) == 0
    lock = tmp_path / "sidecar.lock"
    lock.touch()
    assert holder(tmp_path) == 0
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert holder(tmp_path) == process.pid
        other = tmp_path / "other"
        other.mkdir()
        (other / "sidecar.lock").touch()
        assert holder(other) == 0
        process.kill()
    assert holder(tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "sidecar.lock"]


async def test_a_running_sidecars_engines_hold_it(tmp_path: Path) -> None:
    async with EmbeddedEngines(tmp_path / "data", lambda *_: None, postgres=False):
        assert holder(tmp_path / "data") == os.getpid()
    assert holder(tmp_path / "data") == 0
