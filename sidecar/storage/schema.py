"""Brings a database to the schema that this version needs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sidecar.errors import EngineError
from sidecar.storage.postgres import check_url
from sidecar.storage.postgres_errors import postgres_errors

LOCK = 0x6F70656E636C6177
"""`openclaw` in ASCII: the number of the advisory lock under which a replica migrates."""

_MIGRATIONS = Path(__file__).with_name("migrations")
_one_at_a_time = asyncio.Lock()  # Alembic's `context` and `op` are global to the process


async def migrate(database_url: str, *, to: str = "head", connect_timeout: float = 5.0) -> None:
    """Run what is missing, all of it in one transaction; nothing happens where nothing is missing.

    Replicas may call this at once: an advisory lock lets one work and the others find it done. `to` names a revision,
    `base` takes everything away.

    Raises:
        ConfigurationError: the URL is none.
        EngineError: the database is newer than this version.
        StorageAway: the server does not answer.
    """
    check_url(database_url)

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(database_url, timeout=connect_timeout)

    with postgres_errors():
        engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
        try:
            async with _one_at_a_time, engine.begin() as connection:
                await connection.execute(text("set local lock_timeout = '60s'"))
                await connection.execute(text("set local statement_timeout = 0"))
                await connection.execute(text(f"select pg_advisory_xact_lock({LOCK})"))
                await connection.run_sync(_run, to)
        except CommandError:
            raise EngineError(
                "the database was migrated by a newer sidecar; run that version, or restore a backup of the database"
            ) from None
        finally:
            await engine.dispose()


def _run(connection: Connection, to: str) -> None:
    configuration = Config()
    configuration.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    configuration.attributes["connection"] = connection
    (command.downgrade if to == "base" else command.upgrade)(configuration, to)
