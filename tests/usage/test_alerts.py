"""Alerts over a real database: once a period whoever sees it, and to a real receiver that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from sidecar.domain.alerts import Crossing
from sidecar.domain.quota import NOTHING, Amount, Figures, Limits, QuotaType
from sidecar.errors import StorageAway
from sidecar.quota.options import QuotaOptions
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.quotas import QuotaBook
from sidecar.telemetry.facts import AlertRaised, AlertSent, Fact
from sidecar.usage import webhook as module
from sidecar.usage.alerts import Alerts
from sidecar.usage.webhook import Webhook
from tests.stack.proc import eventually
from tests.stack.process import free_port
from tests.storage.test_postgres import environment, rows

LIMITS = Limits({QuotaType.DAILY_TOKENS: Decimal(1000), QuotaType.MONTHLY_COST: Decimal(10)})
SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
async def book(database: Database) -> QuotaBook:
    await database.put_environment(environment("alice"))
    return QuotaBook(database)


def figures(tokens: int, cost: int = 0, day: str = "2026-11-27") -> Figures:
    return Figures(day, day[:7], Amount(Decimal(tokens), Decimal(cost)), NOTHING, 5, 0)


@contextlib.asynccontextmanager
async def running(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async def run() -> None:
        await work()

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def alerts_of(book: QuotaBook, facts: list[Fact]) -> Alerts:
    return Alerts("main", book, QuotaOptions({}), facts.append, time.time)


async def types(url: str) -> list[str]:
    return [row["alert_type"] for row in await rows(url, "select alert_type from quota_alerts order by id")]


async def until(url: str, wanted: list[str]) -> None:
    async with asyncio.timeout(20):
        while await types(url) != wanted:
            await asyncio.sleep(0.02)


async def test_each_share_once_a_period_over_replicas(book: QuotaBook, database_url: str) -> None:
    facts: list[Fact] = []
    replicas = [alerts_of(book, facts) for _ in range(2)]
    async with running(replicas[0].run), running(replicas[1].run):
        for used in (100, 850, 850, 999, 2000):
            for one in replicas:
                one.stands("u-alice", figures(used), LIMITS)
            await asyncio.sleep(0.1)
        await until(database_url, ["daily_tokens_80", "daily_tokens_90", "daily_tokens_100"])
        for one in replicas:
            one.stands("u-alice", figures(810, 8, "2026-11-28"), LIMITS)
        await until(
            database_url,
            ["daily_tokens_80", "daily_tokens_90", "daily_tokens_100", "daily_tokens_80", "monthly_cost_80"],
        )
        await eventually(lambda: len(facts) >= 5)
    raised = [fact.alert_type for fact in facts if isinstance(fact, AlertRaised)]
    assert sorted(raised) == sorted(await types(database_url))


async def test_the_clients_on_every_replica_hear_of_it_once(book: QuotaBook) -> None:
    """And of nothing that was before they came."""
    early, late = alerts_of(book, []), alerts_of(book, [])
    heard: dict[str, list[tuple[str, str, int, Decimal]]] = {"early": [], "late": []}

    def hears(name: str) -> Callable[[str, Crossing], None]:
        return lambda slug, one: heard[name].append((slug, one.alert_type, one.percent, one.used))

    early.on_alert.append(hears("early"))
    late.on_alert.append(hears("late"))
    async with running(early.run), asyncio.timeout(20):
        early.stands("u-alice", figures(850), LIMITS)
        while not heard["early"]:
            await asyncio.sleep(0.02)
        async with running(late.run):
            await asyncio.sleep(0.5)
            early.stands("u-alice", figures(1000), LIMITS)
            while len(heard["late"]) < 2 or len(heard["early"]) < 3:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)
    told = [
        ("u-alice", f"daily_tokens_{percent}", percent, Decimal(used))
        for percent, used in ((80, 850), (90, 1000), (100, 1000))
    ]
    assert heard == {"early": told, "late": told[1:]}


async def test_where_a_user_stands_is_noted_for_reports(book: QuotaBook, database_url: str) -> None:
    alerts = alerts_of(book, [])
    async with running(alerts.run):
        alerts.stands("u-alice", figures(850), LIMITS)
        found = await noted(database_url)
    assert {row["quota_type"]: float(row["current_value"]) for row in found} == {
        "api_calls": 5, "daily_tokens": 850, "monthly_cost": 0,
    }  # fmt: skip
    assert all(row["limit_value"] is None and row["reset_date"] > row["last_checked_at"] for row in found)


async def test_what_came_while_the_database_was_away_is_told_late(book: QuotaBook, database_url: str) -> None:
    alerts = alerts_of(book, [])
    away = Away(Database(DatabaseOptions(f"postgresql://127.0.0.1:{free_port()}/none", connect_timeout=0.5)))
    async with running(alerts.run):
        alerts.stands("u-alice", figures(450), LIMITS)
        await noted(database_url)
        alerts._book = away
        alerts.stands("u-alice", figures(850), LIMITS)
        await eventually(lambda: away.tried)
        alerts._book = book
        await until(database_url, ["daily_tokens_80"])


class Away(QuotaBook):
    """Knows whether somebody has met it."""

    tried = False

    async def raise_alert(self, *words: Any) -> bool:
        try:
            return await super().raise_alert(*words)
        except StorageAway:
            self.tried = True
            raise


async def noted(url: str) -> list[Any]:
    """What is noted of where users stand, once there is something."""
    async with asyncio.timeout(20):
        while not (found := await rows(url, "select * from user_quotas order by quota_type")):
            await asyncio.sleep(0.02)
        return found


# --- the webhook ----------------------------------------------------------------------------------------------------------


@dataclass
class Receiver:
    url: str = ""
    status: int = 200
    got: list[tuple[dict[str, Any], bool]] = field(default_factory=list)
    """Each alert, and whether its signature is right."""

    async def serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        at = request.headers["X-Sidecar-Timestamp"]
        wanted = "sha256=" + hmac.digest(SECRET, f"{at}.".encode() + body, "sha256").hex()
        fresh = abs(int(at) - time.time()) < 60
        self.got.append(
            (json.loads(body), fresh and hmac.compare_digest(wanted, request.headers["X-Sidecar-Signature"]))
        )
        return web.Response(status=self.status)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    app = web.Application()
    app.router.add_post("/hook", one.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield one
    await runner.cleanup()


async def raised(book: QuotaBook, percent: int) -> None:
    one = Crossing(
        f"daily_tokens_{percent}", QuotaType.DAILY_TOKENS, percent, "2026-11-27", Decimal(850), Decimal(1000)
    )
    assert await book.raise_alert("main", "u-alice", one, time.time())


async def test_an_alert_is_sent_once_and_signed(
    book: QuotaBook, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.05)
    await raised(book, 80)
    facts: list[Fact] = []
    hooks = [Webhook(receiver.url, SECRET, book, facts.append, time.time) for _ in range(2)]
    async with running(hooks[0].run), running(hooks[1].run):
        await eventually(lambda: len(facts) == 1)
        await raised(book, 90)
        await eventually(lambda: len(facts) == 2)
        await asyncio.sleep(0.5)  # for what must not come
    assert [(alert["type"], good) for alert, good in receiver.got] == [
        ("daily_tokens_80", True),
        ("daily_tokens_90", True),
    ]
    alert = receiver.got[0][0]
    assert (alert["userId"], alert["used"], alert["limit"]) == ("example|alice", "850", "1000")
    assert datetime.fromisoformat(alert["triggeredAt"]).tzinfo is not None
    assert facts == [AlertSent("sent")] * 2


async def test_what_is_not_taken_is_sent_again_later_and_later(
    book: QuotaBook, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.02)
    await raised(book, 80)
    now, facts = [time.time()], list[Fact]()
    receiver.status = 500
    hook = Webhook(receiver.url, SECRET, book, facts.append, lambda: now[0])
    async with running(hook.run):
        for wait, sent in ((0, 1), (14, 1), (2, 2), (29, 2), (2, 3)):
            now[0] += wait
            await eventually(lambda sent=sent: len(facts) == sent)  # type: ignore[misc]
            await asyncio.sleep(0.2)  # for what must not come
            assert len(receiver.got) == sent
        receiver.status = 204
        now[0] += 61
        await eventually(lambda: len(facts) == 4)
        now[0] += 4000
        await asyncio.sleep(0.2)
    assert len(receiver.got) == 4
    assert [fact.outcome for fact in facts if isinstance(fact, AlertSent)] == ["refused"] * 3 + ["sent"]
    nobody = Webhook(f"http://127.0.0.1:{free_port()}/", SECRET, book, facts.append, lambda: now[0])
    await raised(book, 90)
    async with running(nobody.run):
        await eventually(lambda: len(facts) == 5)
    assert facts[-1] == AlertSent("unreachable")
