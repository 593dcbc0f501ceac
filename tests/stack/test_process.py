"""Nothing that was started on a leash outlives whoever holds it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.stack.process import Process, StackError, bare_environment

ROOT = Path(__file__).parents[2]

FAMILY = """
import os, subprocess, sys, time
if {deaf}:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = "import os, time; os.setsid(); time.sleep(600)"
# The child's own parent ends at once, so that it is an orphan in a session of its own.
orphaner = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {{child!r}}], stdout=2).pid)"
orphan = subprocess.check_output([sys.executable, "-c", orphaner], text=True).strip()
direct = subprocess.Popen([sys.executable, "-c", child])
open("pids", "w").write(f"{{os.getpid()}} {{direct.pid}} {{orphan}} .")
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def eventually_gone(pids: list[int]) -> None:
    for _ in range(500):
        if not any(map(alive, pids)):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still there: {[pid for pid in pids if alive(pid)]}")


async def written_pids(folder: Path) -> list[int]:
    """Of the command, its child and its orphan, once all are there."""
    for _ in range(500):
        words = (folder / "pids").read_text().split() if (folder / "pids").exists() else []
        if words and words[-1] == ".":
            pids = [int(word) for word in words[:-1]]
            assert len(pids) == 3
            assert all(map(alive, pids))
            return pids
        await asyncio.sleep(0.02)
    raise AssertionError("the family did not start")


def family(folder: Path, *, deaf: bool = False) -> Process:
    command = [sys.executable, "-c", FAMILY.format(deaf=deaf)]
    return Process.start(command, env=bare_environment(folder), cwd=folder)


async def test_stop_takes_orphans_along(tmp_path: Path) -> None:
    process = family(tmp_path)
    pids = await written_pids(tmp_path)
    assert process.pid == pids[0]
    assert await process.stop(5) == 128 + signal.SIGTERM
    await eventually_gone(pids)
    assert process.returncode == 128 + signal.SIGTERM


async def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    process = family(tmp_path, deaf=True)
    pids = await written_pids(tmp_path)
    assert await process.stop(0.2) == 128 + signal.SIGKILL
    await eventually_gone(pids)


async def test_kill_takes_orphans_along(tmp_path: Path) -> None:
    process = family(tmp_path, deaf=True)
    pids = await written_pids(tmp_path)
    assert await process.kill() == 128 + signal.SIGKILL
    await eventually_gone(pids)


async def test_what_a_command_leaves_behind_goes_when_it_ends(tmp_path: Path) -> None:
    process = family(tmp_path)
    pids = await written_pids(tmp_path)
    os.kill(pids[0], signal.SIGKILL)
    assert await process.wait(5) == 128 + signal.SIGKILL
    await eventually_gone(pids)


async def test_the_command_goes_with_its_leash(tmp_path: Path) -> None:
    process = Process.start(
        [sys.executable, "-c", "import time; time.sleep(600)"], env=bare_environment(tmp_path), cwd=tmp_path
    )
    assert alive(process.pid)
    process._popen.kill()
    await eventually_gone([process.pid])
    await process.wait(5)


async def test_all_go_when_the_holder_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from tests.stack.process import Process, bare_environment
        folder = Path({str(tmp_path)!r})
        command = [sys.executable, "-c", {FAMILY.format(deaf=True)!r}]
        process = Process.start(command, env=bare_environment(folder), cwd=folder)
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as holder:
        try:
            pids = await written_pids(tmp_path)
        finally:
            holder.kill()
    await eventually_gone(pids)


async def test_exit_status_and_output_pass_through(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        process = Process.start(
            [sys.executable, "-c", "import sys; print('said'); sys.exit(7)"],
            env=bare_environment(tmp_path),
            cwd=tmp_path,
            stdout=out,
        )
        assert await process.wait(5) == 7
    assert (tmp_path / "out").read_text() == "said\n"
    assert await process.stop() == 7
    assert await process.kill() == 7


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no-such-command could not be started"):
        Process.start(
            [str(tmp_path / "no-such-command")], env=bare_environment(tmp_path), cwd=tmp_path, stderr=subprocess.DEVNULL
        )


def test_bare_environment_hides_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENCLAW_GATEWAY_TOKEN", "mine")
    env = bare_environment(tmp_path, EXTRA="1")
    assert env["HOME"] == str(tmp_path)
    assert env["EXTRA"] == "1"
    assert "PATH" in env
    assert "OPENCLAW_GATEWAY_TOKEN" not in env
