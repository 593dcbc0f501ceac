"""`make demo`: what it prints works when pasted, it says what is wrong, and nothing of it outlives it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.stack.demo_folder import alone, folder_of, forget_taken_port, port_or_free
from tests.stack.gateway import Gateway
from tests.stack.given_gateway import GivenGateway
from tests.stack.leash import descendants, is_zombie
from tests.stack.process import StackError, free_port

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a-secret-that-is-no-secret"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"GATEWAY_URL": "http://127.0.0.1:1", "GATEWAY_TOKEN": SECRET}, "WebSocket URL"),
        ({"GATEWAY_URL": "ws://10.0.0.1:1", "GATEWAY_TOKEN": SECRET}, "on this host"),
        ({"GATEWAY_URL": "ws://127.0.0.1:1"}, "GATEWAY_PASSWORD"),
        ({"GATEWAY_URL": "ws://127.0.0.1:1", "GATEWAY_TOKEN": SECRET, "GATEWAY_PASSWORD": SECRET}, "one secret"),
        ({"GATEWAY_URL": "ws://[::1]:1", "GATEWAY_TOKEN": SECRET, "GATEWAY_WORKSPACES": "here"}, "GATEWAY_WORKSPACES"),
    ],
)
def test_a_wrong_environment_is_named(environ: dict[str, str], named: str, tmp_path: Path) -> None:
    with pytest.raises(StackError) as told:
        GivenGateway.from_environment(environ, tmp_path)
    assert named in str(told.value)
    assert SECRET not in str(told.value)


def test_without_an_address_the_demo_has_a_gateway_of_its_own(tmp_path: Path) -> None:
    assert GivenGateway.from_environment({"GATEWAY_TOKEN": SECRET}, tmp_path) is None
    assert folder_of(tmp_path, "") == tmp_path
    assert folder_of(tmp_path, "ws://127.0.0.1:1") != folder_of(tmp_path, "ws://127.0.0.1:2")


async def test_a_gateway_that_is_away_is_named(tmp_path: Path) -> None:
    port = free_port()
    given = GivenGateway(f"ws://127.0.0.1:{port}", "", SECRET, "x-forwarded-user", tmp_path)
    with pytest.raises(StackError, match=f"cannot be reached.*{port}"):
        await given.check()


@pytest.mark.live
async def test_a_gateway_is_looked_at_before_it_is_used(gateway: Gateway, tmp_path: Path) -> None:
    fits = GivenGateway(gateway.url, "", gateway.password, "x-forwarded-user", tmp_path)
    assert await fits.check() == gateway.options.version
    with pytest.raises(StackError, match="refuses GATEWAY_PASSWORD") as told:
        await GivenGateway(gateway.url, "", SECRET, "x-forwarded-user", tmp_path).check()
    assert SECRET not in str(told.value)
    with pytest.raises(StackError, match="userHeader must be what GATEWAY_USER_HEADER says"):
        await GivenGateway(gateway.url, "", gateway.password, "x-somebody", tmp_path).check()


def test_one_demo_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(StackError, match=f"process {os.getpid()}"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_left_alone(taken: int) -> None:
    assert port_or_free(taken) != taken
    free = free_port()
    assert port_or_free(free) == free


def test_a_gateway_whose_port_was_taken_chooses_again(taken: int, tmp_path: Path) -> None:
    config = tmp_path / "openclaw.json"
    forget_taken_port(config)
    assert not config.exists()
    config.write_text(json.dumps({"gateway": {"port": taken, "bind": "loopback"}}))
    forget_taken_port(config)
    assert json.loads(config.read_text()) == {"gateway": {"bind": "loopback"}}


def test_a_gateway_keeps_a_port_that_is_free(tmp_path: Path) -> None:
    config = tmp_path / "openclaw.json"
    written = {"gateway": {"port": free_port()}}
    config.write_text(json.dumps(written))
    forget_taken_port(config)
    assert json.loads(config.read_text()) == written


@pytest.mark.live
async def test_it_shows_two_people_and_ends_with_all_of_it(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        for user in ("alice", "bob"):
            assert (
                f"{user} was answered 'hello, I am {user}'; the session, which the next run finds again, holds 2"
                in log(tmp_path)
            )
        for line, status, said in (
            ("gateway call sessions.list", 0, "agent:u-alice:main"),
            ("gateway call chat.history", 1, "that agent is not yours"),
            ("chat.py", 0, "hello from Python"),
            ("/api/openclaw/quota", 0, '"limit": 100000'),
            ("quota set", 0, "daily_tokens of example|alice: 500,000"),
            ("usage report", 0, "example|alice"),
            ("/readyz", 0, '"ready": true'),
            ("/metrics", 0, "openclaw_sidecar_runs_admitted_total"),
        ):
            finished = await pasted(tmp_path, line)
            assert finished.returncode == status, finished
            assert said in finished.stdout + finished.stderr
            assert 'agent:u-bob:main"' not in finished.stdout
        second = await asyncio.to_thread(start_demo(tmp_path, tmp_path / "second.log").wait, 60)
        assert second == 1
        assert f"process {process.pid}" in (tmp_path / "second.log").read_text()
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 60) == 0
    async with demo(tmp_path) as process:
        assert "holds 6 messages" in log(tmp_path)
        process.kill()


@asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Past its last line; whatever the test did to it, nothing may be left behind."""
    process = start_demo(folder, folder / "demo.log")
    family: list[int] = []
    try:
        async with asyncio.timeout(150):
            while "ready; Ctrl-C" not in log(folder):
                assert process.poll() is None, log(folder)
                await asyncio.sleep(0.2)
        family = list(descendants(process.pid))
        assert len(family) >= 6
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    async with asyncio.timeout(20):
        while [pid for pid in family if not is_zombie(pid)]:
            await asyncio.sleep(0.1)


def start_demo(folder: Path, output: Path) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = [sys.executable, "-m", "tests.stack.demo", "--folder", str(folder / "state")]
    with output.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=file, stderr=subprocess.STDOUT)


def log(folder: Path) -> str:
    return (folder / "demo.log").read_text()


async def pasted(folder: Path, part: str) -> subprocess.CompletedProcess[str]:
    """Run the printed line that holds `part`, as somebody who has an OpenClaw of their own."""
    line = next(line for line in log(folder).splitlines() if part in line and line.startswith(("(", "curl", "/")))
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "OPENCLAW_GATEWAY_PASSWORD": SECRET}
    return await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", line],
        cwd="/",
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
