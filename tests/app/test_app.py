"""`sidecar run` around the rooms: what it says when it cannot start, when nobody is behind it, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from sidecar.errors import EngineError
from sidecar.storage.seal import load_seal
from tests.stack.process import free_port

CONFIG = """
[server]
port = {port}
metrics_port = {metrics_port}
public_url = "http://127.0.0.1:{port}"
[storage]
data_dir = "{data_dir}"
[environments]
root = "{root}"
[[gateways]]
url = "ws://127.0.0.1:{nobody}"
password = "nobody-listens-there"
[[identity.issuers]]
name = "example"
issuer = "http://127.0.0.1:{nobody}/"
"""


class Run:
    """One `sidecar run`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, metrics_port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self.ready_url = f"http://127.0.0.1:{metrics_port}/readyz"

    async def ended(self) -> tuple[int, str]:
        async with asyncio.timeout(60):
            _, errors = await self.process.communicate()
        return self.process.returncode or 0, errors.decode()

    async def until_listening(self) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            line = await self.process.stdout.readline()
        assert b"listens on" in line


@asynccontextmanager
async def running(folder: Path, data_dir: Path, port: int = 0) -> AsyncIterator[Run]:
    port, metrics_port = port or free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "sidecar.toml"
    config.write_text(
        CONFIG.format(
            port=port, metrics_port=metrics_port, data_dir=data_dir, root=folder / "users", nobody=free_port()
        )
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar.cli.main", "run", "--config", str(config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")},
    )  # fmt: skip
    try:
        yield Run(process, port, metrics_port)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_without_anybody_behind_it_is_alive_but_not_ready_and_says_why(tmp_path: Path) -> None:
    async with running(tmp_path, tmp_path / "data") as run, aiohttp.ClientSession() as session:
        await run.until_listening()
        async with session.get(run.url + "/healthz") as alive:
            assert (alive.status, await alive.json()) == (200, {"ok": True})
        async with session.get(run.url + "/readyz") as ready:
            body = await ready.json()
            assert ready.status == 503
        works = {"postgres": True, "redis": True, "issuers": False, "gateways": False}
        assert body == {"ready": False, "checks": {name: {"ok": ok} for name, ok in works.items()}}
        async with session.get(run.ready_url) as explained:
            checks = (await explained.json())["checks"]
            assert explained.status == 503
        assert {name for name, check in checks.items() if check["ok"]} == {"postgres", "redis"}
        assert checks["quotas:main"]["why"] == (
            "model calls are not collected; quotas are decided by on_redis_failure (closed)"
        )
        assert checks["issuers"]["why"]
        assert checks["gateways"]["why"].startswith("away: the gateway does not answer")
        async with session.get(run.metrics_url) as metrics:
            assert "openclaw_sidecar_" in await metrics.text()
        async with session.get(run.url + "/") as page:
            assert page.status == 426
            assert (await page.json())["error"]["details"]["code"] == "UPGRADE_REQUIRED"
        run.process.send_signal(signal.SIGINT)
        status, errors = await run.ended()
        assert status == 0
        assert "Traceback" not in errors


async def test_two_on_one_data_folder(tmp_path: Path) -> None:
    async with running(tmp_path / "one", tmp_path / "data") as first:
        await first.until_listening()
        async with running(tmp_path / "two", tmp_path / "data") as second:
            status, errors = await second.ended()
        assert status == 1
        assert f"in use by another sidecar (pid {first.process.pid})" in errors
        assert "storage.data_dir" in errors


async def test_a_taken_port(tmp_path: Path) -> None:
    async with running(tmp_path / "one", tmp_path / "data") as first:
        await first.until_listening()
        port = int(first.url.rsplit(":", 1)[1])
        async with running(tmp_path / "two", tmp_path / "data2", port) as second:
            status, errors = await second.ended()
        assert status == 1
        assert f"cannot listen on 127.0.0.1:{port}" in errors


def test_the_seal_is_made_once_and_kept_private(tmp_path: Path) -> None:
    made = load_seal(tmp_path / "data", "")
    assert len(made) >= 32
    assert load_seal(tmp_path / "data", "") == made
    assert load_seal(tmp_path / "other", "") != made
    kept = tmp_path / "data" / "secret"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in kept.parent.iterdir()] == ["secret"]


def test_a_configured_seal_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    assert load_seal(tmp_path / "data", "s" * 32) == b"s" * 32
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("content", ["", "short"])
def test_a_broken_seal_is_not_replaced(tmp_path: Path, content: str) -> None:
    """Another secret would make every user another device to the gateway: the operator decides."""
    (tmp_path / "secret").write_text(content)
    with pytest.raises(EngineError, match="restore it"):
        load_seal(tmp_path, "")
    assert (tmp_path / "secret").read_text() == content


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"set storage\.secret"):
        load_seal(tmp_path / "file", "")
