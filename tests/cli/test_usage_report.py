"""`sidecar usage report` beside a database that a sidecar keeps."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import io
import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from sidecar.domain.usage import GROUPS, ModelCall, Source, Tokens
from sidecar.storage.ledger import Ledger
from tests.cli.conftest import Beside
from tests.storage.test_postgres import environment

FIRST = datetime(2026, 11, 26, 23, 59, 59, tzinfo=UTC).timestamp()
SECOND = datetime(2026, 11, 27, tzinfo=UTC).timestamp()
HOSTILE = "agent:u-alice:=cmd|' /c calc'!a1\x1b[2j"


def call(number: int, **changes: Any) -> ModelCall:
    plain = ModelCall(
        gateway_id="main",
        call_id=f"m{number}",
        source=Source.MESSAGE,
        slug="u-alice",
        session_key="agent:u-alice:main",
        run_id="",
        provider="echo",
        model="echo-1",
        tokens=Tokens(1000, 20, 300, 4),
        cost_usd=Decimal("0.25"),
        at=FIRST,
    )
    return dataclasses.replace(plain, **changes)


@pytest_asyncio.fixture(scope="module", autouse=True)
async def calls(beside: Beside) -> None:
    for user in ("alice", "bob"):
        await beside.database.put_environment(environment(user))
    await Ledger(beside.database).append(
        [
            call(1),
            call(2, at=SECOND, source=Source.ESTIMATE, model="=echo-2"),
            call(3, slug="u-bob", session_key="agent:u-bob:main", at=SECOND, cost_usd=Decimal("1.5")),
            call(4, session_key=HOSTILE, at=SECOND),
        ]
    )


async def sidecar(beside: Beside, *words: str) -> tuple[int, str, str]:
    """`sidecar usage report …`: its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar.cli.main", "usage", "report", "--config", str(beside.config), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def objects(beside: Beside, *words: str) -> list[dict[str, Any]]:
    code, out, errors = await sidecar(beside, "--json", "--from", "2026-11-01", "--to", "2026-11-30", *words)
    assert (code, errors) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


async def test_by_day(beside: Beside) -> None:
    found = await objects(beside)
    assert [(row["day"], row["calls"], row["estimated"], row["cost_usd"]) for row in found] == [
        ("2026-11-26", 1, 0, "0.250000000"),
        ("2026-11-27", 3, 1, "2.000000000"),
    ]
    assert found[0] == {
        "day": "2026-11-26",
        "calls": 1,
        "estimated": 0,
        "input": 1000,
        "output": 20,
        "cache_read": 300,
        "cache_write": 4,
        "total": 1324,
        "cost_usd": "0.250000000",
    }


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("month", ["2026-11"]),
        ("user", ["example|alice", "example|bob"]),
        ("model", ["echo/=echo-2", "echo/echo-1"]),
        ("session", ["agent:u-alice:=cmd|' /c calc'!a1\x1b[2j", "agent:u-alice:main", "agent:u-bob:main"]),
    ],
)
async def test_by_other_things(beside: Beside, by: str, names: list[str]) -> None:
    assert sorted(row[by] for row in await objects(beside, "--by", by)) == sorted(names)


def test_every_group_is_shown() -> None:
    assert set(GROUPS) == {"day", "month", "user", "model", "session"}


async def test_one_user(beside: Beside) -> None:
    assert [(row["day"], row["calls"]) for row in await objects(beside, "--user", "example|bob")] == [("2026-11-27", 1)]
    assert await objects(beside, "--user", "example|nobody") == []


async def test_the_last_day_counts_whole(beside: Beside) -> None:
    code, out, _ = await sidecar(beside, "--json", "--from", "2026-11-26", "--to", "2026-11-26")
    assert (code, [json.loads(line)["day"] for line in out.splitlines()]) == (0, ["2026-11-26"])


async def test_a_table_with_a_sum(beside: Beside) -> None:
    code, out, _ = await sidecar(beside, "--from", "2026-11-01", "--to", "2026-11-30", "--by", "session")
    head, *lines, last = out.splitlines()
    assert code == 0
    assert head.split() == [
        "session",
        "calls",
        "estimated",
        "input",
        "output",
        "cache_read",
        "cache_write",
        "total",
        "cost_usd",
    ]
    assert last.split() == ["all", "4", "1", "4,000", "80", "1,200", "16", "5,296", "2.250000"]
    assert len({len(line) for line in (head, *lines, last)}) == 1, "columns stand below each other"
    assert "\x1b" not in out


async def test_csv_holds_no_formula(beside: Beside) -> None:
    code, out, _ = await sidecar(beside, "--csv", "--from", "2026-11-01", "--to", "2026-11-30", "--by", "session")
    assert code == 0
    head, *found = csv.reader(io.StringIO(out))
    assert head[0] == "session"
    assert [int(row[1]) for row in found] == [1, 2, 1]
    assert not any(row[0].startswith(("=", "+", "-", "@")) for row in found)


async def test_nothing_was_used(beside: Beside) -> None:
    code, out, _ = await sidecar(beside, "--from", "2020-01-01", "--to", "2020-01-31")
    assert code == 0
    assert out.splitlines()[-1].split() == ["all", "0", "0", "0", "0", "0", "0", "0", "0.000000"]


@pytest.mark.parametrize("words", [("--from", "yesterday"), ("--by", "phase"), ("--csv", "--json")])
async def test_what_it_does_not_know(beside: Beside, words: tuple[str, ...]) -> None:
    code, out, errors = await sidecar(beside, *words)
    assert (code, out) == (2, "")
    assert "usage report" in errors


async def test_no_sidecar_runs_there(beside: Beside) -> None:
    elsewhere = beside.config.with_name("elsewhere.toml")
    elsewhere.write_text(
        beside.config.read_text().replace(str(beside.data_dir), str(beside.data_dir.with_name("none")))
    )
    code, out, errors = await sidecar(beside, "--config", str(elsewhere))
    assert (code, out) == (1, "")
    assert "no sidecar with an embedded database runs" in errors
