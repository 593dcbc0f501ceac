"""What users and administrators read of quotas and usage, from a running sidecar with a ledger that has something in it."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from sidecar.domain.alerts import Crossing
from sidecar.domain.quota import QuotaType
from sidecar.domain.usage import ModelCall, Source, Tokens
from sidecar.storage.engines.running import running_database_url
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.quotas import QuotaBook
from tests.identity.issuer import KeyServer, key_server
from tests.live.gate import RSA, made
from tests.stack.raw import RawClient
from tests.stack.sidecar import Sidecar, SidecarOptions
from tests.stack.stub_gateway import StubGateway

ALICES = "example|alice"
HOSTILE = '=cmd|"x"!a1'


@dataclass(frozen=True, slots=True)
class Office:
    sidecar: Sidecar
    issuer: KeyServer
    book: QuotaBook

    async def asked(self, user: str, path: str, *roles: str, method: str = "GET", **more: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {made(self.issuer, sub=user, roles=list(roles))}"}
        url = f"{self.sidecar.http_url}/api/openclaw/{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers, **more) as answer:
            assert answer.headers["Cache-Control"] == "no-store"
            return answer.status, await (answer.text() if ".csv" in path and answer.status == 200 else answer.json())


@pytest_asyncio.fixture(scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    async with StubGateway() as stub, key_server() as issuer:
        issuer.keys = [RSA.jwk]
        settings = {"quota": {"daily_tokens": 50_000, "monthly_cost_usd": 10.0}}
        options = SidecarOptions(folder / "sidecar", stub.gateway(folder), issuer.url, settings)
        async with Sidecar(options) as sidecar:
            for user in ("alice", "bob"):
                async with RawClient.connect(sidecar.url, {"token": made(issuer, sub=user)}):
                    pass
            async with Database(DatabaseOptions(running_database_url(options.folder / "data"))) as database:
                await Ledger(database).append(
                    [call(1), call(2, model=HOSTILE), call(3, slug="u-bob"), call(4, at=time.time() - 40 * 86_400)]
                )
                book = QuotaBook(database)
                for number, percent in enumerate((80, 90)):
                    one = Crossing(
                        f"daily_tokens_{percent}", QuotaType.DAILY_TOKENS, percent, "2026-11-27", Decimal(1), Decimal(2)
                    )
                    assert await book.raise_alert("main", ("u-alice", "u-bob")[number], one, time.time())
                    assert not await book.raise_alert("main", ("u-alice", "u-bob")[number], one, time.time())
                yield Office(sidecar, issuer, book)


def call(number: int, *, slug: str = "u-alice", model: str = "echo-1", at: float | None = None) -> ModelCall:
    return ModelCall(
        gateway_id="main",
        call_id=f"m{number}",
        source=Source.MESSAGE,
        slug=slug,
        session_key=f"agent:{slug}:main",
        run_id=f"r{number}",
        provider="echo",
        model=model,
        tokens=Tokens(1000, 20, 300, 4),
        cost_usd=Decimal("0.25"),
        at=time.time() if at is None else at,
    )


async def test_quota(office: Office) -> None:
    status, body = await office.asked("alice", "quota")
    assert (status, body["userId"], body["timezone"]) == (200, ALICES, "UTC")
    tokens, cost = body["quotas"]["daily_tokens"], body["quotas"]["monthly_cost"]
    assert (tokens["limit"], tokens["used"], tokens["reserved"], tokens["remaining"]) == (50_000, 2648, 0, 47_352)
    assert (cost["limit"], cost["used"], cost["remaining"]) == (10, 0.5, 9.5)
    assert 0 < tokens["resetsAt"] - time.time() * 1000 <= 86_400_000
    assert body["quotas"]["api_calls"]["limit"] is None


async def test_own_limits_are_in_force_within_seconds(office: Office) -> None:
    await office.book.set_limit("example|bob", QuotaType.DAILY_TOKENS, Decimal(7))
    deadline = time.monotonic() + 20
    while (await office.asked("bob", "quota"))[1]["quotas"]["daily_tokens"]["limit"] != 7:
        assert time.monotonic() < deadline
    assert (await office.asked("bob", "quota"))[1]["quotas"]["daily_tokens"]["remaining"] == 0


async def test_usage(office: Office) -> None:
    status, body = await office.asked("alice", "usage")
    assert status == 200
    assert [(row["calls"], row["total"], row["costUsd"]) for row in body["rows"]] == [(2, 2648, "0.500000000")]
    _, body = await office.asked("alice", "usage?groupBy=session&from=2020-01-01&to=2020-12-31")
    assert body["rows"] == []
    _, body = await office.asked("alice", "usage?groupBy=model")
    assert {row["model"] for row in body["rows"]} == {"echo/echo-1", f"echo/{HOSTILE}"}


async def test_usage_for_a_spreadsheet(office: Office) -> None:
    _, text = await office.asked("alice", "usage.csv?groupBy=session")
    head, *rows = csv.reader(io.StringIO(text))
    assert head[:4] == ["session", "calls", "estimated", "input"]
    assert rows == [["agent:u-alice:main", "2", "0", "2000", "40", "600", "8", "2648", "0.500000000"]]


@pytest.mark.parametrize(
    "path",
    [
        "usage?user=example|bob",
        "usage?user=*",
        "quota?user=example|bob",
        "alerts?user=*",
        "usage.csv?user=example%7Cbob",
    ],
)
async def test_of_others_only_administrators_read(office: Office, path: str) -> None:
    for roles in ((), ("user",), ("guest",)):
        status, body = await office.asked("alice", path, *roles)
        assert (status, body["error"]["details"]["code"]) == (403, "ROLE_NOT_ALLOWED")
        assert "rows" not in body
    assert (await office.asked("root", path, "administrator"))[0] == 200


async def test_an_administrator_reads_of_everybody(office: Office) -> None:
    _, body = await office.asked("root", "usage?user=*&groupBy=user", "administrator")
    assert [(row["user"], row["calls"]) for row in body["rows"]] == [(ALICES, 2), ("example|bob", 1)]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("usage?groupBy=weather", "groupBy"),
        ("usage?from=yesterday", "2026-11-27"),
        ("usage?from=2026-02-02&to=2026-02-01", "from"),
        ("usage?from=2000-01-01&to=2026-01-01", "400"),
        ("alerts?before=-1", "number"),
    ],
)
async def test_a_question_that_means_nothing(office: Office, path: str, word: str) -> None:
    status, body = await office.asked("alice", path)
    assert (status, body["error"]["details"]["code"]) == (400, "BAD_QUERY")
    assert word in body["error"]["message"]


async def test_who_was_never_here_and_who_has_no_token(office: Office) -> None:
    assert (await office.asked("nemo", "quota"))[0] == 404
    assert (await office.asked("nemo", "usage"))[1]["rows"] == []
    for path in ("quota", "usage", "usage.csv", "alerts"):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{office.sidecar.http_url}/api/openclaw/{path}") as answer,
        ):
            assert answer.status == 401


async def test_alerts_are_read_acknowledged_and_resolved(office: Office) -> None:
    _, body = await office.asked("alice", "alerts")
    [alert] = body["alerts"]
    assert (alert["type"], alert["userId"], alert["acknowledged"]) == ("daily_tokens_80", ALICES, False)
    one = f"alerts/{alert['id']}"
    for user, path in (("bob", f"{one}/acknowledge"), ("alice", "alerts/999999/acknowledge")):
        assert (await office.asked(user, path, method="POST"))[0] == 404
    assert (await office.asked("alice", f"{one}/acknowledge", method="POST"))[0] == 200
    assert (await office.asked("alice", "alerts"))[1]["alerts"][0]["acknowledged"]
    assert (await office.asked("alice", f"{one}/resolve", method="POST"))[0] == 403
    for json, status in ({"note": 7}, 400), ({"note": "spoke to her"}, 200), ({"note": "again"}, 200):
        assert (await office.asked("root", f"{one}/resolve", "administrator", method="POST", json=json))[0] == status
    alert = (await office.asked("alice", "alerts"))[1]["alerts"][0]
    assert (alert["resolvedBy"], alert["resolutionNote"]) == ("example|root", "spoke to her")
    assert (await office.asked("alice", "alerts?open=true"))[1]["alerts"] == []
    assert [row["userId"] for row in (await office.asked("root", "alerts?user=*", "administrator"))[1]["alerts"]] == [
        "example|bob", ALICES,
    ]  # fmt: skip
