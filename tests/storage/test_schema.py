"""Migrations end where `sql/schema.sql` says, once, whoever runs them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from sidecar.errors import ConfigurationError, EngineError, StorageAway
from sidecar.storage import queries, schema
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.engines import postgres
from sidecar.storage.postgres import Database
from sidecar.storage.schema import migrate

SQL = Path(schema.__file__).with_name("sql")
TABLES = re.findall(r"^create table (\w+)", (SQL / "schema.sql").read_text(), re.MULTILINE)
SUBJECTS = sorted(file.stem for file in SQL.glob("*.sql") if file.stem != "schema")


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def dump(url: str) -> str:
    """The schema as pg_dump writes it, without Alembic's own table."""
    tool = [str(postgres.find_binaries() / "pg_dump"), "--schema-only", "--no-owner", "--exclude-table=alembic_version"]
    ended = await asyncio.to_thread(subprocess.run, [*tool, url], capture_output=True, text=True, check=True)
    lines = ended.stdout.splitlines()
    return "\n".join(line for line in lines if line and not line.startswith(("--", "\\restrict", "\\unrestrict")))


async def test_migrations_end_at_the_schema(database_url: str) -> None:
    await execute(database_url, (SQL / "schema.sql").read_text())
    meant = await dump(database_url)
    await execute(database_url, f"drop table {', '.join(TABLES)}")
    await migrate(database_url)
    migrated = await dump(database_url)
    assert "CREATE TABLE public.audit_log" in migrated
    assert migrated == meant


async def test_down_to_nothing_and_up_again(database_url: str) -> None:
    empty = await dump(database_url)
    await migrate(database_url)
    full = await dump(database_url)
    await migrate(database_url, to="base")
    assert await dump(database_url) == empty
    await migrate(database_url)
    assert await dump(database_url) == full


async def test_a_second_time_changes_nothing_and_keeps_rows(database_url: str) -> None:
    await migrate(database_url)
    await execute(database_url, "insert into audit_log (at, action) values (now(), 'kept')")
    before = await dump(database_url)
    await migrate(database_url)
    assert await dump(database_url) == before
    await execute(database_url, "do $$ begin assert (select count(*) from audit_log) = 1; end $$")


async def test_replicas_at_once(database_url: str) -> None:
    """Tasks of one process, and processes beside it."""
    program = "import asyncio, sys; from sidecar.storage.schema import migrate; asyncio.run(migrate(sys.argv[1]))"
    replicas = [
        await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", program, database_url)
        for _ in range(3)
    ]
    await asyncio.gather(*(migrate(database_url) for _ in range(3)))
    assert [await replica.wait() for replica in replicas] == [0, 0, 0]
    await execute(database_url, "do $$ begin assert (select count(*) from alembic_version) = 1; end $$")


async def test_two_databases_at_once(engines: EmbeddedEngines, database_url: str) -> None:
    """Alembic's `context` is global to the process; no lock of a server keeps these two apart."""
    await execute(engines.database_url, "create database beside")
    beside = engines.database_url.replace("/postgres?", "/beside?")
    try:
        await asyncio.gather(*(migrate(url) for url in (database_url, beside) for _ in range(2)))
        assert await dump(beside) == await dump(database_url)
    finally:
        await execute(engines.database_url, "drop database beside with (force)")


async def test_a_failure_leaves_nothing_behind(database_url: str) -> None:
    await execute(database_url, "create table audit_log ()")
    before = await dump(database_url)
    with pytest.raises(Exception, match="PostgreSQL rejected"):
        await migrate(database_url)
    assert await dump(database_url) == before


async def test_a_newer_database_is_refused(database_url: str) -> None:
    await migrate(database_url)
    await execute(database_url, "update alembic_version set version_num = '9999'")
    with pytest.raises(EngineError, match="newer sidecar"):
        await migrate(database_url)


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(StorageAway):
        await migrate(f"postgresql://postgres@/postgres?host={tmp_path}")


async def test_no_url() -> None:
    with pytest.raises(ConfigurationError):
        await migrate("sqlite:///x")


async def test_login_refused(engines: EmbeddedEngines) -> None:
    with pytest.raises(StorageAway, match="refuses the login"):
        await migrate(engines.database_url.replace("postgres@", "stranger@"))


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_every_query_is_known_to_the_server(database: Database, database_url: str, subject: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        for text in queries.load(subject).values():
            await connection.prepare(text)
    finally:
        await connection.close()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_query_has_a_sentence_and_a_user(subject: str) -> None:
    text = (SQL / f"{subject}.sql").read_text()
    named = queries.load(subject)
    assert len(named) == text.count("-- name:") > 0
    code = "".join(
        Path(schema.__file__).with_name(f"{name}.py").read_text() for name in ("postgres", "ledger", "quotas")
    )
    assert all(f'["{name}"]' in code for name in named)


def test_a_query_that_stands_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twice.sql").write_text("-- name: a\n-- Says one.\nselect 1\n-- name: a\n-- Says two.\nselect 2\n")
    monkeypatch.setattr(queries, "_FOLDER", tmp_path)
    with pytest.raises(ValueError, match="twice"):
        queries.load("twice")
