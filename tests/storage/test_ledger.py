"""The ledger against a real server: once each, under the right person, in the right month."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from sidecar.domain.usage import ModelCall, OpenRun, Source, Tokens, Weights
from sidecar.storage.ledger import Ledger, months_ahead
from sidecar.storage.postgres import Database
from tests.storage.test_postgres import environment, rows

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
MONTH = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
DAY = datetime(2026, 11, 27, tzinfo=UTC).timestamp()


def call(call_id: str = "m1", **changes: Any) -> ModelCall:
    plain = ModelCall(
        gateway_id="main",
        call_id=call_id,
        source=Source.MESSAGE,
        slug="u-alice",
        session_key="agent:u-alice:main",
        run_id="run-1",
        provider="echo",
        model="echo-1",
        tokens=Tokens(input=100, output=20, cache_read=3, cache_write=4),
        cost_usd=Decimal("0.003234"),
        at=NOON,
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture
async def ledger(database: Database) -> Ledger:
    for user in ("alice", "bob"):
        await database.put_environment(environment(user))
    return Ledger(database)


async def test_a_call_is_a_row(ledger: Ledger, database_url: str) -> None:
    assert await ledger.append([call(metadata={"error": "a\0b"})]) == {("main", "m1")}
    [row] = await rows(database_url, "select * from token_usage_logs")
    assert (row["user_id"], row["session_key"], row["request_id"]) == ("example|alice", "agent:u-alice:main", "run-1")
    assert (row["provider"], row["model"], row["source"]) == ("echo", "echo-1", "message")
    assert [row[f"tokens_{name}"] for name in ("input", "output", "cache_read", "cache_write", "total")] == [
        100,
        20,
        3,
        4,
        127,
    ]
    assert (row["cost_usd"], row["timestamp"].timestamp()) == (Decimal("0.003234"), NOON)
    assert "error" in row["metadata"]


async def test_a_second_sight_writes_nothing_and_moves_nobody(ledger: Ledger, database_url: str) -> None:
    """A fork copies messages under their ids; a back-fill sees them again, and may see another time."""
    await ledger.append([call()])
    copy = call(slug="u-bob", session_key="agent:u-bob:fork", tokens=Tokens(1), at=NOON + 40 * 86400)
    assert await ledger.append([copy, copy, call()]) == set()
    [row] = await rows(database_url, "select * from token_usage_logs")
    assert (row["user_id"], row["tokens_total"]) == ("example|alice", 127)


async def test_twice_in_one_batch_is_once(ledger: Ledger, database_url: str) -> None:
    assert await ledger.append([call()] * 3) == {("main", "m1")}
    assert len(await rows(database_url, "select 1 from token_usage_logs")) == 1


async def test_the_same_id_on_two_gateways_is_two_calls(ledger: Ledger, database: Database) -> None:
    await database.put_environment(environment("carol", gateway="other"))
    calls = [call(), call(slug="u-carol", gateway_id="other")]
    assert await ledger.append(calls) == {("main", "m1"), ("other", "m1")}


async def test_replicas_at_once_write_each_call_once(ledger: Ledger, database: Database, database_url: str) -> None:
    calls = [call(f"m{number}") for number in range(50)]
    replicas = [ledger, Ledger(database), Ledger(database)]
    written = await asyncio.gather(*(one.append(calls) for one in replicas for _ in range(3)))
    assert sorted(key for keys in written for key in keys) == sorted(("main", f"m{number}") for number in range(50))
    assert len(await rows(database_url, "select 1 from token_usage_logs")) == 50


async def test_what_is_nobodys_is_not_written(ledger: Ledger, database_url: str) -> None:
    """Throw-away agents, the operator's own, users of another gateway."""
    assert await ledger.append([call(slug="u-nobody"), call(gateway_id="other")]) == set()
    assert await rows(database_url, "select 1 from usage_calls") == []


async def test_each_month_has_its_partition(ledger: Ledger, database_url: str) -> None:
    times = [
        datetime.fromisoformat(moment).timestamp()
        for moment in ("2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z", "2026-12-31T23:00:00Z")
    ]
    await ledger.append([call(f"m{number}", at=at) for number, at in enumerate(times)])
    found = await rows(database_url, "select tableoid::regclass::text as name from token_usage_logs order by timestamp")
    assert [row["name"] for row in found] == [
        f"token_usage_logs_{month}" for month in ("2024_02", "2024_03", "2026_12")
    ]


async def test_partitions_ahead_and_dropped(ledger: Ledger, database_url: str) -> None:
    assert [datetime.fromtimestamp(at, UTC).date() for at in months_ahead(NOON)] == [
        date(2026, 11, 1),
        date(2026, 12, 1),
        date(2027, 1, 1),
    ]
    await ledger.make_partitions(months_ahead(NOON))
    old = datetime(2026, 9, 30, 23, tzinfo=UTC).timestamp()
    await ledger.append([call("old", at=old), call("new")])
    assert await ledger.drop_partitions(MONTH) == [date(2026, 9, 1)]
    assert await ledger.drop_partitions(MONTH) == []
    assert [row["call_id"] for row in await rows(database_url, "select call_id from token_usage_logs")] == ["new"]
    assert [row["call_id"] for row in await rows(database_url, "select call_id from usage_calls")] == ["new"]
    await ledger.append([call("late", at=old)])
    assert len(await rows(database_url, "select 1 from token_usage_logs")) == 2


async def test_the_watermark_never_moves_back(ledger: Ledger) -> None:
    assert await ledger.read_until("main") is None
    for moment in (NOON, NOON - 60):
        await ledger.set_read_until("main", moment)
    assert await ledger.read_until("main") == NOON


async def test_what_a_user_used(ledger: Ledger) -> None:
    await ledger.append(
        [
            call("today"),
            call("yesterday", at=DAY - 1),
            call("last month", at=MONTH - 1),
            call("his", slug="u-bob", tokens=Tokens(9999)),
        ]
    )
    used = await ledger.used_by(
        "main", "u-alice", DAY, MONTH, 0, Weights(cache_read=Decimal("0.5"), cache_write=Decimal(0))
    )
    assert used.day_tokens == Decimal("121.5")
    assert used.month_cost == Decimal("0.006468")
    assert sorted(used.recent) == ["main today", "main yesterday"]
    nothing = await ledger.used_by("main", "u-nobody", DAY, MONTH, 0, Weights())
    assert not any((nothing.day_tokens, nothing.month_cost, nothing.recent))


async def test_turns_of_a_day_are_those_of_the_user_not_what_they_set_off(ledger: Ledger) -> None:
    runs = {"one": "main", "two": "main", "child": "subagent:3f2b", "job": "cron:7:run:8", "": "main"}
    for name, rest in runs.items():
        await ledger.append([call(f"{name}-{n}", session_key=f"agent:u-alice:{rest}", run_id=name) for n in range(2)])
    assert (await ledger.used_by("main", "u-alice", DAY, MONTH, 0, Weights())).day_calls == 2


async def test_nothing_to_write(ledger: Ledger) -> None:
    assert await ledger.append([]) == set()


async def test_the_shortest_prompt_of_a_user(ledger: Ledger) -> None:
    assert await ledger.least_call("main", "u-alice", NOON) is None
    await ledger.append(
        [
            call("long", tokens=Tokens(900, 1, 100)),
            call("short", tokens=Tokens(300, 999, 100)),
            call("sub", tokens=Tokens(1), session_key="agent:u-alice:subagent:x"),
            call("guess", tokens=Tokens(1), source=Source.ESTIMATE),
            call("later", tokens=Tokens(1), at=NOON + 1),
            call("old", tokens=Tokens(1), at=NOON - 31 * 86400),
            call("bobs", tokens=Tokens(200), slug="u-bob"),
        ]
    )
    for slug, expected in (("u-alice", "short"), ("u-bob", "bobs")):
        found = await ledger.least_call("main", slug, NOON)
        assert found is not None
        assert found.call_id == expected
    assert await ledger.least_call("main", "u-new", NOON) is None, "what others asked is not theirs to see"
    assert await ledger.least_call("other", "u-alice", NOON) is None


async def test_open_runs_stay_until_they_are_over(ledger: Ledger) -> None:
    one, two = (OpenRun(f"run-{number}", "u-alice", "agent:u-alice:main", NOON) for number in (1, 2))
    await ledger.note_runs("main", [one, two], [])
    await ledger.note_runs("main", [one], [])
    await ledger.note_runs("other", [two], [])
    assert sorted(await ledger.open_runs("main"), key=lambda run: run.run_id) == [one, two]
    await ledger.note_runs("main", [], ["run-1", "run-9"])
    assert await ledger.open_runs("main") == [two]
    assert await ledger.open_runs("other") == [two]


async def test_whether_a_run_went_on(ledger: Ledger) -> None:
    await ledger.append([call()])
    assert await ledger.called_since("main", "run-1", NOON - 1)
    assert not await ledger.called_since("main", "run-1", NOON)
    assert not await ledger.called_since("main", "run-2", NOON - 1)
    assert not await ledger.called_since("other", "run-1", NOON - 1)
