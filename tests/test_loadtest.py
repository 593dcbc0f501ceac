"""The benchmark runs from end to end. Its client checks every event: as many as were sent, in order, none of anybody else's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest import nginx
from loadtest.events import Maker, StreamOrder, stream
from loadtest.measure import QUICK
from loadtest.targets import COALESCED, DIRECT, NGINX, PARSED, SIDECAR
from loadtest.wire import Intake, frames_in
from tests.stack.process import Process, bare_environment

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(400)
async def test_a_little_of_everything(tmp_path: Path) -> None:
    await nginx.installed()
    command = [sys.executable, "-m", "loadtest", "--quick", "--results", str(tmp_path / "results")]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = Process.start(
            command, env=bare_environment(tmp_path), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            status = await process.wait(150)
        finally:
            await process.kill()
    assert status == 0, log.read_text()
    (path,) = (tmp_path / "results").glob("*.json")
    rows = json.loads(path.read_text())["rows"]
    relayed = {(row["case"], row["target"]): row["events"] for row in rows if row["case"].startswith("relay")}
    targets = {DIRECT, NGINX, COALESCED, PARSED, SIDECAR}
    assert relayed == {(f"relay {size} B", one): events for size, events in QUICK.events.items() for one in targets}
    assert {row["case"] for row in rows if row["target"] == SIDECAR} >= {"many users", "connect", "idle", "round trip"}
    assert all(row["cpu"] > 0 for row in rows if "cpu" in row and row["target"] != DIRECT)


def test_a_target_that_is_unknown_is_refused() -> None:
    command = [sys.executable, "-m", "loadtest", "--without", "sidecar"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "invalid choice: 'sidecar'" in done.stderr


@pytest.mark.parametrize("at", [-1, -20, -200, -330])
def test_a_run_is_over_when_all_of_its_last_event_is_here(at: int) -> None:
    frames = b"".join(stream("u-b", "run", StreamOrder(3, 400), seq=0))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        intake = Intake(ours, b"")
        theirs.sendall(frames[:at])
        assert not intake.step()
        theirs.sendall(frames[at:])
        assert intake.step()
        assert len(list(intake.frames())) == 4


def test_events_have_the_size_and_the_numbers_that_were_ordered() -> None:
    for event in ("chat", "agent"):
        frames = bytearray(b"".join(stream("u-b", "run", StreamOrder(120, 400, event, foreign=True), seq=95)))
        payloads = [bytes(frames[begin:end]) for begin, end in frames_in(frames)]
        assert {len(payload) for payload in payloads[:-1]} == {400}
        parsed = [json.loads(payload) for payload in payloads]
        assert [one["seq"] for one in parsed] == list(range(96, 96 + 241))
        assert [one["payload"]["agentId"] for one in parsed] == ["u-x", "u-b"] * 120 + ["u-b"]
        assert parsed[0].keys() == {"type", "event", "payload", "seq", "recipientProfileId"}
        assert json.loads(Maker("u-b", "run", 400, event).final(1, 2))["payload"]["state"] == "final"
