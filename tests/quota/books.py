"""Accounts over real engines, for tests of what counts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from decimal import Decimal
from zoneinfo import ZoneInfo

import asyncpg
import pytest_asyncio

from sidecar.domain.quota import NOTHING, Amount, Limits, QuotaType
from sidecar.quota.accounts import Accounts
from sidecar.quota.options import ROLES, QuotaOptions, Rule
from sidecar.storage.accounts import AccountStore
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.quotas import QuotaBook
from sidecar.storage.redis import RedisStore
from sidecar.storage.schema import migrate

_opened: list[Database] = []


@pytest_asyncio.fixture(scope="session", autouse=True)
async def books(engines: EmbeddedEngines) -> AsyncIterator[Database]:
    """A database in which nobody has used anything; shared."""
    server = await asyncpg.connect(engines.database_url)
    await server.execute("create database books")
    await server.close()
    url = engines.database_url.replace("/postgres?", "/books?")
    await migrate(url)
    async with Database(DatabaseOptions(url)) as database:
        _opened.append(database)
        yield database
        _opened.clear()


def accounts_of(
    store: RedisStore,
    limits: Mapping[QuotaType, int | str] | None = None,
    *,
    database: Database | None = None,
    gateway: str = "main",
    clock: Callable[[], float] = time.time,
    rules: Mapping[QuotaType, Rule] | None = None,
    estimate: Amount = NOTHING,
    zone: str = "UTC",
    replicas: int = 1,
) -> Accounts:
    """One gateway's, with the same limits for everybody."""
    database = database or _opened[0]
    allowed = Limits({kind: Decimal(value) for kind, value in (limits or {}).items()})
    options = QuotaOptions(
        defaults=dict.fromkeys(ROLES, allowed),
        rules=rules or {},
        zone=ZoneInfo(zone),
        estimate=estimate,
        replicas=replicas,
    )
    return Accounts(gateway, AccountStore(store), Ledger(database), QuotaBook(database), options, lambda _: None, clock)


def runs_limit(limit: int) -> Mapping[QuotaType, int]:
    return {QuotaType.CONCURRENT_RUNS: limit}
