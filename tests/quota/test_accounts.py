"""Accounts over real engines: what a user may start, what the ledger knows when Redis does not, and what happens without Redis."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from sidecar.domain.quota import Amount, Figures, Limits, QuotaType
from sidecar.domain.usage import ModelCall, Source, Tokens
from sidecar.errors import QuotaExceeded, StorageAway
from sidecar.quota.accounts import FRESH_SECONDS, LIMITS_SECONDS, Accounts
from sidecar.quota.options import OnFailure, Rule
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.quotas import QuotaBook
from sidecar.storage.redis import RedisOptions, RedisStore
from tests.quota.books import accounts_of
from tests.stack.proc import eventually
from tests.stack.process import free_port
from tests.storage.test_postgres import environment

ALICE = "u-alice"
TOKENS, COST, TURNS, RUNS = (
    QuotaType.DAILY_TOKENS,
    QuotaType.MONTHLY_COST,
    QuotaType.API_CALLS,
    QuotaType.CONCURRENT_RUNS,
)
LIVE_MS = 60_000


def call(call_id: str, tokens: int, *, at: float | None = None, cost: str = "0", slug: str = ALICE) -> ModelCall:
    return ModelCall(
        gateway_id="main",
        call_id=call_id,
        source=Source.MESSAGE,
        slug=slug,
        session_key="agent:u-alice:main",
        run_id=f"run-{call_id}",
        provider="echo",
        model="echo-1",
        tokens=Tokens(input=tokens),
        cost_usd=Decimal(cost),
        at=time.time() if at is None else at,
    )


async def start(accounts: Accounts, run: str, slug: str = ALICE) -> None:
    """Raises QuotaExceeded, TooManyRuns, StorageAway."""
    admission = await accounts.admit(slug, "main", run, "", LIVE_MS)
    if not admission.admitted:
        raise accounts.refusal(slug, admission)


@contextlib.asynccontextmanager
async def settling(accounts: Accounts) -> AsyncIterator[list[tuple[str, Figures, Limits]]]:
    """What was told of where users stand."""
    told: list[tuple[str, Figures, Limits]] = []
    accounts.on_standing.append(lambda *standing: told.append(standing))
    task = asyncio.create_task(accounts.run())
    try:
        yield told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def becomes(accounts: Accounts, tokens: int) -> None:
    async with asyncio.timeout(20):
        while (await accounts.figures(ALICE))[0].used.tokens != tokens:
            await asyncio.sleep(0.02)


@pytest.fixture
async def alices(database: Database) -> Database:
    await database.put_environment(environment("alice"))
    return database


# --- the ledger -----------------------------------------------------------------------------------------------------------


async def test_what_redis_does_not_know_the_ledger_does(
    store: RedisStore, alices: Database, redis_client: Redis
) -> None:
    accounts = accounts_of(store, {TOKENS: 100}, database=alices, estimate=Amount(Decimal(10)))
    await Ledger(alices).append([call("m1", 60), call("old", 500, at=time.time() - 40 * 86_400)])
    await start(accounts, "r1")
    assert (await accounts.figures(ALICE))[0].used.tokens == 60
    await redis_client.flushall()
    await asyncio.gather(*(start(accounts, f"r{number}") for number in range(2, 5)))
    figures, limits = await accounts.figures(ALICE)
    assert (figures.used, figures.reserved) == (Amount(Decimal(60)), Amount(Decimal(30)))
    assert limits.of(TOKENS) == 100
    await start(accounts, "r5")
    with pytest.raises(QuotaExceeded) as refused:
        await start(accounts, "r6")
    assert refused.value.detail_code == "DAILY_TOKENS_EXCEEDED"
    assert refused.value.details.items() >= {"used": 60, "reserved": 40, "needed": 10, "limit": 100}.items()


async def test_a_gateway_whose_clock_is_ahead_begins_no_day(store: RedisStore, alices: Database) -> None:
    now = [1_795_000_000.0]
    accounts = accounts_of(store, {TOKENS: 100}, database=alices, clock=lambda: now[0])
    await start(accounts, "r1")
    async with settling(accounts):
        accounts.settle(call("m1", 30, at=now[0]))
        accounts.settle(call("m2", 40, at=now[0] + 80_000))
        await becomes(accounts, 70)


async def test_a_call_counts_at_sight_and_never_twice(store: RedisStore, alices: Database, redis_client: Redis) -> None:
    accounts, ledger = accounts_of(store, {TOKENS: 100}, database=alices), Ledger(alices)
    await start(accounts, "r1")
    async with settling(accounts) as told:
        accounts.settle(call("m1", 60))
        await becomes(accounts, 60)
        for _ in range(2):
            accounts.settle(call("m1", 60))
        await ledger.append([call("m1", 60)])
        accounts.recorded([call("m1", 60)])
        accounts.settle(call("m2", 5))
        await becomes(accounts, 65)
        assert [figures.used.tokens for _, figures, _ in told] == [60, 65]
        await ledger.append([call("m2", 5)])
        await redis_client.flushall()
        accounts.recorded([call("m2", 5)])
        await becomes(accounts, 65)


async def test_what_is_found_late_is_read_from_the_ledger(store: RedisStore, alices: Database) -> None:
    """It cannot be told any more whether it was counted."""
    accounts = accounts_of(store, {}, database=alices)
    await start(accounts, "r1")
    late = call("m1", 60, at=max(time.time() - FRESH_SECONDS - 60, midnight()))
    async with settling(accounts):
        accounts.settle(late)
        await Ledger(alices).append([late])
        accounts.recorded([late])
        await becomes(accounts, 60)


def midnight() -> float:
    return time.time() // 86_400 * 86_400


async def test_own_limits_and_roles(store: RedisStore, alices: Database) -> None:
    now, book = [time.time()], QuotaBook(alices)
    accounts = accounts_of(store, {TOKENS: 100}, database=alices, clock=lambda: now[0])
    await book.set_limit("example|alice", TOKENS, Decimal(7))
    assert (await accounts.figures(ALICE))[1].of(TOKENS) == 7
    await book.set_limit("example|alice", TOKENS, None)
    now[0] += LIMITS_SECONDS
    assert (await accounts.figures(ALICE))[1].of(TOKENS) == 100


async def test_a_soft_limit_refuses_nobody_and_a_grace_a_little_later(store: RedisStore, alices: Database) -> None:
    await Ledger(alices).append([call("m1", 105)])
    ten = Amount(Decimal(1))
    soft = accounts_of(store, {TOKENS: 100}, database=alices, rules={TOKENS: Rule(hard=False)}, estimate=ten)
    await start(soft, "r1")
    grace = accounts_of(
        store, {TOKENS: 100}, database=alices, rules={TOKENS: Rule(grace_percent=Decimal(7))}, estimate=ten
    )
    await start(grace, "r2")
    with pytest.raises(QuotaExceeded) as refused:
        await start(grace, "r3")
    assert refused.value.details["limit"] == 100, "the limit is what it is, with a grace beside it"


# --- time -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "before", "after", "resets"),
    [
        ("UTC", "2026-11-27T23:59:59", "2026-11-28T00:00:00", "2026-11-28T00:00:00"),
        ("Europe/Berlin", "2026-10-25T23:59:59", "2026-10-26T00:00:00", "2026-10-26T00:00:00"),
        ("Europe/Berlin", "2027-03-28T23:59:59", "2027-03-29T00:00:00", "2027-03-29T00:00:00"),
        ("Asia/Kolkata", "2028-02-29T23:59:59", "2028-03-01T00:00:00", "2028-03-01T00:00:00"),
    ],
)
async def test_a_new_day_begins_in_the_operators_time_zone(
    store: RedisStore, alices: Database, zone: str, before: str, after: str, resets: str
) -> None:
    def at(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()

    now = [at(before)]
    accounts = accounts_of(store, {TURNS: 1}, database=alices, clock=lambda: now[0], zone=zone)
    await start(accounts, "r1")
    with pytest.raises(QuotaExceeded) as refused:
        await start(accounts, "r2")
    assert refused.value.details["resetsAt"] == at(resets) * 1000
    now[0] = at(after)
    await start(accounts, "r2")


async def test_a_call_that_straddles_midnight_counts_where_it_ended(store: RedisStore, alices: Database) -> None:
    now = [datetime.fromisoformat("2026-11-30T23:59:58+00:00").timestamp()]
    accounts = accounts_of(store, {TOKENS: 100, COST: 100}, database=alices, clock=lambda: now[0])
    await start(accounts, "r1")
    now[0] += 4
    async with settling(accounts) as told:
        accounts.settle(call("m1", 60, at=now[0] - 3, cost="1"))
        accounts.settle(call("m2", 7, at=now[0] - 1, cost="2"))
        async with asyncio.timeout(20):
            while len(told) < 2:
                await asyncio.sleep(0.02)
    figures = (await accounts.figures(ALICE))[0]
    assert (figures.day, figures.used) == ("2026-12-01", Amount(Decimal(7), Decimal(2)))


# --- without Redis --------------------------------------------------------------------------------------------------------


class Switched:
    """A Redis that can be taken away: the store behind it is another one then."""

    def __init__(self, accounts: Accounts, away: RedisStore) -> None:
        self.accounts = accounts
        self._store = accounts._store
        self._away = type(accounts._store)(away)  # type: ignore[call-arg]
        self._tries = away._pipeline

    def failed(self) -> bool:
        """It was asked while it was away."""
        return bool(self._tries._broken)

    def off(self) -> None:
        self.accounts._store = self._away

    def on(self) -> None:
        self.accounts._store = self._store


@pytest.fixture
async def switched(store: RedisStore, alices: Database) -> AsyncIterator[Callable[..., Switched]]:
    async with RedisStore(RedisOptions(f"redis://127.0.0.1:{free_port()}")) as away:

        def make(policy: OnFailure, replicas: int = 1, **limits: int) -> Switched:
            accounts = accounts_of(
                store,
                {QuotaType(name): value for name, value in limits.items()},
                database=alices,
                rules={kind: Rule(on_redis_failure=policy) for kind in QuotaType},
                estimate=Amount(Decimal(10)),
                replicas=replicas,
            )
            return Switched(accounts, away)

        yield make


async def test_why_nobody_can_tell_what_is_used(switched: Callable[..., Switched], store: RedisStore) -> None:
    accounts = switched("open", daily_tokens=100).accounts
    assert await accounts.why_blind(store.ping) == ""
    async with RedisStore(RedisOptions(f"redis://127.0.0.1:{free_port()}")) as away:
        assert (await accounts.why_blind(away.ping)).endswith("quotas are decided by on_redis_failure (open)")


async def test_closed_nothing_starts(switched: Callable[..., Switched]) -> None:
    house = switched("closed", daily_tokens=100)
    await start(house.accounts, "r1")
    house.off()
    with pytest.raises(StorageAway):
        await start(house.accounts, "r2")


async def test_open_nobody_of_whom_nothing_is_known(switched: Callable[..., Switched]) -> None:
    house = switched("open", daily_tokens=20)
    house.off()
    house.accounts._ledger = house.accounts._terms = away_book()  # type: ignore[assignment]
    with pytest.raises(StorageAway):
        await start(house.accounts, "r0", "u-stranger")


def away_book() -> QuotaBook:
    return QuotaBook(Database(DatabaseOptions(f"postgresql://127.0.0.1:{free_port()}/none", connect_timeout=0.5)))


async def test_open_everybody_who_is_known(switched: Callable[..., Switched], alices: Database) -> None:
    house = switched("open", daily_tokens=20, concurrent_runs=1)
    await start(house.accounts, "r1")
    house.off()
    for number in range(5):
        await start(house.accounts, f"alone-{number}")
    async with settling(house.accounts):
        house.accounts.settle(call("m1", 7))
        await Ledger(alices).append([call("m1", 7)])
        await eventually(house.failed)
        house.on()
        await becomes(house.accounts, 7)


async def test_local_what_was_left_at_last_sight_divided_by_the_replicas(switched: Callable[..., Switched]) -> None:
    house = switched("local", replicas=2, daily_tokens=70)
    await start(house.accounts, "r1")  # reserves 10 of 70: 60 are left, 30 for us
    house.off()
    for number in range(3):
        await start(house.accounts, f"alone-{number}")
    with pytest.raises(QuotaExceeded):
        await start(house.accounts, "alone-3")
    await start(house.accounts, "alone-2")  # it runs already


async def test_a_call_that_redis_missed_is_not_lost(switched: Callable[..., Switched], alices: Database) -> None:
    house = switched("closed", daily_tokens=100)
    await start(house.accounts, "r1")
    house.off()
    async with settling(house.accounts):
        house.accounts.settle(call("m1", 60))
        await Ledger(alices).append([call("m1", 60)])
        await eventually(house.failed)
        house.on()
        await becomes(house.accounts, 60)


async def test_where_nobody_meters_it_is_as_if_redis_were_away(switched: Callable[..., Switched]) -> None:
    """What runs would be settled too late for any limit."""

    async def nobody() -> bool:
        return False

    for policy, starts in (("closed", False), ("open", True)):
        accounts = switched(policy, daily_tokens=100).accounts
        await start(accounts, f"r-{policy}")
        accounts.metered, accounts.patience = nobody, 0.0
        with contextlib.nullcontext() if starts else pytest.raises(StorageAway):
            await start(accounts, f"s-{policy}")


async def test_who_is_about_to_meter_is_waited_for(switched: Callable[..., Switched]) -> None:
    """As after a restart: the first one waits, and is served."""
    accounts = switched("closed", daily_tokens=100).accounts
    answers = iter([False, False, True])

    async def soon() -> bool:
        return next(answers)

    accounts.metered = soon
    await start(accounts, "r1")
    assert next(answers, None) is None
