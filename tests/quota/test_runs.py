"""Runs over a real Redis: whose they are, how many may live, and that the count comes back to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from sidecar.errors import ForeignKey, GatewayAway, StorageAway, TooManyRuns
from sidecar.quota.runs import (
    ASK_SECONDS,
    LONGEST_SECONDS,
    MOST_ASKED,
    MOST_OVER,
    SETTLE_MS,
    RunOptions,
    Runs,
    new_run_id,
)
from sidecar.storage.availability import silent
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.redis import RedisOptions, RedisStore
from tests.stack.process import free_port

ALICE, BOB = "u-alice", "u-bob"
SECRET = b"0123456789abcdef0123456789abcdef"


def runs_of(store: RedisStore, limit: int = 2, live_ms: int = 180_000, gateway: str = "main") -> Runs:
    return Runs(gateway, store, RunOptions(limit, live_ms), SECRET, time.time)


@contextlib.asynccontextmanager
async def telling(runs: Runs) -> AsyncIterator[Runs]:
    task = asyncio.create_task(runs.run())
    try:
        yield runs
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def start(runs: Runs, slug: str, run_id: str) -> bool:
    return (await runs.begin(slug, run_id))[1]


async def free_again(runs: Runs, slug: str) -> None:
    """Wait until one more may start, and start it. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(TooManyRuns):
                await runs.admit(slug, f"probe-of-{slug}")
                return
            await asyncio.sleep(0.01)


async def counts(runs: Runs, slug: str) -> None:
    """Wait until no other may start. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while True:
            try:
                await runs.admit(slug, "probe")
            except TooManyRuns:
                return
            runs.silent(slug, "probe")
            await asyncio.sleep(0.01)


async def test_the_limit_is_per_user_and_says_how_many(store: RedisStore) -> None:
    runs = runs_of(store)
    assert [await start(runs, ALICE, f"a{number}") for number in range(2)] == [True, True]
    with pytest.raises(TooManyRuns) as refused:
        await start(runs, ALICE, "a2")
    assert refused.value.details == {"limit": 2}
    assert not refused.value.retryable
    assert await start(runs, BOB, "b0")


async def test_a_run_that_is_asked_for_twice_counts_once(store: RedisStore) -> None:
    runs = runs_of(store)
    assert [await start(runs, ALICE, "same") for _ in range(5)] == [True, False, False, False, False]
    assert await start(runs, ALICE, "another")


async def test_no_limit(store: RedisStore) -> None:
    runs = runs_of(store, limit=0)
    assert all([await start(runs, ALICE, f"a{number}") for number in range(50)])


async def test_replicas_and_gateways_count_together(store: RedisStore) -> None:
    first, second, elsewhere = runs_of(store), runs_of(store), runs_of(store, gateway="other")
    await start(first, ALICE, "a0")
    await start(elsewhere, ALICE, "a0")
    with pytest.raises(TooManyRuns):
        await start(second, ALICE, "a1")


async def test_what_ended_does_not_count(store: RedisStore) -> None:
    async with telling(runs_of(store)) as runs:
        for number in range(20):
            await free_again(runs, ALICE)
            await start(runs, ALICE, f"a{number}")
            runs.started(ALICE, f"a{number}")
            runs.ended(ALICE, f"a{number}")
            runs.ended(ALICE, f"probe-of-{ALICE}")


async def test_an_id_is_the_first_ones_and_another_gets_one_of_its_own(store: RedisStore) -> None:
    runs = runs_of(store)
    assert await runs.claim(ALICE, "shared") == "shared"
    mapped = await runs.claim(BOB, "shared")
    assert mapped != "shared"
    assert await runs.claim(BOB, "shared") == mapped, "the same each time, on every replica"
    assert await runs_of(store).claim(BOB, "shared") == mapped
    assert await runs.claim(ALICE, "shared") == "shared"
    assert await runs.claim("u-carol", "shared") not in {"shared", mapped}


async def test_a_run_of_ones_own_word_is_found_again_on_every_replica(store: RedisStore) -> None:
    runs = runs_of(store)
    assert await runs.begin(ALICE, "shared") == ("shared", True)
    mapped, counted = await runs.begin(BOB, "shared")
    assert (mapped != "shared", counted) == (True, True)
    assert await runs.require_own(ALICE, "shared") == "shared"
    assert await runs_of(store).require_own(BOB, "shared") == mapped
    assert await runs.require_own(BOB, mapped) == mapped


async def test_a_refused_turn_leaves_nothing_behind(store: RedisStore, redis_client: Redis) -> None:
    runs = runs_of(store, limit=1)
    await runs.begin(ALICE, "first")
    before = set(await redis_client.keys())
    for number in range(20):
        with pytest.raises(TooManyRuns):
            await runs.begin(ALICE, f"refused-{number}")
    assert set(await redis_client.keys()) == before


async def test_another_word_for_a_run_takes_one_place_not_two(store: RedisStore) -> None:
    runs = runs_of(store, limit=1)
    await runs.begin(ALICE, "shared")
    assert (await runs.begin(BOB, "shared"))[1] is True
    with pytest.raises(TooManyRuns):
        await runs.begin(BOB, "one more")


async def test_a_run_that_the_gateway_began_by_itself_counts(store: RedisStore) -> None:
    """Queued and steered messages go on under ids that no client named."""
    async with telling(runs_of(store, limit=1)) as runs:
        runs.started(ALICE, "queued-work")
        async with asyncio.timeout(20):
            while True:
                try:
                    await runs.admit(ALICE, "probe")
                except TooManyRuns:
                    break
                await store.release_run(ALICE, "main", "probe")
        runs.ended(ALICE, "queued-work")
        await free_again(runs, ALICE)


async def test_what_began_and_ended_in_one_breath_does_not_count(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        for number in range(50):
            runs.started(ALICE, f"quick-{number}")
            runs.ended(ALICE, f"quick-{number}")
        await free_again(runs, ALICE)


async def test_nobody_is_made_owner_by_asking(store: RedisStore) -> None:
    runs = runs_of(store)
    await runs.claim(ALICE, "hers")
    for run_id in ("hers", "nobody's"):
        with pytest.raises(ForeignKey) as refused:
            await runs.require_own(BOB, run_id)
        assert refused.value.message == "that run is not yours"
    assert await runs.claim(ALICE, "nobody's") == "nobody's"
    await runs.require_own(ALICE, "hers")


async def test_a_run_that_the_gateway_started_is_its_agents(store: RedisStore) -> None:
    async with telling(runs_of(store)) as runs:
        runs.started(ALICE, "cron-run")
        await runs.require_own(ALICE, "cron-run")
        with pytest.raises(ForeignKey):
            await runs.require_own(BOB, "cron-run")
        assert await runs.claim(BOB, "cron-run") != "cron-run", "at once, before Redis was told"
        elsewhere = runs_of(store)
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(ForeignKey):
                    await elsewhere.require_own(ALICE, "cron-run")
                    break


async def test_living_runs_stay_on_the_count_while_much_is_heard(store: RedisStore, redis_client: Redis) -> None:
    async with telling(runs_of(store, limit=1, live_ms=600)) as runs:
        await start(runs, ALICE, "long")
        runs.started(ALICE, "long")
        for number in range(150):
            runs.started(BOB, f"b{number}")
            runs.ended(BOB, f"b{number}")
            await asyncio.sleep(0.01)
        with pytest.raises(TooManyRuns):
            await start(runs, ALICE, "one more")
        runs.ended(ALICE, "long")
        await free_again(runs, ALICE)


async def test_a_run_that_nobody_hears_of_ends_by_itself(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1, live_ms=300)) as runs:
        await start(runs, ALICE, "lost")
        await free_again(runs, ALICE)


async def test_a_begin_that_is_told_after_the_end_begins_nothing(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        await start(runs, ALICE, "short")
        runs.ended(ALICE, "short")
        runs.started(ALICE, "short")
        await free_again(runs, ALICE)
        runs.ended(ALICE, f"probe-of-{ALICE}")
        await free_again(runs, ALICE)


async def test_what_only_seemed_over_counts_again_once_it_is_heard_of(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        await start(runs, ALICE, "quiet")
        runs.silent(ALICE, "quiet")
        runs.started(ALICE, "quiet")
        await counts(runs, ALICE)
        runs.ended(ALICE, "quiet")
        await free_again(runs, ALICE)


async def test_an_id_that_is_used_again_counts_again(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        for _ in range(2):
            assert await start(runs, ALICE, "again")
            runs.started(ALICE, "again")
            await counts(runs, ALICE)
            runs.ended(ALICE, "again")
            await free_again(runs, ALICE)
            runs.ended(ALICE, f"probe-of-{ALICE}")
            await free_again(runs, ALICE)
            runs.ended(ALICE, f"probe-of-{ALICE}")
            await asyncio.sleep(0.1)


async def test_of_ends_only_the_latest_are_remembered(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        runs.ended(ALICE, "long ago")
        for number in range(MOST_OVER):
            runs.ended(BOB, f"b{number}")
        runs.started(ALICE, "long ago")
        await counts(runs, ALICE)


async def test_no_run_is_kept_on_the_count_for_ever(store: RedisStore) -> None:
    now = [1_000_000.0]
    runs = Runs("main", store, RunOptions(1, 300), SECRET, lambda: now[0])
    async with telling(runs):
        runs.started(ALICE, "its end was lost")
        await asyncio.sleep(0.5)
        now[0] += LONGEST_SECONDS + 1
        await free_again(runs, ALICE)


async def test_after_a_lost_gateway_its_runs_are_forgotten(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1, live_ms=300)) as runs:
        await start(runs, ALICE, "lost")
        runs.started(ALICE, "lost")
        runs.forget_live()
        await free_again(runs, ALICE)


async def test_without_redis_nothing_starts_and_nothing_breaks() -> None:
    async with (
        RedisStore(RedisOptions(f"redis://127.0.0.1:{free_port()}")) as away,
        telling(runs_of(away, live_ms=100)) as runs,
    ):
        for asked in (runs.claim(ALICE, "a"), runs.require_own(ALICE, "a"), runs.admit(ALICE, "a")):
            with pytest.raises(StorageAway):
                await asked
        runs.started(ALICE, "told")
        await runs.require_own(ALICE, "told")
        runs.ended(ALICE, "told")
        await asyncio.sleep(0.3)


async def test_an_end_that_came_while_redis_was_away_is_told_once_it_is_back(tmp_path: Path) -> None:
    async with (
        EmbeddedEngines(tmp_path, silent, postgres=False) as engines,
        RedisStore(RedisOptions(engines.redis_url)) as own,
        telling(runs_of(own, limit=1)) as runs,
    ):
        await start(runs, ALICE, "long")
        runs.started(ALICE, "long")
        await asyncio.sleep(0.1)
        os.kill(engines.pids["redis"], signal.SIGKILL)
        runs.ended(ALICE, "long")
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(StorageAway, TooManyRuns):
                    await start(runs, ALICE, "next")
                    break
                await asyncio.sleep(0.05)


@given(st.binary(min_size=32, max_size=32))
def test_made_up_ids_are_ids(some: bytes) -> None:
    assert new_run_id(lambda _: some).startswith("run-")
    assert len(new_run_id(lambda _: some)) == 36
    assert new_run_id(lambda _: some).isascii()


# --- ends that nobody heard -----------------------------------------------------------------------------------------------


class Asked:
    """A sidecar whose gateway lists `living`, or fails; its clock stands until it is moved."""

    def __init__(self, store: RedisStore, limit: int = 2) -> None:
        self.living: Collection[str] | None = ()
        self.fails = False
        self.of: list[str] = []
        self.now = 1_000_000.0
        self.runs = Runs("main", store, RunOptions(limit), SECRET, lambda: self.now)
        self.runs.ask_living = self.answer

    async def answer(self, slug: str) -> Collection[str] | None:
        self.of.append(slug)
        if self.fails:
            raise GatewayAway("the gateway is away")
        return self.living

    def later(self) -> None:
        self.now += SETTLE_MS / 1000 + 1


async def test_before_a_turn_is_refused_the_gateway_is_asked_what_lives(store: RedisStore) -> None:
    asked = Asked(store)
    for run in ("dead", "alive"):
        await start(asked.runs, ALICE, run)
    assert asked.of == [], "nobody asks while there is room"
    asked.later()
    asked.living = ["alive", "unknown"]
    assert await start(asked.runs, ALICE, "next")
    assert asked.of == [ALICE]
    assert not await start(asked.runs, ALICE, "alive"), "it lives, and is counted"
    asked.later()
    asked.living = ["alive", "next"]
    with pytest.raises(TooManyRuns):
        await start(asked.runs, ALICE, "one more")


async def test_what_began_just_now_may_not_be_listed_yet(store: RedisStore) -> None:
    asked = Asked(store, limit=1)
    await start(asked.runs, ALICE, "young")
    with pytest.raises(TooManyRuns):
        await start(asked.runs, ALICE, "next")
    asked.later()
    assert await start(asked.runs, ALICE, "next")


async def test_runs_on_another_gateway_and_of_another_user_stay_counted(store: RedisStore) -> None:
    asked, elsewhere = Asked(store, limit=1), runs_of(store, gateway="other", limit=1)
    elsewhere._clock = lambda: asked.now
    await start(elsewhere, ALICE, "there")
    await start(asked.runs, BOB, "bobs")
    asked.later()
    with pytest.raises(TooManyRuns):
        await start(asked.runs, ALICE, "next")
    assert not await start(asked.runs, BOB, "bobs")


async def test_a_gateway_that_cannot_tell_frees_nothing(store: RedisStore) -> None:
    asked = Asked(store, limit=1)
    await start(asked.runs, ALICE, "lost")
    for living, fails in ((None, False), ((), True)):
        asked.later()
        asked.living, asked.fails = living, fails
        with pytest.raises(TooManyRuns):
            await start(asked.runs, ALICE, "next")
    assert asked.of == [ALICE, ALICE]


async def test_of_one_user_it_is_asked_rarely(store: RedisStore) -> None:
    asked = Asked(store, limit=1)
    asked.living = ["long"]
    for slug in (ALICE, BOB):
        await start(asked.runs, slug, "long")
        asked.living = ["long", asked.runs._mapped(BOB, "long")]
    asked.later()
    for _ in range(10):
        for slug in (ALICE, BOB):
            with pytest.raises(TooManyRuns):
                await start(asked.runs, slug, "next")
    assert asked.of == [ALICE, BOB]
    asked.now += ASK_SECONDS
    with pytest.raises(TooManyRuns):
        await start(asked.runs, ALICE, "next")
    assert asked.of == [ALICE, BOB, ALICE]


async def test_of_those_it_was_asked_for_only_the_latest_are_remembered(store: RedisStore) -> None:
    asked = Asked(store)
    asked.runs._asked_at = {f"u-{number}": 0.0 for number in range(MOST_ASKED)}
    await asked.runs._forget_dead(ALICE)
    assert len(asked.runs._asked_at) == MOST_ASKED
    assert next(reversed(asked.runs._asked_at)) == ALICE


async def test_the_last_ends_are_told_when_the_sidecar_stops(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        await start(runs, ALICE, "last")
        await asyncio.sleep(0)
        runs.ended(ALICE, "last")
    assert await start(runs_of(store, limit=1), ALICE, "next")
