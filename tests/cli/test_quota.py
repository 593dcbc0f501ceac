"""`sidecar quota show|set|reset` beside a sidecar's engines."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.schema import migrate
from tests.settings.documents import good, to_toml
from tests.storage.engines import Reports
from tests.storage.test_postgres import environment


@pytest_asyncio.fixture(scope="module")
async def config(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    folder = tmp_path_factory.mktemp("quotas")
    file = folder / "sidecar.toml"
    file.write_text(to_toml(good(storage={"data_dir": str(folder / "data")})))
    async with EmbeddedEngines(folder / "data", Reports()) as engines:
        await migrate(engines.database_url)
        async with Database(DatabaseOptions(engines.database_url)) as database:
            await database.put_environment(environment("alice"))
            yield file


async def quota(config: Path, *words: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar.cli.main", "quota", *words, "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), errors.decode()


async def test_show_set_and_reset(config: Path) -> None:
    code, out, _ = await quota(config, "show", "example|alice")
    assert code == 0
    assert "daily_tokens                   100,000" in out
    assert await quota(config, "set", "example|alice", "daily_tokens", "2500") == (
        0, "daily_tokens of example|alice: 2,500\n", "",
    )  # fmt: skip
    code, out, _ = await quota(config, "show", "example|alice", "--json")
    assert json.loads(out)["daily_tokens"] == {"limit": 2500, "used": 0, "reserved": 0, "from": "own"}
    assert json.loads(out)["api_calls"]["limit"] is None
    assert (await quota(config, "set", "example|alice", "api_calls", "0"))[1].endswith("unlimited\n")
    assert (await quota(config, "reset", "example|alice", "daily_tokens"))[1].endswith("as the settings say\n")
    code, out, _ = await quota(config, "show", "example|alice", "--json")
    assert json.loads(out)["daily_tokens"]["from"] == "settings"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("show", "example|nobody"), 1, "nobody is known as 'example|nobody'"),
        (("set", "example|nobody", "daily_tokens", "1"), 1, "nobody is known"),
        (("set", "example|alice", "daily_tokens", "-1"), 2, "write a number"),
        (("set", "example|alice", "daily_tokens", "many"), 2, "write a number"),
        (("set", "example|alice", "daily_tokens", "nan"), 2, "write a number"),
        (("set", "example|alice", "concurrent_runs", "0.5"), 2, "whole number"),
        (("set", "example|alice", "weekly_tokens", "1"), 2, "weekly_tokens"),
        (("set", "example|alice", "daily_tokens"), 2, "LIMIT"),
    ],
)
async def test_what_cannot_be(config: Path, words: tuple[str, ...], code: int, told: str) -> None:
    ended, out, errors = await quota(config, *words)
    assert (ended, out) == (code, "")
    assert told in errors
