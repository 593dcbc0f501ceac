"""`RedisStore` against a real server: rules, races, forgotten scripts, outages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis

from sidecar.errors import ConfigurationError, SidecarError, StorageAway
from sidecar.storage import accounts
from sidecar.storage import redis as module
from sidecar.storage.accounts import AccountStore
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.redis import RedisOptions, RedisStore
from tests.storage.asks import ask
from tests.storage.engines import Reports, eventually

MINUTE = 60_000
ALICE, BOB = "example|alice", "example|bob"
LUA = Path(module.__file__).with_name("lua")
fresh = count(1)


class TestLease:
    async def test_one_owner_at_a_time(self, store: RedisStore) -> None:
        assert await store.acquire("gw:main", "a", MINUTE)
        assert not await store.acquire("gw:main", "b", MINUTE)
        assert await store.acquire("gw:main", "a", MINUTE)
        assert await store.acquire("gw:other", "b", MINUTE)
        assert not await store.renew("gw:main", "b", MINUTE)
        assert not await store.release("gw:main", "b")
        assert await store.renew("gw:main", "a", MINUTE)
        assert await store.release("gw:main", "a")
        assert not await store.release("gw:main", "a")
        assert not await store.renew("gw:main", "a", MINUTE)
        assert await store.acquire("gw:main", "b", MINUTE)

    async def test_it_ends_by_itself(self, store: RedisStore, redis_client: Redis) -> None:
        assert await store.acquire("gw:main", "a", 20)
        async with asyncio.timeout(20):
            while not await store.acquire("gw:main", "b", MINUTE):
                await asyncio.sleep(0.005)
        assert not await store.renew("gw:main", "a", MINUTE)
        assert 0 < await redis_client.pttl("oc:{gw:main}:lease") <= MINUTE

    async def test_of_many_one_gets_it(self, store: RedisStore) -> None:
        got = await asyncio.gather(*(store.acquire("gw:main", str(owner), MINUTE) for owner in range(50)))
        assert got.count(True) == 1


class TestGate:
    async def test_one_passes_the_rest_hear_how_long(self, store: RedisStore) -> None:
        waits = await asyncio.gather(*(store.pass_gate("gw:main", MINUTE) for _ in range(50)))
        assert waits.count(0) == 1
        assert all(0 <= wait <= MINUTE for wait in waits)
        assert await store.pass_gate("gw:other", MINUTE) == 0

    async def test_who_waits_as_told_passes(self, store: RedisStore) -> None:
        assert await store.pass_gate("gw:main", 50) == 0
        async with asyncio.timeout(20):
            while wait := await store.pass_gate("gw:main", 50):
                await asyncio.sleep(wait / 1000)


class TestOwnership:
    async def test_the_first_claim_counts(self, store: RedisStore) -> None:
        assert not await store.owner_is("main", "run", ALICE)
        assert await store.claim_run("main", "run", ALICE, MINUTE)
        assert await store.claim_run("main", "run", ALICE, MINUTE)
        assert not await store.claim_run("main", "run", BOB, MINUTE)
        assert await store.owner_is("main", "run", ALICE)
        assert not await store.owner_is("main", "run", BOB)
        assert await store.claim_run("other", "run", BOB, MINUTE)
        assert await store.claim_run("main", "Run", BOB, MINUTE)

    async def test_asking_claims_nothing(self, store: RedisStore) -> None:
        assert not await store.owner_is("main", "run", BOB)
        assert await store.claim_run("main", "run", ALICE, MINUTE)

    async def test_a_repeated_claim_lengthens_and_never_shortens(self, store: RedisStore, redis_client: Redis) -> None:
        await store.claim_run("main", "run", ALICE, 1000)
        await store.claim_run("main", "run", ALICE, MINUTE)
        await store.claim_run("main", "run", ALICE, 10)
        await store.claim_run("main", "run", BOB, 10)
        [key] = await redis_client.keys("*")
        assert await redis_client.pttl(key) > 1000

    @pytest.mark.parametrize("seed", range(5))
    async def test_of_many_users_one_owns_it(self, engines: EmbeddedEngines, store: RedisStore, seed: int) -> None:
        chance = random.Random(seed)
        users = [f"example|{chance.randint(0, 7)}" for _ in range(60)]
        async with RedisStore(RedisOptions(engines.redis_url)) as other:
            got = await asyncio.gather(
                *(chance.choice([store, other]).claim_run("main", "run", user, MINUTE) for user in users)
            )
        winners = {user for user, mine in zip(users, got, strict=True) if mine}
        assert len(winners) == 1
        assert all(mine == (user in winners) for user, mine in zip(users, got, strict=True))

    async def test_odd_ids(self, store: RedisStore) -> None:
        odd = ["", "\0", "\ud800", "}{", "a b\r\n", "x" * 100_000, "ü", "u\u0308"]
        for number, run in enumerate(odd):
            assert await store.claim_run("main", run, f"user{number}", MINUTE)
        for number, run in enumerate(odd):
            assert await store.owner_is("main", run, f"user{number}")


class TestKeys:
    async def test_they_have_a_slot_and_no_names(self, store: RedisStore, redis_client: Redis) -> None:
        await store.acquire("gw:main", "owner", MINUTE)
        await store.pass_gate("gw:main", MINUTE)
        await store.claim_run("main", "secret-run", ALICE, MINUTE)
        keys = sorted(map(str, await redis_client.keys("*")))
        assert len(keys) == 3
        assert all(re.fullmatch(r"oc:\{(gw:main|[0-9a-f]{16})\}:[a-z0-9:]+", key) for key in keys)
        [run] = [key for key in keys if ":run:" in key]
        held = repr([keys, await redis_client.get(run)])
        assert "alice" not in held
        assert "secret-run" not in held

    @pytest.mark.parametrize("file", sorted(LUA.glob("*.lua")), ids=lambda file: file.stem)
    def test_every_script_is_explained_and_used(self, file: Path) -> None:
        text = file.read_text()
        assert text.startswith("-- ")
        if file.stem.startswith("account"):
            assert "KEYS" in text or "ARGV" in text
            assert f'"{file.stem}"' in Path(accounts.__file__).read_text()
        else:
            assert "-- KEYS[1] " in text
            assert f'Script("{file.stem}")' in Path(module.__file__).read_text()


class TestForgottenScripts:
    async def test_they_are_loaded_again(self, store: RedisStore, redis_client: Redis) -> None:
        assert await store.claim_run("main", "run", ALICE, MINUTE)
        await redis_client.script_flush()
        claims = [store.claim_run("main", str(number), ALICE, MINUTE) for number in range(30)]
        gates = [store.pass_gate(str(number), MINUTE) for number in range(30)]
        assert await asyncio.gather(*claims) == [True] * 30
        assert await asyncio.gather(*gates) == [0] * 30

    async def test_flushing_all_the_time_doubles_nothing(self, store: RedisStore, redis_client: Redis) -> None:
        keeper = AccountStore(store)

        async def flush() -> None:
            for _ in range(50):
                await redis_client.script_flush()

        flushing = asyncio.create_task(flush())
        admissions = [await keeper.adopt(ask(ALICE, str(run))) for run in range(50)]
        await flushing
        assert [admission.figures.runs for admission in admissions] == list(range(1, 51))


class TestPipeline:
    async def test_calls_of_one_turn_share_a_round_trip(self, store: RedisStore, redis_client: Redis) -> None:
        await store.claim_run("main", "warm", ALICE, MINUTE)
        before = (await redis_client.info("stats"))["total_reads_processed"]
        await asyncio.gather(*(store.claim_run("main", str(run), ALICE, MINUTE) for run in range(200)))
        after = (await redis_client.info("stats"))["total_reads_processed"]
        assert after - before < 50

    async def test_one_bad_call_spoils_no_other(self, store: RedisStore, redis_client: Redis) -> None:
        await redis_client.hset("oc:{bad}:lease", "wrong", "type")
        good, bad, also_good = await asyncio.gather(
            store.acquire("good", "a", MINUTE),
            store.acquire("bad", "a", MINUTE),
            store.acquire("also", "a", MINUTE),
            return_exceptions=True,
        )
        assert (good, also_good) == (True, True)
        assert isinstance(bad, SidecarError)
        assert bad.detail_code == "STORAGE_REFUSED"

    async def test_cancelled_calls_leave_the_others_alone(self, store: RedisStore) -> None:
        calls = [asyncio.create_task(store.claim_run("main", str(run), ALICE, MINUTE)) for run in range(40)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[1::2] == [True] * 20
        assert await store.claim_run("main", "after", ALICE, MINUTE)

    async def test_more_than_a_batch(self, store: RedisStore) -> None:
        assert all(await asyncio.gather(*(store.claim_run("main", str(run), ALICE, MINUTE) for run in range(2000))))

    async def test_closed_is_closed(self, engines: EmbeddedEngines) -> None:
        store = RedisStore(RedisOptions(engines.redis_url))
        waiting = asyncio.create_task(store.ping())
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StorageAway):
            await waiting
        with pytest.raises(StorageAway):
            await store.ping()
        await store.close()


async def answers(store: RedisStore) -> None:
    """Return once it does."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StorageAway):
                return await store.ping()
            await asyncio.sleep(0.05)


class TestOutage:
    async def test_nobody_there(self, tmp_path: Path) -> None:
        reports = Reports()
        async with RedisStore(RedisOptions(f"unix://{tmp_path}/absent.sock"), reports) as store:
            outcomes = await asyncio.gather(*(store.ping() for _ in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, StorageAway) for outcome in outcomes)
        assert reports.states("redis") == ["away"]

    async def test_somebody_who_never_answers(self, tmp_path: Path) -> None:
        gone = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gone.wait()
            writer.close()

        server = await asyncio.start_unix_server(say_nothing, tmp_path / "mute.sock")
        async with server, RedisStore(RedisOptions(f"unix://{tmp_path}/mute.sock", answer_timeout=0.2)) as store:
            with pytest.raises(StorageAway):
                await store.ping()
            gone.set()

    async def test_somebody_who_speaks_something_else(self, tmp_path: Path) -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(greet, tmp_path / "http.sock")
        async with server, RedisStore(RedisOptions(f"unix://{tmp_path}/http.sock")) as store:
            with pytest.raises(StorageAway):
                await store.ping()

    async def test_a_wrong_password_and_a_full_server(self, engines: EmbeddedEngines, redis_client: Redis) -> None:
        async with RedisStore(RedisOptions(engines.redis_url.replace("unix://", "unix://u:secret@"))) as store:
            with pytest.raises(StorageAway) as caught:
                await store.ping()
            assert "secret" not in caught.value.message
        await redis_client.config_set("maxmemory", "1")
        try:
            async with RedisStore(RedisOptions(engines.redis_url)) as store:
                with pytest.raises(StorageAway):
                    await store.claim_run("main", "run", ALICE, MINUTE)
        finally:
            await redis_client.config_set("maxmemory", "0")

    async def test_it_recovers_by_itself(self, tmp_path: Path) -> None:
        reports = Reports()
        engines = EmbeddedEngines(tmp_path, Reports(), postgres=False)
        async with engines, RedisStore(RedisOptions(engines.redis_url), reports) as store:
            await store.claim_run("main", "run", ALICE, MINUTE)
            await engines.stop()
            with pytest.raises(StorageAway):
                await store.ping()
            assert not store.up
            await engines.start()
            await answers(store)
            assert await store.owner_is("main", "run", ALICE)
            assert await store.claim_run("main", "run", ALICE, MINUTE)
        assert reports.states("redis") == ["up", "away", "up"]

    async def test_every_call_during_a_crash_ends_mapped(self, tmp_path: Path) -> None:
        watched = Reports()
        async with (
            EmbeddedEngines(tmp_path, watched, postgres=False) as engines,
            RedisStore(RedisOptions(engines.redis_url)) as store,
        ):
            outcomes: list[str] = []

            async def hammer(number: int) -> None:
                while "restarted" not in watched.states("redis"):
                    try:
                        await store.claim_run("main", str(number), ALICE, MINUTE)
                        outcomes.append("ok")
                    except StorageAway:
                        outcomes.append("away")

            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(hammer(number))
                await eventually(lambda: outcomes.count("ok") > 50)
                os.kill(engines.pids["redis"], signal.SIGKILL)
            assert "away" in outcomes
            await answers(store)

    async def test_one_that_hangs_is_waited_for_by_one_at_a_time(self, tmp_path: Path) -> None:
        """Each wait is as long as `answer_timeout`; two hundred of them one after another would take a minute and more."""
        async with (
            EmbeddedEngines(tmp_path, Reports(), postgres=False) as engines,
            RedisStore(RedisOptions(engines.redis_url, answer_timeout=0.5)) as store,
        ):
            await store.ping()
            os.kill(engines.pids["redis"], signal.SIGSTOP)
            try:
                async with asyncio.timeout(40):
                    for _ in range(200):
                        with pytest.raises(StorageAway):
                            await store.ping()
            finally:
                os.kill(engines.pids["redis"], signal.SIGCONT)
            await answers(store)
            assert await store.claim_run("main", "run", ALICE, MINUTE)

    @pytest.mark.parametrize("url", ["", "http://u:secret@host", "redis://u:secret@host:port"])
    def test_no_url(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            RedisStore(RedisOptions(url))
        assert caught.value.problems[0].setting == "storage.redis_url"
        assert "secret" not in caught.value.message
