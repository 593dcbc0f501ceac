"""Runs over a real Redis: whose they are, how many may live, and that the count comes back to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from sidecar.errors import ForeignKey, GatewayAway, StorageAway, TooManyRuns
from sidecar.quota.runs import (
    ACT,
    ASK_SECONDS,
    LONGEST_SECONDS,
    MOST_ASKED,
    MOST_OVER,
    NOBODY,
    SETTLE_MS,
    WISH_MS,
    Runs,
    new_run_id,
)
from sidecar.storage.availability import silent
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.redis import RedisOptions, RedisStore, _run
from tests.quota.books import accounts_of, runs_limit
from tests.stack.process import free_port

ALICE, BOB = "u-alice", "u-bob"
SECRET = b"0123456789abcdef0123456789abcdef"


def runs_of(store: RedisStore, limit: int = 2, live_ms: int = 180_000, gateway: str = "main") -> Runs:
    accounts = accounts_of(store, runs_limit(limit), gateway=gateway)
    return Runs(gateway, store, accounts, SECRET, time.time, live_ms=live_ms)


def an_id(word: str) -> str:
    """As a client makes one; the same for the same word."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, word))


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
                await runs.admit(slug, an_id(f"probe-of-{slug}"))
                return
            await asyncio.sleep(0.01)


async def counts(runs: Runs, slug: str) -> None:
    """Wait until no other may start. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while True:
            try:
                await runs.admit(slug, an_id("probe"))
            except TooManyRuns:
                return
            runs.silent(slug, an_id("probe"))
            await asyncio.sleep(0.01)


async def test_the_limit_is_per_user_and_says_how_many(store: RedisStore) -> None:
    runs = runs_of(store)
    assert [await start(runs, ALICE, an_id(f"a{number}")) for number in range(2)] == [True, True]
    with pytest.raises(TooManyRuns) as refused:
        await start(runs, ALICE, an_id("a2"))
    assert refused.value.details == {"limit": 2, "used": 2}
    assert not refused.value.retryable
    assert await start(runs, BOB, an_id("b0"))


async def test_a_run_that_is_asked_for_twice_counts_once(store: RedisStore) -> None:
    runs = runs_of(store)
    assert [await start(runs, ALICE, an_id("same")) for _ in range(5)] == [True, False, False, False, False]
    assert await start(runs, ALICE, an_id("another"))


async def test_no_limit(store: RedisStore) -> None:
    runs = runs_of(store, limit=0)
    assert all([await start(runs, ALICE, an_id(f"a{number}")) for number in range(50)])


async def test_replicas_and_gateways_count_together(store: RedisStore) -> None:
    first, second, elsewhere = runs_of(store), runs_of(store), runs_of(store, gateway="other")
    await start(first, ALICE, an_id("a0"))
    await start(elsewhere, ALICE, an_id("a0"))
    with pytest.raises(TooManyRuns):
        await start(second, ALICE, an_id("a1"))


async def test_what_ended_does_not_count(store: RedisStore) -> None:
    async with telling(runs_of(store)) as runs:
        for number in range(20):
            await free_again(runs, ALICE)
            await start(runs, ALICE, an_id(f"a{number}"))
            runs.started(ALICE, an_id(f"a{number}"))
            runs.ended(ALICE, an_id(f"a{number}"))
            runs.ended(ALICE, an_id(f"probe-of-{ALICE}"))


async def test_what_lives_counts_again_after_redis_was_emptied(store: RedisStore, redis_client: Redis) -> None:
    async with telling(runs_of(store, limit=1, live_ms=3000)) as runs:
        await start(runs, ALICE, an_id("a0"))
        runs.started(ALICE, an_id("a0"))
        await counts(runs, ALICE)
        await redis_client.flushdb()
        await counts(runs, ALICE)
        runs.ended(ALICE, an_id("a0"))
        await free_again(runs, ALICE)


async def test_an_id_is_the_first_ones_and_another_gets_one_of_its_own(store: RedisStore) -> None:
    runs = runs_of(store)
    assert await runs.claim(ALICE, an_id("shared")) == an_id("shared")
    mapped = await runs.claim(BOB, an_id("shared"))
    assert mapped != an_id("shared")
    assert await runs.claim(BOB, an_id("shared")) == mapped, "the same each time, on every replica"
    assert await runs_of(store).claim(BOB, an_id("shared")) == mapped
    assert await runs.claim(ALICE, an_id("shared")) == an_id("shared")
    assert await runs.claim("u-carol", "shared") not in {an_id("shared"), mapped}


@pytest.mark.parametrize(
    "word", ["announce:v1:agent:u-bob:main", "1", "33D04EB0-3B21-4451-A8AC-88837D48AE54", "a" * 65]
)
async def test_a_word_that_can_be_guessed_is_no_id_upstream(store: RedisStore, word: str) -> None:
    runs = runs_of(store)
    mapped = await runs.claim(ALICE, word)
    assert mapped != word
    assert await runs.claim(ALICE, mapped) == mapped, "she was told so, and may say it too"
    assert await runs.require_own(ALICE, word) == mapped
    runs.started(BOB, word)
    assert await runs.require_own(ALICE, word) == mapped
    assert await runs.require_own(BOB, word) == word, "what the gateway itself gave his agent"


async def test_a_word_that_is_said_again_is_the_same_run_also_at_the_limit(store: RedisStore) -> None:
    runs = runs_of(store, limit=1)
    mapped, counted = await runs.begin(ALICE, "a word")
    assert counted
    assert await runs.begin(ALICE, "a word") == (mapped, False)
    with pytest.raises(TooManyRuns):
        await runs.begin(ALICE, "another word")


async def test_what_an_operator_runs_is_nobodys(store: RedisStore) -> None:
    run = an_id("the operator's")
    async with telling(runs_of(store, limit=1)) as runs:
        runs.started(NOBODY, run)
        assert await runs.claim(ALICE, run) != run
        with pytest.raises(ForeignKey):
            await runs.require_own(BOB, run)
        await asyncio.sleep(0.1)
        runs.ended(NOBODY, run)
    later = runs_of(store)
    assert await later.claim(ALICE, run) != run, "also when it is over, on every replica"
    with pytest.raises(ForeignKey):
        await later.require_own(BOB, run)


async def test_a_run_of_the_same_id_as_anothers_neither_hides_nor_ends_it(store: RedisStore) -> None:
    run = an_id("same")
    async with telling(runs_of(store, limit=1)) as runs:
        await start(runs, ALICE, run)
        runs.started(ALICE, run)
        runs.ended(BOB, run)
        await runs.require_own(ALICE, run)
        await counts(runs, ALICE)
        assert await runs.claim(BOB, run) != run


async def test_while_a_run_lives_its_id_is_whose_it_is_whoever_claimed_it_before(store: RedisStore) -> None:
    runs, run = runs_of(store), an_id("claimed")
    await runs.claim(BOB, run)
    runs.started(ALICE, run)
    with pytest.raises(ForeignKey):
        await runs.require_own(BOB, run)


async def test_a_repeated_request_that_redis_lost_leaves_the_run_counted(store: RedisStore) -> None:
    runs = runs_of(store, limit=1)
    await start(runs, ALICE, an_id("long"))
    async with telling(runs), RedisStore(RedisOptions(f"redis://127.0.0.1:{free_port()}")) as away:
        runs._store = away
        with pytest.raises(StorageAway):
            await runs.begin(ALICE, an_id("long"))
        runs._store = store
        await counts(runs, ALICE)


async def test_a_run_of_ones_own_word_is_found_again_on_every_replica(store: RedisStore) -> None:
    runs = runs_of(store)
    assert await runs.begin(ALICE, an_id("shared")) == (an_id("shared"), True)
    mapped, counted = await runs.begin(BOB, an_id("shared"))
    assert (mapped != an_id("shared"), counted) == (True, True)
    assert await runs.require_own(ALICE, an_id("shared")) == an_id("shared")
    assert await runs_of(store).require_own(BOB, an_id("shared")) == mapped
    assert await runs.require_own(BOB, mapped) == mapped


async def test_a_refused_turn_leaves_nothing_behind(store: RedisStore, redis_client: Redis) -> None:
    runs = runs_of(store, limit=1)
    await runs.begin(ALICE, an_id("first"))
    before = set(await redis_client.keys())
    for number in range(20):
        with pytest.raises(TooManyRuns):
            await runs.begin(ALICE, an_id(f"refused-{number}"))
    assert set(await redis_client.keys()) == before


async def test_another_word_for_a_run_takes_one_place_not_two(store: RedisStore) -> None:
    runs = runs_of(store, limit=1)
    await runs.begin(ALICE, an_id("shared"))
    assert (await runs.begin(BOB, an_id("shared")))[1] is True
    with pytest.raises(TooManyRuns):
        await runs.begin(BOB, an_id("one more"))


async def test_a_run_that_the_gateway_began_by_itself_counts(store: RedisStore) -> None:
    """Queued and steered messages go on under ids that no client named."""
    async with telling(runs_of(store, limit=1)) as runs:
        runs.started(ALICE, an_id("queued-work"))
        async with asyncio.timeout(20):
            while True:
                try:
                    await runs.admit(ALICE, an_id("probe"))
                except TooManyRuns:
                    break
                await runs._accounts.release(ALICE, "main", an_id("probe"))
        runs.ended(ALICE, an_id("queued-work"))
        await free_again(runs, ALICE)


async def test_what_began_and_ended_in_one_breath_does_not_count(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        for number in range(50):
            runs.started(ALICE, an_id(f"quick-{number}"))
            runs.ended(ALICE, an_id(f"quick-{number}"))
        await free_again(runs, ALICE)


async def test_nobody_is_made_owner_by_asking(store: RedisStore) -> None:
    runs = runs_of(store)
    await runs.claim(ALICE, an_id("hers"))
    for run_id in (an_id("hers"), an_id("nobody's")):
        with pytest.raises(ForeignKey) as refused:
            await runs.require_own(BOB, run_id)
        assert refused.value.message == "that run is not yours"
    assert await runs.claim(ALICE, an_id("nobody's")) == an_id("nobody's")
    await runs.require_own(ALICE, an_id("hers"))


async def test_a_run_that_the_gateway_started_is_its_agents(store: RedisStore) -> None:
    async with telling(runs_of(store)) as runs:
        runs.started(ALICE, an_id("cron-run"))
        await runs.require_own(ALICE, an_id("cron-run"))
        with pytest.raises(ForeignKey):
            await runs.require_own(BOB, an_id("cron-run"))
        assert await runs.claim(BOB, an_id("cron-run")) != an_id("cron-run"), "at once, before Redis was told"
        elsewhere = runs_of(store)
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(ForeignKey):
                    await elsewhere.require_own(ALICE, an_id("cron-run"))
                    break


async def test_living_runs_stay_on_the_count_while_much_is_heard(store: RedisStore, redis_client: Redis) -> None:
    async with telling(runs_of(store, limit=1, live_ms=600)) as runs:
        await start(runs, ALICE, an_id("long"))
        runs.started(ALICE, an_id("long"))
        for number in range(400):
            runs.started(BOB, an_id(f"b{number}"))
            runs.ended(BOB, an_id(f"b{number}"))
            await asyncio.sleep(0.01)
        with pytest.raises(TooManyRuns):
            await start(runs, ALICE, an_id("one more"))
        runs.ended(ALICE, an_id("long"))
        await free_again(runs, ALICE)


async def test_a_run_that_nobody_hears_of_ends_by_itself(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1, live_ms=300)) as runs:
        await start(runs, ALICE, an_id("lost"))
        await free_again(runs, ALICE)


async def test_a_begin_that_is_told_after_the_end_begins_nothing(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        await start(runs, ALICE, an_id("short"))
        runs.ended(ALICE, an_id("short"))
        runs.started(ALICE, an_id("short"))
        await free_again(runs, ALICE)
        runs.ended(ALICE, an_id(f"probe-of-{ALICE}"))
        await free_again(runs, ALICE)


async def test_what_only_seemed_over_counts_again_once_it_is_heard_of(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        await start(runs, ALICE, an_id("quiet"))
        runs.silent(ALICE, an_id("quiet"))
        runs.started(ALICE, an_id("quiet"))
        await counts(runs, ALICE)
        runs.ended(ALICE, an_id("quiet"))
        await free_again(runs, ALICE)


async def test_an_id_that_is_used_again_counts_again(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        for _ in range(2):
            assert await start(runs, ALICE, an_id("again"))
            runs.started(ALICE, an_id("again"))
            await counts(runs, ALICE)
            runs.ended(ALICE, an_id("again"))
            await free_again(runs, ALICE)
            runs.ended(ALICE, an_id(f"probe-of-{ALICE}"))
            await free_again(runs, ALICE)
            runs.ended(ALICE, an_id(f"probe-of-{ALICE}"))
            await asyncio.sleep(0.1)


async def test_of_ends_only_the_latest_are_remembered(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        runs.ended(ALICE, an_id("long ago"))
        for number in range(MOST_OVER):
            runs.ended(BOB, an_id(f"b{number}"))
        runs.started(ALICE, an_id("long ago"))
        await counts(runs, ALICE)


async def test_no_run_is_kept_on_the_count_for_ever(store: RedisStore) -> None:
    now = [1_000_000.0]
    accounts = accounts_of(store, runs_limit(1), clock=lambda: now[0])
    runs = Runs("main", store, accounts, SECRET, lambda: now[0], live_ms=300)
    async with telling(runs):
        runs.started(ALICE, an_id("its end was lost"))
        await counts(runs, ALICE)
        now[0] += LONGEST_SECONDS + 1
        await asyncio.sleep(0.5)  # it would be renewed by then
        await free_again(runs, ALICE)


async def test_after_a_lost_gateway_its_runs_are_forgotten(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1, live_ms=300)) as runs:
        await start(runs, ALICE, an_id("lost"))
        runs.started(ALICE, an_id("lost"))
        runs.forget_live()
        await free_again(runs, ALICE)


async def test_without_redis_nothing_starts_and_nothing_breaks() -> None:
    async with (
        RedisStore(RedisOptions(f"redis://127.0.0.1:{free_port()}")) as away,
        telling(runs_of(away, live_ms=100)) as runs,
    ):
        for asked in (
            runs.claim(ALICE, an_id("a")),
            runs.require_own(ALICE, an_id("a")),
            runs.admit(ALICE, an_id("a")),
        ):
            with pytest.raises(StorageAway):
                await asked
        runs.started(ALICE, an_id("told"))
        await runs.require_own(ALICE, an_id("told"))
        runs.ended(ALICE, an_id("told"))
        await asyncio.sleep(0.3)


async def test_an_end_that_came_while_redis_was_away_is_told_once_it_is_back(tmp_path: Path) -> None:
    async with (
        EmbeddedEngines(tmp_path, silent, postgres=False) as engines,
        RedisStore(RedisOptions(engines.redis_url)) as own,
        telling(runs_of(own, limit=1)) as runs,
    ):
        await start(runs, ALICE, an_id("long"))
        runs.started(ALICE, an_id("long"))
        await asyncio.sleep(0.1)
        os.kill(engines.pids["redis"], signal.SIGKILL)
        runs.ended(ALICE, an_id("long"))
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(StorageAway, TooManyRuns):
                    await start(runs, ALICE, an_id("next"))
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
        accounts = accounts_of(store, runs_limit(limit), clock=lambda: self.now)
        self.runs = Runs("main", store, accounts, SECRET, lambda: self.now)
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
    for word in ("dead", "alive"):
        await start(asked.runs, ALICE, an_id(word))
    assert asked.of == [], "nobody asks while there is room"
    asked.later()
    asked.living = [an_id("alive"), "unknown"]
    assert await start(asked.runs, ALICE, an_id("next"))
    assert asked.of == [ALICE]
    assert not await start(asked.runs, ALICE, an_id("alive")), "it lives, and is counted"
    asked.later()
    asked.living = [an_id("alive"), an_id("next")]
    with pytest.raises(TooManyRuns):
        await start(asked.runs, ALICE, an_id("one more"))


async def test_an_act_counts_while_it_goes_on_though_no_gateway_lists_it(store: RedisStore) -> None:
    asked = Asked(store, limit=1)
    await asked.runs.admit(ALICE, f"{ACT}1")
    with asked.runs.holding(ALICE, f"{ACT}1"):
        for _ in range(3):
            asked.now += asked.runs._live_ms / 3000
            await asked.runs._renew()
            with pytest.raises(TooManyRuns):
                await start(asked.runs, ALICE, an_id("next"))
    assert len(asked.of) == 3
    asked.now += asked.runs._live_ms / 1000 + 1
    await asked.runs._renew()
    assert await start(asked.runs, ALICE, an_id("next")), "nobody holds it any more"


async def test_an_act_that_ended_is_off_the_count(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        await runs.admit(ALICE, f"{ACT}1")
        with runs.holding(ALICE, f"{ACT}1"):
            runs.ended(ALICE, f"{ACT}1")
        await free_again(runs, ALICE)


async def test_an_id_is_kept_long_only_once_the_gateway_took_it(store: RedisStore, redis_client: Redis) -> None:
    async with telling(runs_of(store)) as runs:
        for word in ("refused", "taken"):
            await start(runs, ALICE, an_id(word))
        runs.taken(ALICE, an_id("taken"))

        async def left(word: str) -> int:
            return int(await redis_client.pttl(_run("main", an_id(word))))

        async with asyncio.timeout(10):
            while await left("taken") <= WISH_MS:
                await asyncio.sleep(0.01)
        assert 0 < await left("refused") <= WISH_MS


async def test_what_began_just_now_may_not_be_listed_yet(store: RedisStore) -> None:
    asked = Asked(store, limit=1)
    await start(asked.runs, ALICE, an_id("young"))
    with pytest.raises(TooManyRuns):
        await start(asked.runs, ALICE, an_id("next"))
    asked.later()
    assert await start(asked.runs, ALICE, an_id("next"))


async def test_runs_on_another_gateway_and_of_another_user_stay_counted(store: RedisStore) -> None:
    asked, elsewhere = Asked(store, limit=1), runs_of(store, gateway="other", limit=1)
    elsewhere._clock = lambda: asked.now
    await start(elsewhere, ALICE, an_id("there"))
    await start(asked.runs, BOB, an_id("bobs"))
    asked.later()
    with pytest.raises(TooManyRuns):
        await start(asked.runs, ALICE, an_id("next"))
    assert not await start(asked.runs, BOB, an_id("bobs"))


async def test_a_gateway_that_cannot_tell_frees_nothing(store: RedisStore) -> None:
    asked = Asked(store, limit=1)
    await start(asked.runs, ALICE, an_id("lost"))
    for living, fails in ((None, False), ((), True)):
        asked.later()
        asked.living, asked.fails = living, fails
        with pytest.raises(TooManyRuns):
            await start(asked.runs, ALICE, an_id("next"))
    assert asked.of == [ALICE, ALICE]


async def test_of_one_user_it_is_asked_rarely(store: RedisStore) -> None:
    asked = Asked(store, limit=1)
    asked.living = [(await asked.runs.begin(slug, an_id("long")))[0] for slug in (ALICE, BOB)]
    asked.later()
    for _ in range(10):
        for slug in (ALICE, BOB):
            with pytest.raises(TooManyRuns):
                await start(asked.runs, slug, an_id("next"))
    assert asked.of == [ALICE, BOB]
    asked.now += ASK_SECONDS
    with pytest.raises(TooManyRuns):
        await start(asked.runs, ALICE, an_id("next"))
    assert asked.of == [ALICE, BOB, ALICE]


async def test_of_those_it_was_asked_for_only_the_latest_are_remembered(store: RedisStore) -> None:
    asked = Asked(store)
    asked.runs._asked_at = {f"u-{number}": 0.0 for number in range(MOST_ASKED)}
    await asked.runs._forget_dead(ALICE)
    assert len(asked.runs._asked_at) == MOST_ASKED
    assert next(reversed(asked.runs._asked_at)) == ALICE


async def test_the_last_ends_are_told_when_the_sidecar_stops(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        await start(runs, ALICE, an_id("last"))
        await asyncio.sleep(0)
        runs.ended(ALICE, an_id("last"))
    assert await start(runs_of(store, limit=1), ALICE, an_id("next"))


async def test_what_was_heard_in_a_long_outage_is_told_afterwards(store: RedisStore) -> None:
    """More words than may wait for Redis at a time."""
    async with RedisStore(RedisOptions(f"redis://127.0.0.1:{free_port()}")) as away:
        runs = runs_of(store, limit=1)
        runs._store = away
        for number in range(7_500):
            runs.started(BOB, an_id(f"b{number}"))
            runs.ended(BOB, an_id(f"b{number}"))
        runs.started(ALICE, an_id("lives"))
        async with telling(runs):
            await asyncio.sleep(0.5)
            runs._store = store
            await counts(runs, ALICE)
