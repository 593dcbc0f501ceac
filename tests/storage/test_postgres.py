"""`Database` against a real server, present, absent, frozen and restarted."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from sidecar.domain.audit import AuditRow
from sidecar.domain.environment import Environment
from sidecar.domain.principal import Principal
from sidecar.errors import ConfigurationError, SidecarError, StorageAway
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.postgres import Database, DatabaseOptions
from tests.storage.engines import Reports, eventually

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
ALICE = Principal("example|alice", "example", "alice", "00", 0.0, "Alice", "alice@example.com", "https://x/a.png")


def environment(user: str, agent: str | None = None, gateway: str = "main") -> Environment:
    return Environment(
        user_id=f"example|{user}",
        gateway_id=gateway,
        agent_id=agent or f"u-{user}",
        workspace_dir=f"/data/{user}",
        profile_name=f"u-{user}",
        auth_profile_id="",
        created_at=NOON,
        updated_at=NOON,
        last_used_at=NOON,
    )


async def rows(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


class TestUsers:
    async def test_a_login_is_recorded_and_refreshed(self, database: Database, database_url: str) -> None:
        await database.record_login(ALICE, 1000.0)
        await database.record_login(ALICE, 2000.0)
        [row] = await rows(database_url, "select * from oauth_users")
        assert (row["user_id"], row["provider"], row["provider_user_id"]) == ("example|alice", "example", "alice")
        assert (row["email"], row["name"], row["avatar_url"]) == (ALICE.email, ALICE.name, ALICE.avatar_url)
        stamps = [row[name].timestamp() for name in ("created_at", "updated_at", "last_login_at")]
        assert stamps == [1000.0, 1000.0, 2000.0]

    async def test_first_logins_at_once(self, database: Database, database_url: str) -> None:
        for turn in range(200):
            one = dataclasses.replace(ALICE, user_id=f"example|a{turn}", subject=f"a{turn}")
            await asyncio.gather(*(database.record_login(one, 1000.0 + number) for number in range(10)))
        stored = await rows(database_url, "select last_login_at from oauth_users")
        assert [row["last_login_at"].timestamp() for row in stored] == [1009.0] * 200

    async def test_changed_names_are_taken_over(self, database: Database, database_url: str) -> None:
        await database.record_login(ALICE, 1000.0)
        await database.record_login(dataclasses.replace(ALICE, name="Alice B."), 2000.0)
        [row] = await rows(database_url, "select name, updated_at from oauth_users")
        assert (row["name"], row["updated_at"].timestamp()) == ("Alice B.", 2000.0)

    async def test_a_late_login_does_not_move_time_back(self, database: Database, database_url: str) -> None:
        await database.record_login(ALICE, 2000.0)
        await database.record_login(dataclasses.replace(ALICE, name="Alice B."), 1000.0)
        [row] = await rows(database_url, "select updated_at, last_login_at from oauth_users")
        assert [stamp.timestamp() for stamp in row] == [2000.0, 2000.0]

    async def test_twenty_at_once(self, database: Database, database_url: str) -> None:
        await asyncio.gather(*(database.record_login(ALICE, float(second)) for second in range(20)))
        [row] = await rows(database_url, "select last_login_at from oauth_users")
        assert row["last_login_at"].timestamp() == 19.0


class TestEnvironments:
    async def test_round_trip(self, database: Database) -> None:
        full = dataclasses.replace(
            environment("alice"),
            has_sandbox=True,
            sandbox_enabled=True,
            quota_tokens_per_day=2**40,
            quota_cost_per_month=Decimal("12.345678"),
            provisioned_at=NOON,
        )
        assert await database.environment_of(full.user_id) is None
        assert await database.put_environment(full) == full
        assert await database.environment_of(full.user_id) == full
        assert await database.environment_of("example|ALICE") is None

    @pytest.mark.parametrize("gateways", [10, 1])
    async def test_the_first_of_two_replicas_wins(self, database: Database, gateways: int) -> None:
        for turn in range(200):
            offers = [environment(f"alice{turn}", gateway=f"g{number % gateways}") for number in range(10)]
            stored = await asyncio.gather(*map(database.put_environment, offers))
            assert len(set(stored)) == 1
            assert stored[0] in offers

    async def test_an_agent_belongs_to_one_user(self, database: Database) -> None:
        await database.put_environment(environment("alice"))
        await database.put_environment(environment("bob", agent="u-alice", gateway="other"))
        with pytest.raises(SidecarError) as caught:
            await database.put_environment(environment("carol", agent="u-alice"))
        assert caught.value.detail_code == "ENVIRONMENT_CONFLICT"
        assert "alice" not in caught.value.message
        assert await database.environment_of("example|carol") is None

    async def test_an_agent_that_is_shared_belongs_to_all_and_a_name_to_one(self, database: Database) -> None:
        for user in ("alice", "bob"):
            shared = environment(user, agent="shared")
            assert shared.shares_agent
            assert await database.put_environment(shared) == shared
        also_alice = dataclasses.replace(environment("carol", agent="shared"), profile_name="u-alice")
        with pytest.raises(SidecarError) as caught:
            await database.put_environment(also_alice)
        assert caught.value.detail_code == "ENVIRONMENT_CONFLICT"

    async def test_touch_and_mark(self, database: Database) -> None:
        for user in ("alice", "bob", "carol"):
            await database.put_environment(environment(user))
        later, earlier = NOON.timestamp() + 60, NOON.timestamp() - 60
        await database.touch_environment("example|alice", later)
        await database.touch_environment("example|bob", earlier)
        await database.touch_environment("example|nobody", later)
        await database.mark_provisioned(["example|alice", "example|bob", "example|nobody"], later)
        await database.mark_provisioned([], later)
        alice, bob, carol = [await database.environment_of(f"example|{user}") for user in ("alice", "bob", "carol")]
        assert alice is not None
        assert bob is not None
        assert (alice.last_used_at.timestamp(), bob.last_used_at) == (later, NOON)
        assert alice.provisioned_at == bob.provisioned_at == alice.updated_at != NOON
        assert carol == environment("carol")

    async def test_users_per_gateway(self, database: Database) -> None:
        assert await database.users_per_gateway() == {}
        for number, gateway in enumerate(["main", "main", "other"]):
            await database.put_environment(environment(f"user{number}", gateway=gateway))
        assert await database.users_per_gateway() == {"main": 2, "other": 1}

    @pytest.mark.parametrize("wrong", [{"quota_tokens_per_day": -1}, {"gateway_id": ""}, {"user_id": "a\0"}])
    async def test_values_that_cannot_be(self, database: Database, wrong: dict[str, object]) -> None:
        with pytest.raises(SidecarError) as caught:
            await database.put_environment(dataclasses.replace(environment("alice"), **wrong))  # type: ignore[arg-type]
        assert caught.value.detail_code == "STORAGE_REFUSED"
        assert await database.users_per_gateway() == {}


class TestAudit:
    async def test_a_batch_is_kept_in_order(self, database: Database, database_url: str) -> None:
        batch = [
            AuditRow(
                float(number),
                "denied",
                "c1",
                "example|alice",
                "config.get",
                "METHOD_NOT_ALLOWED",
                str(number),
                {"n": number},
            )
            for number in range(500)
        ]
        await database.append_audit(batch)
        await database.append_audit([])
        found = await rows(database_url, "select * from audit_log order by id")
        assert [row["request_id"] for row in found] == [row.request_id for row in batch]
        last = found[-1]
        assert (last["at"].timestamp(), last["action"], last["code"]) == (499.0, "denied", "METHOD_NOT_ALLOWED")
        assert json.loads(last["details"]) == {"n": 499}

    async def test_all_or_none(self, database: Database, database_url: str) -> None:
        with pytest.raises(SidecarError):
            await database.append_audit([AuditRow(1.0, "denied"), AuditRow(2.0, "")])
        assert await rows(database_url, "select * from audit_log") == []


class TestOutage:
    async def test_nobody_there(self, tmp_path: Path) -> None:
        reports = Reports()
        async with Database(DatabaseOptions(f"postgresql://postgres@/postgres?host={tmp_path}"), reports) as database:
            for _ in range(2):
                with pytest.raises(StorageAway):
                    await database.ping()
            assert not database.up
        assert reports.states("postgres") == ["away"]

    async def test_somebody_who_never_answers(self, tmp_path: Path) -> None:
        gone = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gone.wait()
            writer.close()

        server = await asyncio.start_unix_server(say_nothing, tmp_path / ".s.PGSQL.5432")
        options = DatabaseOptions(f"postgresql://postgres@/postgres?host={tmp_path}", connect_timeout=0.2)
        async with server, Database(options) as database:
            with pytest.raises(StorageAway):
                await database.ping()
            gone.set()

    async def test_a_database_that_does_not_exist(self, engines: EmbeddedEngines) -> None:
        async with Database(DatabaseOptions(engines.database_url.replace("/postgres?", "/absent?"))) as database:
            with pytest.raises(StorageAway, match="database_url does not exist"):
                await database.ping()

    async def test_an_empty_database(self, database_url: str) -> None:
        async with Database(DatabaseOptions(database_url)) as database:
            with pytest.raises(StorageAway, match="not migrated"):
                await database.users_per_gateway()

    @pytest.mark.parametrize("url", ["", "mysql://secret@host/x", "postgresql://u:secret@host:port/x", "/path"])
    async def test_no_url(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Database(DatabaseOptions(url))
        assert caught.value.problems[0].setting == "storage.database_url"
        assert "secret" not in caught.value.message

    async def test_options_that_asyncpg_refuses(self) -> None:
        async with Database(DatabaseOptions("postgresql://u:secret@127.0.0.1/x?sslmode=sometimes")) as database:
            with pytest.raises(ConfigurationError) as caught:
                await database.ping()
        assert "secret" not in caught.value.message

    async def test_a_slow_statement_is_given_up(self, database: Database, database_url: str) -> None:
        connection = await asyncpg.connect(database_url)
        try:
            async with connection.transaction():
                await connection.execute("lock table user_openclaw_environments")
                async with Database(DatabaseOptions(database_url, statement_timeout=0.2)) as impatient:
                    with pytest.raises(StorageAway) as caught:
                        await impatient.users_per_gateway()
            assert caught.value.details == {"sqlstate": "57014"}
        finally:
            await connection.close()

    async def test_all_connections_taken(self, database: Database, database_url: str) -> None:
        connection = await asyncpg.connect(database_url)
        try:
            options = DatabaseOptions(database_url, pool_size=1, connect_timeout=3, statement_timeout=20)
            async with Database(options) as small, connection.transaction():
                await connection.execute("lock table user_openclaw_environments")
                stuck = asyncio.create_task(small.users_per_gateway())
                await asyncio.sleep(0)
                with pytest.raises(StorageAway):
                    await small.ping()
                stuck.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await stuck
        finally:
            await connection.close()

    async def test_a_frozen_server_costs_a_bounded_wait_and_thaws(self, database: Database, database_url: str) -> None:
        options = DatabaseOptions(database_url, connect_timeout=3, statement_timeout=2)
        async with Database(options) as impatient:
            await impatient.ping()
            frozen = await rows(database_url, "select pid from pg_stat_activity where datname = current_database()")
            own = [row["pid"] for row in frozen]
            for pid in own:
                if Path(f"/proc/{pid}").exists():
                    os.kill(pid, signal.SIGSTOP)
            try:
                with pytest.raises(StorageAway):
                    await impatient.ping()
            finally:
                for pid in own:
                    if Path(f"/proc/{pid}").exists():
                        os.kill(pid, signal.SIGCONT)
            await impatient.ping()

    async def test_it_recovers_by_itself(self, tmp_path: Path) -> None:
        reports = Reports()
        engines = EmbeddedEngines(tmp_path, Reports(), redis=False)
        async with engines, Database(DatabaseOptions(engines.database_url), reports) as database:
            await asyncio.gather(*(database.ping() for _ in range(10)))
            await engines.stop()
            with pytest.raises(StorageAway):
                await database.ping()
            await engines.start()
            await asyncio.gather(*(database.ping() for _ in range(10)))
        assert reports.states("postgres") == ["up", "away", "up"]

    async def test_every_call_during_a_crash_ends_mapped(self, tmp_path: Path) -> None:
        """No raw exception, whatever the moment at which the server dies under a call."""
        watched = Reports()
        async with (
            EmbeddedEngines(tmp_path, watched, redis=False) as engines,
            Database(DatabaseOptions(engines.database_url)) as database,
        ):
            outcomes: list[str] = []

            async def hammer() -> None:
                while "restarted" not in watched.states("postgres"):
                    try:
                        await database.ping()
                        outcomes.append("ok")
                    except StorageAway:
                        outcomes.append("away")

            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(hammer())
                await eventually(lambda: outcomes.count("ok") > 50)
                os.kill(engines.pids["postgres"], signal.SIGKILL)
            assert "away" in outcomes
            await database.ping()

    async def test_cancelled_calls_leave_a_usable_pool(self, database: Database) -> None:
        for _ in range(30):
            calls = [asyncio.create_task(database.ping()) for _ in range(20)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(*(database.ping() for _ in range(20)))

    async def test_closed_and_used_again(self, database: Database) -> None:
        await database.ping()
        await database.close()
        await database.close()
        await database.ping()
