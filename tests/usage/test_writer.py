"""Calls on their way into the ledger: a real PostgreSQL that comes and goes, a real disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from sidecar.domain.usage import ModelCall, Source, Tokens
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.schema import migrate
from sidecar.storage.spool import Spool
from sidecar.telemetry.facts import Fact, UsageLost, UsageSpooled, UsageWritten
from sidecar.usage import writer as module
from sidecar.usage.writer import Writer
from tests.storage.engines import Reports
from tests.storage.test_postgres import environment, rows

MEGABYTE = 1_000_000
NOON = 1_795_780_800.0


def calls(*numbers: int, model: str = "echo-1") -> list[ModelCall]:
    return [
        ModelCall(
            gateway_id="main",
            call_id=f"m{number}",
            source=Source.MESSAGE,
            slug="u-alice",
            session_key="agent:u-alice:main",
            run_id="",
            provider="echo",
            model=model,
            tokens=Tokens(number),
            cost_usd=Decimal(number),
            at=NOON + number,
        )
        for number in numbers
    ]


class Scene:
    """A writer, before a database that may be away."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.url = database_url
        self.database = Database(DatabaseOptions(database_url, connect_timeout=1.0))
        self.spool = Spool(folder / "spool", MEGABYTE)
        self.facts: list[Fact] = []
        self.writer = Writer(Ledger(self.database), self.spool, self.facts.append)

    async def written(self) -> list[str]:
        return [
            row["call_id"] for row in await rows(self.url, "select call_id from token_usage_logs order by timestamp")
        ]

    async def close(self) -> None:
        self.spool.close()
        await self.database.close()


@contextlib.asynccontextmanager
async def running(writer: Writer) -> AsyncIterator[None]:
    task = asyncio.create_task(writer.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedEngines]:
    """A PostgreSQL to be stopped and started."""
    engines = EmbeddedEngines(tmp_path / "data", Reports(), redis=False)
    await engines.start()
    await migrate(engines.database_url)
    async with Database(DatabaseOptions(engines.database_url)) as database:
        await database.put_environment(environment("alice"))
    yield engines
    await engines.stop()


@pytest.fixture
async def scene(tmp_path: Path, database: Database, database_url: str) -> AsyncIterator[Scene]:
    await database.put_environment(environment("alice"))
    made = Scene(tmp_path, database_url)
    yield made
    await made.close()


async def test_calls_are_written_in_batches_and_told_once(scene: Scene) -> None:
    async with running(scene.writer):
        scene.writer.add(calls(1, 2, 3))
        scene.writer.add(calls(3, 4))
        assert await scene.writer.flushed()
    assert await scene.written() == ["m1", "m2", "m3", "m4"]
    assert [fact for fact in scene.facts if isinstance(fact, UsageWritten)] == [
        UsageWritten("main", "message", tokens) for tokens in (1, 2, 3, 4)
    ]


async def test_more_than_a_batch(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 7)
    async with running(scene.writer):
        scene.writer.add(calls(*range(1, 51)))
        assert await scene.writer.flushed()
    assert await scene.written() == [f"m{number}" for number in range(1, 51)]


async def test_what_is_left_at_the_end_is_written(scene: Scene) -> None:
    async with running(scene.writer):
        scene.writer.add(calls(1, 2))
    assert await scene.written() == ["m1", "m2"]


async def test_one_that_postgresql_refuses_keeps_nobody_out(scene: Scene) -> None:
    bad = calls(2)[0]
    bad = ModelCall(**{**{name: getattr(bad, name) for name in bad.__slots__}, "cost_usd": Decimal(10) ** 12})
    async with running(scene.writer):
        scene.writer.add([*calls(1), bad, *calls(3, 4)])
        assert await scene.writer.flushed()
    assert await scene.written() == ["m1", "m3", "m4"]
    assert [fact for fact in scene.facts if isinstance(fact, UsageLost)] == [UsageLost(1, "refused")]


async def test_postgresql_away_and_back(tmp_path: Path, server: EmbeddedEngines) -> None:
    """What is said meanwhile waits on the disk, and goes first."""
    scene = Scene(tmp_path, server.database_url)
    async with running(scene.writer):
        scene.writer.add(calls(1))
        assert await scene.writer.flushed()
        await server.stop()
        for number in (2, 3):
            scene.writer.add(calls(number))
            assert not await scene.writer.flushed()
        assert scene.spool.size > 0
        await server.start()
        scene.writer.add(calls(4))
        async with asyncio.timeout(20):
            while not await scene.writer.flushed():
                await asyncio.sleep(0.1)
        assert scene.spool.size == 0
    assert await scene.written() == ["m1", "m2", "m3", "m4"]
    spooled = [fact for fact in scene.facts if isinstance(fact, UsageSpooled)]
    assert [fact.rows for fact in spooled] == [1, 1, 0]
    assert spooled[-1].bytes == 0
    assert not [fact for fact in scene.facts if isinstance(fact, UsageLost)]
    await scene.close()


async def test_a_process_that_died_left_its_spool_to_the_next(tmp_path: Path, server: EmbeddedEngines) -> None:
    """Ended while PostgreSQL was away: the queue is in the spool, and in the ledger once both are back."""
    await server.stop()
    scene = Scene(tmp_path, "postgresql://localhost:1/none")
    async with running(scene.writer):
        scene.writer.add(calls(1, 2))
    await scene.close()
    await server.start()
    after = Scene(tmp_path, server.database_url)
    async with running(after.writer):
        async with asyncio.timeout(20):
            while not await after.writer.flushed():
                await asyncio.sleep(0.1)
    assert await after.written() == ["m1", "m2"]
    await after.close()


async def test_a_spool_that_is_full_is_told(tmp_path: Path) -> None:
    database = Database(DatabaseOptions("postgresql://localhost:1/none"))
    facts: list[Fact] = []
    with Spool(tmp_path, 300) as spool:
        writer = Writer(Ledger(database), spool, facts.append)
        async with running(writer):
            for number in (1, 2):
                writer.add(calls(number))
                assert not await writer.flushed()
    assert [fact for fact in facts if isinstance(fact, UsageLost)] == [UsageLost(1, "full")]
    await database.close()


async def test_what_was_lost_is_not_said_to_be_written(tmp_path: Path) -> None:
    """Whoever read it from a transcript reads it again."""
    database = Database(DatabaseOptions("postgresql://localhost:1/none"))
    with Spool(tmp_path, 10) as spool:
        writer = Writer(Ledger(database), spool, lambda _: None)
        async with running(writer):
            writer.add(calls(1))
            assert not await writer.flushed()
            assert spool.size == 0
    await database.close()


async def test_a_line_that_nobody_can_read_is_told_and_left_out(tmp_path: Path, scene: Scene) -> None:
    scene.spool.append([b"what is this"])
    writer = Writer(Ledger(scene.database), scene.spool, scene.facts.append)
    async with running(writer):
        writer.add(calls(1))
        async with asyncio.timeout(20):
            while not await writer.flushed():
                await asyncio.sleep(0.05)
    assert await scene.written() == ["m1"]
    assert [fact for fact in scene.facts if isinstance(fact, UsageLost)] == [UsageLost(1, "unreadable")]
