"""A program for tests that kill it: starts engines on a folder, writes a row and a key, prints the pids, and waits."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from sidecar.storage.embedded import EmbeddedEngines


def tell(engine: str, state: str, why: str) -> None:
    print(json.dumps([engine, state, why]), flush=True)


async def main(folder: str) -> None:
    async with EmbeddedEngines(Path(folder), tell) as engines:
        connection = await asyncpg.connect(engines.database_url)
        await connection.execute("create table if not exists kept (value text)")
        await connection.execute("insert into kept values ('row')")
        await connection.close()
        async with Redis.from_url(engines.redis_url) as client:
            await client.set("kept", "key")
        print(json.dumps(engines.pids), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
