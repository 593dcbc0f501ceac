"""A collector over real stores, before a gateway that tells what it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.domain.namespace import Layout
from sidecar.domain.quota import NOTHING, Figures
from sidecar.quota.accounts import Accounts
from sidecar.quota.windows import day_at, month_at
from sidecar.storage.accounts import AccountStore
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database
from sidecar.storage.redis import RedisStore
from sidecar.storage.spool import Spool
from sidecar.usage.collector import Collector, Ports
from sidecar.usage.estimates import Estimates
from sidecar.usage.open_runs import OpenRuns
from sidecar.usage.prices import Prices
from sidecar.usage.transcripts import Transcripts
from sidecar.usage.writer import Writer
from tests.quota.books import accounts_of
from tests.storage.test_postgres import environment
from tests.usage.test_transcripts import KEY, Gateway, answer

ALICE = "u-alice"


class Whole(Gateway):
    """It lists its one session, too."""

    async def request(self, method: str, params: Mapping[str, Any], timeout: float = 30.0) -> Any:
        if method == "sessions.list":
            row = {"key": KEY, "updatedAt": time.time() * 1000, "hasActiveRun": False}
            return {"sessions": [row], "hasMore": False}
        return await super().request(method, params, timeout)


async def test_a_call_that_was_written_and_not_counted_before_a_crash_is_counted_by_the_next(
    database: Database, store: RedisStore, tmp_path: Path
) -> None:
    """Between the ledger and Redis there is no transaction; whoever leads next reads what is young again."""
    await database.put_environment(environment("alice"))
    gateway = Whole([answer(seq, at=time.time() - 60) for seq in (1, 2)])
    ledger, accounts = Ledger(database), accounts_of(store, database=database)
    transcripts = Transcripts(
        "main", Layout(), gateway, Estimates("main", ledger), Prices([]), lambda _: None, time.time
    )
    await nothing_counted(accounts, store)
    [calls] = [calls async for calls in transcripts.calls(KEY, 0)]
    await ledger.append(calls[:1])
    with Spool(tmp_path, 1_000_000) as spool:
        writer = Writer(ledger, spool, lambda _: None)
        writer.on_recorded.append(accounts.recorded)
        ports = Ports(store, ledger, writer, accounts, transcripts, OpenRuns("main", Layout(), ledger, time.time))
        collector = Collector("main", ports, lambda _: None, "me")
        collector.listens()
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            works = [tasks.create_task(work()) for work in (writer.run, accounts.run, collector.run)]
            while (await accounts.figures(ALICE))[0].used.tokens < 23:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            assert (await accounts.figures(ALICE))[0].used.tokens == 23, "10 + 1 and 10 + 2, each once"
            for work in works:
                work.cancel()


async def nothing_counted(accounts: Accounts, store: RedisStore) -> None:
    now, zone = time.time(), accounts.options.zone
    known, day, month = AccountStore(store), day_at(now, zone).name, month_at(now, zone).name
    assert await known.begin_building(ALICE)
    assert await known.built(ALICE, Figures(day, month, NOTHING, NOTHING, 0, 0), [], int(now * 1000))
