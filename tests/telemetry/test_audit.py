"""The audit log through outages, floods and stops. The writer stands at a seam that this room declares itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from sidecar.domain.audit import AuditRow
from sidecar.errors import SidecarError, StorageAway
from sidecar.telemetry.audit import ROWS, AuditOptions, AuditTrail
from sidecar.telemetry.facts import (
    AuditDropped,
    AuditWritten,
    Denied,
    Fact,
    RunAdmitted,
    SocketRefused,
    TokenRejected,
    Unexpected,
)
from sidecar.telemetry.metrics import PREFIX
from sidecar.telemetry.reporter import Telemetry
from tests.telemetry.every_fact import kinds

FAST = AuditOptions(max_rows=100, batch_rows=10, gather_seconds=0.001, retry_seconds=0.001)


class Shelf:
    """Keeps rows; `fault`, while set, is raised instead, and `gate` holds a write back while it is clear."""

    def __init__(self) -> None:
        self.rows: list[AuditRow] = []
        self.batches: list[int] = []
        self.fault: Exception | None = None
        self.attempts = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def append_audit(self, rows: Sequence[AuditRow]) -> None:
        self.attempts += 1
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        self.rows += rows
        self.batches.append(len(rows))


def denied(number: int) -> Denied:
    return Denied("c1", "example|alice", "config.get", "METHOD_NOT_ALLOWED", str(number))


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(5000):
        if reached():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("not reached")


@asynccontextmanager
async def trail(options: AuditOptions = FAST) -> Any:
    heard: list[Fact] = []
    made = AuditTrail(heard.append, lambda: 1700000000.5, options)
    try:
        yield made, Shelf(), heard
    finally:
        await made.stop(0.1)


def dropped(heard: list[Fact]) -> dict[str, int]:
    found: dict[str, int] = {}
    for fact in heard:
        if isinstance(fact, AuditDropped):
            found[fact.reason] = found.get(fact.reason, 0) + fact.rows
    return found


async def test_rows_say_who_what_and_when() -> None:
    async with trail() as (audit, shelf, _heard):
        audit.add(denied(7))
        audit.add(RunAdmitted("c1", "example|alice", "r"))
        audit.add(TokenRejected("c2", "example", "expired"))
        audit.start(shelf)
        await until(lambda: len(shelf.rows) == 2)
    assert shelf.rows == [
        AuditRow(1700000000.5, "denied", "c1", "example|alice", "config.get", "METHOD_NOT_ALLOWED", "7"),
        AuditRow(1700000000.5, "token_rejected", "c2", code="expired", details={"issuer": "example"}),
    ]


async def test_a_refused_socket_is_a_row_where_it_is_a_denial() -> None:
    async with trail() as (audit, shelf, _heard):
        audit.add(SocketRefused("192.0.2.1", "UPGRADE_REQUIRED"))
        audit.add(SocketRefused("192.0.2.1", "ORIGIN_NOT_ALLOWED", denied=True))
        audit.add(TokenRejected("", "", "query", "192.0.2.1"))
        audit.start(shelf)
        await until(lambda: len(shelf.rows) == 2)
    assert shelf.rows == [
        AuditRow(1700000000.5, "socket_refused", code="ORIGIN_NOT_ALLOWED", details={"address": "192.0.2.1"}),
        AuditRow(1700000000.5, "token_rejected", code="query", details={"address": "192.0.2.1"}),
    ]


def strange(number: int, reason: str = "expired") -> TokenRejected:
    return TokenRejected(f"c{number}", "example", reason)


async def test_a_flood_of_strangers_is_counted_and_of_users_is_kept() -> None:
    now = 1000.0
    made = AuditTrail(lambda _: None, lambda: now, replace(FAST, max_rows=10_000, strangers=5, strangers_seconds=0.05))
    shelf = Shelf()
    for number in range(500):
        made.add(strange(number))
        made.add(denied(number))
    made.add(strange(1, "signature"))
    made.start(shelf)
    await until(lambda: len(shelf.rows) == 506)
    kept = [row for row in shelf.rows if row.code == "expired"]
    assert [row.connection_id for row in kept] == ["c0", "c1", "c2", "c3", "c4"]
    now += 0.06
    await until(lambda: len(shelf.rows) == 507)
    assert shelf.rows[-1] == AuditRow(1000.0, "token_rejected", code="expired", details={"more": 495, "seconds": 0.05})
    made.add(strange(1))
    await until(lambda: len(shelf.rows) == 508)
    assert shelf.rows[-1].connection_id == "c1", "a new minute, a new count"
    await made.stop(1)
    assert len(shelf.rows) == 508


async def test_a_stop_tells_of_a_flood_too() -> None:
    async with trail(replace(FAST, strangers=2)) as (audit, shelf, _heard):
        for number in range(10):
            audit.add(strange(number))
        audit.start(shelf)
        await audit.stop(5)
    assert [row.details.get("more") for row in shelf.rows] == [None, None, 8]


def test_facts_that_call_themselves_audited_are() -> None:
    said = {kind for kind in kinds() if (kind.__doc__ or "").startswith("Audit:")}
    assert said == set(ROWS)


async def test_rows_go_in_batches_in_order() -> None:
    async with trail() as (audit, shelf, heard):
        for number in range(35):
            audit.add(denied(number))
        audit.start(shelf)
        await until(lambda: len(shelf.rows) == 35)
        assert [row.request_id for row in shelf.rows] == [str(number) for number in range(35)]
        assert shelf.batches == [10, 10, 10, 5]
        await until(lambda: sum(fact.rows for fact in heard if isinstance(fact, AuditWritten)) == 35)


async def test_an_outage_loses_nothing_and_keeps_the_order() -> None:
    async with trail() as (audit, shelf, heard):
        shelf.fault = StorageAway("away")
        audit.start(shelf)
        for number in range(25):
            audit.add(denied(number))
        await until(lambda: shelf.attempts >= 3)
        shelf.fault = None
        await until(lambda: len(shelf.rows) == 25)
        assert [row.request_id for row in shelf.rows] == [str(number) for number in range(25)]
        assert dropped(heard) == {}


async def test_a_long_outage_costs_the_oldest_and_says_how_many() -> None:
    async with trail() as (audit, shelf, heard):
        shelf.fault = StorageAway("away")
        audit.start(shelf)
        for number in range(250):
            audit.add(denied(number))
        assert len(audit) <= 100
        await until(lambda: dropped(heard) == {"full": 150})
        shelf.fault = None
        await until(lambda: len(shelf.rows) == 100)
        assert [row.request_id for row in shelf.rows] == [str(number) for number in range(150, 250)]


@pytest.mark.parametrize("fault", [SidecarError("cannot hold it", detail_code="STORAGE_REFUSED"), KeyError("x")])
async def test_a_batch_that_can_never_be_written_does_not_block_the_rest(fault: Exception) -> None:
    async with trail() as (audit, shelf, heard):
        shelf.fault = fault
        audit.start(shelf)
        audit.add(denied(1))
        await until(lambda: dropped(heard) == {"refused": 1})
        shelf.fault = None
        audit.add(denied(2))
        await until(lambda: [row.request_id for row in shelf.rows] == ["2"])
        assert [fact for fact in heard if isinstance(fact, Unexpected)] == [
            Unexpected("audit", "KeyError")
        ] * isinstance(fault, KeyError)


async def test_a_stop_writes_what_waits() -> None:
    slow = AuditOptions(batch_rows=10, gather_seconds=3600, retry_seconds=3600)
    async with trail(slow) as (audit, shelf, heard):
        audit.start(shelf)
        for number in range(25):
            audit.add(denied(number))
        await asyncio.sleep(0.01)
        assert shelf.rows == []
        await audit.stop(30)
        assert len(shelf.rows) == 25
        assert dropped(heard) == {}


async def test_a_stop_during_an_outage_ends_at_once_and_counts_the_loss() -> None:
    slow = AuditOptions(gather_seconds=0.001, retry_seconds=3600)
    async with trail(slow) as (audit, shelf, heard):
        shelf.fault = StorageAway("away")
        audit.start(shelf)
        audit.add(denied(1))
        await until(lambda: shelf.attempts == 1)
        await audit.stop(3600)
        assert dropped(heard) == {"stop": 1}


async def test_a_writer_that_hangs_cannot_hold_the_stop() -> None:
    before = asyncio.all_tasks()
    async with trail() as (audit, shelf, heard):
        shelf.gate.clear()
        audit.start(shelf)
        audit.add(denied(1))
        await until(lambda: shelf.attempts == 1)
        await audit.stop(0.01)
        assert dropped(heard) == {"stop": 1}
    assert asyncio.all_tasks() == before


async def test_a_stop_before_a_start_counts_what_was_never_written() -> None:
    async with trail() as (audit, _shelf, heard):
        audit.add(denied(1))
        await audit.stop()
        await audit.stop()
        assert dropped(heard) == {"stop": 1}


class TestTelemetry:
    async def test_one_report_reaches_metrics_and_audit(self) -> None:
        telemetry, shelf = Telemetry(lambda: 1.0, FAST), Shelf()
        telemetry.report(denied(1))
        waiting = telemetry.metrics.registry.get_sample_value(PREFIX + "audit_rows_waiting")
        telemetry.start(shelf)
        telemetry.report(denied(2))
        await telemetry.stop()
        assert waiting == 1
        assert [row.request_id for row in shelf.rows] == ["1", "2"]
        sample = telemetry.metrics.registry.get_sample_value
        assert sample(PREFIX + "denied_total", {"method": "config.get", "code": "METHOD_NOT_ALLOWED"}) == 2
        assert sample(PREFIX + "audit_rows_written_total") == 2

    async def test_a_report_never_raises_and_the_other_sinks_still_hear(self) -> None:
        telemetry, shelf = Telemetry(lambda: 1.0, FAST), Shelf()
        broken: Any = ["not a label"]
        telemetry.report(Denied("c", "u", broken, "CODE"))
        telemetry.start(shelf)
        await telemetry.stop()
        sample = telemetry.metrics.registry.get_sample_value
        assert sample(PREFIX + "telemetry_failures_total", {"sink": "metrics"}) == 1
        assert len(shelf.rows) == 1

    async def test_what_the_loop_reports_becomes_a_fact_without_its_text(self) -> None:
        telemetry = Telemetry(lambda: 1.0, FAST)
        loop = asyncio.get_running_loop()
        telemetry.on_loop_exception(loop, {"message": "x", "exception": ValueError("marker")})
        telemetry.on_loop_exception(loop, {"message": "x"})
        text = telemetry.metrics.render().decode()
        assert 'unexpected_errors_total{error="ValueError",where="loop"} 1.0' in text
        assert 'unexpected_errors_total{error="unknown",where="loop"} 1.0' in text
        assert "marker" not in text
