"""`RedisStore` against a real server: rules, races, forgotten scripts, outages."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from sidecar.errors import ConfigurationError, SidecarError, StorageAway
from sidecar.storage import redis as module
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.redis import RedisOptions, RedisStore
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


class TestRuns:
    async def test_the_limit_counts_live_runs(self, store: RedisStore) -> None:
        for run, live in (("r1", 1), ("r2", 2)):
            admission = await store.admit_run(ALICE, "main", run, 2, MINUTE, 1000)
            assert (admission.admitted, admission.live, admission.repeated) == (True, live, False)
        refused = await store.admit_run(ALICE, "main", "r3", 2, MINUTE, 1000)
        assert (refused.admitted, refused.live) == (False, 2)
        assert (await store.admit_run(BOB, "main", "r3", 2, MINUTE, 1000)).admitted
        await store.release_run(ALICE, "main", "r1")
        await store.release_run(ALICE, "main", "never")
        assert (await store.admit_run(ALICE, "main", "r3", 2, MINUTE, 1000)).live == 2

    async def test_a_repeated_request_costs_nothing(self, store: RedisStore) -> None:
        await store.admit_run(ALICE, "main", "r1", 1, MINUTE, 1000)
        again = await store.admit_run(ALICE, "main", "r1", 1, MINUTE, 1000)
        assert (again.admitted, again.live, again.repeated) == (True, 1, True)

    async def test_the_same_id_on_another_gateway_is_another_run(self, store: RedisStore) -> None:
        await store.admit_run(ALICE, "main", "r1", 1, MINUTE, 1000)
        assert not (await store.admit_run(ALICE, "other", "r1", 1, MINUTE, 1000)).admitted

    async def test_runs_end_unless_renewed(self, store: RedisStore) -> None:
        for run in ("r1", "r2"):
            await store.admit_run(ALICE, "main", run, 0, 1000, 10_000)
        assert await store.renew_runs(ALICE, "main", ["r2", "never"], 1000, 10_500) == 1
        assert await store.renew_runs(ALICE, "main", [], 1000, 10_500) == 0
        assert (await store.admit_run(ALICE, "main", "r3", 2, 1000, 11_200)).live == 2
        assert await store.renew_runs(ALICE, "main", ["r1", "r2", "r3"], 1000, 11_600) == 1

    async def test_what_lives_no_more_is_taken_off(self, store: RedisStore) -> None:
        for gateway, run, now in (("main", "a", 0), ("main", "b", 0), ("main", "young", 500), ("other", "a", 0)):
            await store.admit_run(ALICE, gateway, run, 0, MINUTE, now)
        await store.admit_run(BOB, "main", "a", 0, MINUTE, 0)
        assert await store.release_dead_runs(ALICE, "main", ["b", "never"], MINUTE + 499) == 1
        assert await store.release_dead_runs(ALICE, "main", ["b", "never"], MINUTE + 499) == 0
        kept = [("main", "b"), ("main", "young"), ("other", "a")]
        assert all([(await store.admit_run(ALICE, *run, 0, MINUTE, 600)).repeated for run in kept])
        assert (await store.admit_run(ALICE, "main", "a", 3, MINUTE, 600)).live == 3
        assert (await store.admit_run(BOB, "main", "a", 0, MINUTE, 600)).repeated

    async def test_what_is_counted_beside_a_gateways_runs_stays(self, store: RedisStore) -> None:
        for place in ("main", "main:acts"):
            await store.admit_run(ALICE, place, "a", 0, MINUTE, 0)
        assert await store.release_dead_runs(ALICE, "main", [], MINUTE) == 1
        assert (await store.admit_run(ALICE, "main:acts", "a", 0, MINUTE, 0)).repeated

    async def test_zero_is_no_limit(self, store: RedisStore) -> None:
        admissions = [await store.admit_run(ALICE, "main", str(run), 0, MINUTE, 1000) for run in range(20)]
        assert [admission.live for admission in admissions] == list(range(1, 21))

    async def test_nothing_stays_for_ever(self, store: RedisStore, redis_client: Redis) -> None:
        await store.admit_run(ALICE, "main", "r1", 1, MINUTE, 1000)
        await store.admit_run(ALICE, "main", "r2", 0, 10, 1000)
        [key] = await redis_client.keys("*")
        assert 10 < await redis_client.pttl(key) <= MINUTE

    @pytest.mark.parametrize("seed", range(5))
    async def test_races_never_admit_more_than_the_limit(
        self, engines: EmbeddedEngines, store: RedisStore, seed: int
    ) -> None:
        chance = random.Random(seed)
        limit = chance.randint(1, 5)
        async with RedisStore(RedisOptions(engines.redis_url)) as other:
            runs = [str(number) for number in range(15)] * 2
            chance.shuffle(runs)
            admissions = await asyncio.gather(
                *(chance.choice([store, other]).admit_run(ALICE, "main", run, limit, MINUTE, 1000) for run in runs)
            )
        admitted = {run for run, admission in zip(runs, admissions, strict=True) if admission.admitted}
        assert len(admitted) == limit
        assert sum(admission.admitted and not admission.repeated for admission in admissions) == limit

    @given(
        st.lists(
            st.tuples(st.sampled_from(["admit", "release", "renew"]), st.integers(0, 5), st.integers(0, 40)),
            max_size=30,
        ),
        st.integers(0, 3),
    )
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_it_behaves_like_a_dictionary(
        self,
        engines: EmbeddedEngines,
        steps: list[tuple[str, int, int]],
        limit: int,
    ) -> None:
        """Against a model in plain Python; `ttl` is 50 and time moves as the steps say."""

        async def play() -> None:
            user, model, now = f"example|{next(fresh)}", dict[str, int](), 1_000
            async with RedisStore(RedisOptions(engines.redis_url)) as store:
                for verb, number, pause in steps:
                    run, now = str(number), now + pause
                    model = {known: end for known, end in model.items() if end > now}
                    if verb == "admit":
                        got = await store.admit_run(user, "main", run, limit, 50, now)
                        assert got.repeated == (run in model)
                        assert got.admitted == (run in model or not limit or len(model) < limit)
                        model |= {run: now + 50} if got.admitted else {}
                        assert got.live == len(model)
                    elif verb == "release":
                        await store.release_run(user, "main", run)
                        model.pop(run, None)
                    else:
                        assert await store.renew_runs(user, "main", [run], 50, now) == (run in model)
                        model |= {run: now + 50} if run in model else {}

        with asyncio.Runner() as runner:
            runner.run(play())


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
        await store.admit_run(ALICE, "main", "secret-run", 1, MINUTE, 1000)
        await store.claim_run("main", "secret-run", ALICE, MINUTE)
        keys = sorted(map(str, await redis_client.keys("*")))
        assert len(keys) == 4
        assert all(re.fullmatch(r"oc:\{(gw:main|[0-9a-f]{16})\}:[a-z0-9:]+", key) for key in keys)
        [runs] = [key for key in keys if key.endswith(":runs")]
        [run] = [key for key in keys if ":run:" in key]
        held = repr([keys, await redis_client.zrange(runs, 0, -1), await redis_client.get(run)])
        assert "alice" not in held
        assert "secret-run" not in held

    @pytest.mark.parametrize("file", sorted(LUA.glob("*.lua")), ids=lambda file: file.stem)
    def test_every_script_is_explained_and_used(self, file: Path) -> None:
        text = file.read_text()
        assert text.startswith("-- ")
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
        async def flush() -> None:
            for _ in range(50):
                await redis_client.script_flush()

        flushing = asyncio.create_task(flush())
        admissions = [await store.admit_run(ALICE, "main", str(run), 0, MINUTE, 1000) for run in range(50)]
        await flushing
        assert [admission.live for admission in admissions] == list(range(1, 51))


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
            await store.ping()

    @pytest.mark.parametrize("url", ["", "http://u:secret@host", "redis://u:secret@host:port"])
    def test_no_url(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            RedisStore(RedisOptions(url))
        assert caught.value.problems[0].setting == "storage.redis_url"
        assert "secret" not in caught.value.message
