"""`sidecar audit tail` beside a database that a sidecar keeps: what it shows, what it never shows, and how it lives on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import sidecar
from sidecar.cli.audit_tail import OVERLAP, Following
from sidecar.domain.audit import ACTIONS, AuditQuery, AuditRow
from sidecar.telemetry.audit import ROWS
from tests.cli.conftest import Beside
from tests.settings.documents import good, to_toml
from tests.storage.engines import eventually
from tests.telemetry.every_fact import example

NOW = 1_800_000_000.0
HOSTILE = [
    "example|x\x1b[2J\x1b[H",
    "example|x\n2026-11-25T19:00:00Z  example|bob               as_admin        sessions.delete           ok",
    "example|bob  denied  chat.send  FOREIGN_KEY",
    "example|x\r\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "example|\x9b31mred\x9c\x7f\x08",
    "example|\u202egnp.exe",
]


class Running:
    """One command; what it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            asyncio.create_task(self._read(process.stdout, self.lines)),
            asyncio.create_task(self._read(process.stderr, self.errors)),
        ]

    async def ended(self) -> int:
        async with asyncio.timeout(30):
            await asyncio.gather(*self._readers)
            return await self.process.wait()

    @staticmethod
    async def _read(stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        assert stream is not None
        while line := await stream.readline():
            lines.append(line.decode(errors="surrogateescape").rstrip("\n"))


@contextlib.asynccontextmanager
async def command(*arguments: str, **environ: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar.cli.main", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(Path(sidecar.__file__).parent.parent), **environ},
    )  # fmt: skip
    running = Running(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await running.ended()


async def tail(beside: Beside, *arguments: str) -> list[str]:
    async with command("audit", "tail", "--config", str(beside.config), *arguments) as running:
        assert await running.ended() == 0
        assert running.errors == []
        return running.lines


@contextlib.asynccontextmanager
async def following(beside: Beside, *arguments: str) -> AsyncIterator[Running]:
    """Once it follows: rows that are written from here on are news."""
    mark = f"begin-{os.urandom(4).hex()}"
    await beside.database.append_audit([row(method=mark)])
    arguments = ("audit", "tail", "--config", str(beside.config), "--follow", "-n", "1", *arguments)
    async with command(*arguments) as running:
        await eventually(lambda: mark in "".join(running.lines))
        yield running


def row(at: float = NOW, action: str = "denied", **fields: Any) -> AuditRow:
    return AuditRow(at, action, **{"connection_id": "c1", "user_id": "example|ann", "code": "FOREIGN_KEY", **fields})


async def emptied(beside: Beside, rows: Sequence[AuditRow]) -> None:
    connection = await asyncpg.connect(beside.engines.database_url)
    await connection.execute("delete from audit_log")
    await connection.close()
    await beside.database.append_audit(rows)


async def test_what_clients_wrote_cannot_talk_to_the_terminal(beside: Beside) -> None:
    await emptied(
        beside, [row(user_id=one, method=one, code=one, request_id=one, details={one: one}) for one in HOSTILE]
    )
    lines = await tail(beside)
    assert len(lines) == len(HOSTILE)
    for line in lines:
        assert line.isprintable(), ascii(line)
        unquoted = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        assert unquoted.split() == ["2027-01-15T08:00:00Z", "denied", "="]
    printed = await tail(beside, "--json")
    assert [json.loads(line)["user_id"] for line in printed] == HOSTILE
    assert all(line.isascii() and line.isprintable() for line in printed)


async def test_the_last_rows_as_people_read_them(beside: Beside) -> None:
    await emptied(
        beside,
        [
            row(method="chat.send", request_id="7"),
            row(NOW + 1, "as_admin", method="sessions.delete", code="ok"),
            row(NOW + 61, "token_rejected", user_id="", method="", code="expired", details={"issuer": "example"}),
        ],
    )
    assert [line.split() for line in await tail(beside)] == [
        ["2027-01-15T08:00:00Z", "example|ann", "denied", "chat.send", "FOREIGN_KEY"],
        ["2027-01-15T08:00:01Z", "example|ann", "as_admin", "sessions.delete", "ok"],
        ["2027-01-15T08:01:01Z", "-", "token_rejected", "-", "expired", "issuer=example"],
    ]
    (printed,) = await tail(beside, "--json", "--action", "denied")
    assert {**json.loads(printed), "id": 0} == {
        "id": 0,
        "at": "2027-01-15T08:00:00Z",
        "action": "denied",
        "connection_id": "c1",
        "user_id": "example|ann",
        "method": "chat.send",
        "code": "FOREIGN_KEY",
        "request_id": "7",
        "details": {},
    }


async def test_which_rows(beside: Beside) -> None:
    await emptied(
        beside, [row(NOW + number, user_id=f"example|{'ab'[number % 2]}", code=str(number)) for number in range(9)]
    )

    async def codes(*arguments: str) -> list[str]:
        return [line.split()[-1] for line in await tail(beside, *arguments)]

    assert await codes("-n", "3") == ["6", "7", "8"]
    assert await codes("-n", "0") == []
    assert await codes("--user", "example|b") == ["1", "3", "5", "7"]
    assert await codes("--user", "example|") == []
    assert await codes("--user", "example|a", "-n", "2") == ["6", "8"]
    assert await codes("--since", "2027-01-15T08:00:07") == ["7", "8"]
    assert await codes("--since", "2027-01-15T09:00:07+01:00") == ["7", "8"]
    assert await codes("--action", "as_admin") == []
    await beside.database.append_audit([row(_a_while_ago(1800), code="recent"), row(_a_while_ago(7200), code="older")])
    assert await codes("--since", "1h", "--user", "example|ann") == ["recent"]
    assert await codes("--since", "1d", "--user", "example|ann") == ["recent", "older"]


def _a_while_ago(seconds: float) -> float:
    return time.time() - seconds


@pytest.mark.parametrize(
    "wrong", [("--since", "soon"), ("--since", "1w"), ("-n", "-1"), ("-n", "x"), ("--action", "else"), ("--foll",)]
)
async def test_a_wrong_line(beside: Beside, wrong: tuple[str, ...]) -> None:
    async with command("audit", "tail", "--config", str(beside.config), *wrong) as running:
        assert await running.ended() == 2
    assert running.errors[0].startswith("usage: sidecar")


def test_every_action_that_is_written_can_be_asked_for() -> None:
    rows = [make(example(kind), NOW) for kind, make in ROWS.items()]
    assert {row.action for row in rows if row is not None} == {*ACTIONS}


async def test_it_follows_through_a_crash_of_the_database_and_ends_at_ctrl_c(beside: Beside) -> None:
    async with following(beside, "--user", "example|ann") as running:
        await beside.database.append_audit([row(code="one"), row(user_id="example|bob", code="not"), row(code="two")])
        await eventually(lambda: len(running.lines) == 3)
        restarts = beside.reports.states("postgres").count("restarted")
        os.kill(beside.engines.pids["postgres"], signal.SIGKILL)
        await eventually(lambda: beside.reports.states("postgres").count("restarted") > restarts)
        await beside.database.append_audit([row(code="three")])
        await eventually(lambda: len(running.lines) == 4)
        assert [line.split()[-1] for line in running.lines[1:]] == ["one", "two", "three"]
        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 130
    assert [line for line in running.errors if "waiting for the database" not in line and "is back" not in line] == []


async def test_it_says_once_that_it_waits(beside: Beside) -> None:
    """And goes on when the sidecar has been started again."""
    async with following(beside) as running:
        await beside.engines.stop()
        await eventually(lambda: running.errors != [])
        await asyncio.sleep(2.5)
        await beside.engines.start()
        await eventually(lambda: len(running.errors) > 1)
        await beside.database.append_audit([row(code="after")])
        await eventually(lambda: running.lines[-1].endswith("after"))
        assert len(running.lines) == 2
        assert [line.split(":")[1].split()[:3] for line in running.errors] == [
            ["waiting", "for", "the"],
            ["the", "database", "is"],
        ]


async def test_a_row_that_becomes_visible_behind_a_later_one_is_shown(beside: Beside) -> None:
    insert = "insert into audit_log (at, user_id, action, code) values (now(), 'example|ann', 'denied', $1)"
    slow = await asyncpg.connect(beside.engines.database_url)
    try:
        async with following(beside) as running:
            transaction = slow.transaction()
            await transaction.start()
            await slow.execute(insert, "first")
            await beside.database.append_audit([row(code="second")])
            await eventually(lambda: running.lines[-1].endswith("second"))
            await transaction.commit()
            await eventually(lambda: running.lines[-1].endswith("first"))
            await beside.database.append_audit([row(code="third")])
            await eventually(lambda: running.lines[-1].endswith("third"))
            assert [line.split()[-1] for line in running.lines[1:]] == ["second", "first", "third"]
    finally:
        await slow.close()


async def test_many_rows_at_once_are_each_shown_once(beside: Beside) -> None:
    news = Following(AuditQuery(user_id="example|many"))
    await news.begin(beside.database)
    seen = []
    for batch in range(3):
        await beside.database.append_audit(
            [
                row(user_id=f"example|{name}", code=f"{batch}-{number}")
                for number in range(4000)
                for name in ("many", "few")
            ]
        )
        seen += [stored.row.code async for rows in news.news(beside.database) for stored in rows]
    assert seen == [f"{batch}-{number}" for batch in range(3) for number in range(4000)]
    assert len(news._seen) <= OVERLAP


async def test_where_nothing_runs_it_says_so_and_touches_nothing(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text(to_toml(good(storage={"data_dir": str(tmp_path / "data")})))
    for follow in ((), ("--follow",)):
        async with command("audit", "tail", "--config", str(config), *follow) as running:
            assert await running.ended() == 1
        assert running.lines == []
        (error,) = running.errors
        assert error.startswith(
            f"sidecar: no sidecar with an embedded database runs on the data folder {tmp_path / 'data'}; "
        )
    assert not (tmp_path / "data").exists()


async def test_a_server_of_ones_own(beside: Beside, tmp_path: Path) -> None:
    await beside.database.append_audit([row(code="by-url")])
    config = tmp_path / "sidecar.toml"
    config.write_text(to_toml(good(storage={"data_dir": str(tmp_path / "nothing"), "secret": "s" * 32})))
    url = beside.engines.database_url
    async with command(
        "audit", "tail", "--config", str(config), "-n", "1", SIDECAR_STORAGE__DATABASE_URL=url
    ) as running:
        assert await running.ended() == 0
    assert running.lines[0].endswith("by-url")
    async with command(
        "audit",
        "tail",
        "--config",
        str(config),
        SIDECAR_STORAGE__DATABASE_URL="postgresql://127.0.0.1:1/x?password=hush",
    ) as away:
        assert await away.ended() == 1
    assert len(away.errors) == 1
    assert away.errors[0].startswith("sidecar: PostgreSQL does not answer")
    assert "hush" not in away.errors[0]


async def test_a_reader_that_has_seen_enough_is_no_error(beside: Beside) -> None:
    async with command("audit", "tail", "--config", str(beside.config), "--follow") as running:
        transport = running.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        transport.close()
        await beside.database.append_audit([row(), row()])
        assert await running.ended() == 0
    assert running.errors == []
