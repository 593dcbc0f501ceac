"""Another process finds the engines of a running sidecar, and neither a dead one's nor an impostor's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from sidecar.errors import EngineError
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.engines.running import running_database_url, running_redis_url
from tests.storage.engines import Reports

ROOT = Path(__file__).parents[2]


async def answers(data_dir: Path) -> tuple[str, bool]:
    """What the engines that were found say of themselves."""
    connection = await asyncpg.connect(running_database_url(data_dir))
    name = await connection.fetchval("show cluster_name")
    await connection.close()
    async with Redis.from_url(running_redis_url(data_dir)) as client:
        return name, await client.ping()


async def test_they_are_found_while_they_run_and_only_then(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=f"no sidecar .* runs on the data folder {tmp_path / 'data'};"):
        running_database_url(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    reports = Reports()
    async with EmbeddedEngines(tmp_path / "data", reports):
        before = (tmp_path / "data" / "sidecar.lock").read_text()
        assert await answers(tmp_path / "data") == ("openclaw-sidecar", True)
        assert (tmp_path / "data" / "sidecar.lock").read_text() == before
        with pytest.raises(EngineError, match="in use by another sidecar"):
            async with EmbeddedEngines(tmp_path / "data", reports):
                pass
    for find in (running_database_url, running_redis_url):
        with pytest.raises(EngineError, match="no sidecar"):
            find(tmp_path / "data")
    assert {state for _, state, _ in reports} == {"up"}


async def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedEngines(tmp_path / "data", Reports()):
        monkeypatch.chdir(tmp_path)
        assert await answers(Path("data")) == ("openclaw-sidecar", True)


async def test_sockets_that_had_to_go_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    async with EmbeddedEngines(deep, Reports()):
        assert (deep / "run-elsewhere").exists()
        assert await answers(deep) == ("openclaw-sidecar", True)
    with pytest.raises(EngineError, match="no sidecar"):
        running_database_url(deep)


async def test_after_a_kill_there_is_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.storage.holder", str(tmp_path / "data")]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    while not (line := (await process.stdout.readline()).decode()).startswith("{"):
        assert line
    assert await answers(tmp_path / "data") == ("openclaw-sidecar", True)
    pids = json.loads(line)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with asyncio.timeout(30):
        while any(Path(f"/proc/{pid}/exe").exists() for pid in pids.values()):
            await asyncio.sleep(0.05)
    with pytest.raises(EngineError, match="no sidecar"):
        running_database_url(tmp_path / "data")


def listening(folder: Path) -> socket.socket:
    impostor = socket.socket(socket.AF_UNIX)
    impostor.bind(str(folder / ".s.PGSQL.5432"))
    impostor.listen()
    return impostor


@pytest.mark.parametrize("how", ["open to others", "a link", "not a folder", "somebody else's"])
def test_a_folder_elsewhere_that_is_not_ours_alone_is_passed_over(tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    (data / "run").mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="openclaw-") as made:
        far = Path(made)
        with listening(far):
            named = far
            if how == "open to others":
                far.chmod(0o711)
            elif how == "a link":
                named = tmp_path / "link"
                named.symlink_to(far)
            elif how == "not a folder":
                named = far / ".s.PGSQL.5432"
            else:
                _owned_by_another(far, data / "run")
            (data / "run-elsewhere").write_text(str(named))
            with pytest.raises(EngineError, match="no sidecar"):
                running_database_url(data)
            (data / "run-elsewhere").write_text(str(far))
            far.chmod(0o700)
            if how != "somebody else's":
                assert "postgres" in running_database_url(data), "it would have been found"


def _owned_by_another(far: Path, near: Path) -> None:
    """Only root gives a folder away; anybody else has another's at hand."""
    if os.geteuid() == 0:
        os.chown(far, 12345, 12345)
    else:
        near.rmdir()
        near.symlink_to("/")


def test_who_may_not_look_is_told_whom_to_be(tmp_path: Path) -> None:
    """As another user, where we can be one; else as ourselves, before a closed folder."""
    data = Path(tempfile.mkdtemp(prefix="openclaw-"))
    try:
        (data / "run").mkdir()
        with listening(data / "run"):
            data.chmod(0o711)
            (data / "run").chmod(0o700 if os.geteuid() == 0 else 0o000)
            program = (
                "import sys; from pathlib import Path\n"
                "from sidecar.storage.engines.running import running_database_url as find\n"
                "from sidecar.errors import EngineError\n"
                "import os\n"
                "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
                "try: find(Path(sys.argv[1]))\n"
                "except EngineError as error: print(error.message)\n"
            )
            done = subprocess.run(
                [sys.executable, "-c", program, str(data)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert "only to the user that runs the sidecar; run this as that user, or as root" in done.stdout, done
    finally:
        (data / "run").chmod(0o700)
        subprocess.run(["rm", "-r", str(data)], check=True)
