"""How another process finds the engines that a running sidecar keeps in its data folder, without touching them."""

from __future__ import annotations

import contextlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from sidecar.errors import EngineError
from sidecar.storage.engines.postgres import database_url
from sidecar.storage.engines.valkey import redis_url

_SOCKET = ".s.PGSQL.5432"
_REDIS_SOCKET = "valkey.sock"


def running_database_url(data_dir: Path) -> str:
    """For asyncpg.

    Raises:
        EngineError: no sidecar runs on that folder, or it is somebody else's.
    """
    return database_url(_running(data_dir, _SOCKET))


def running_redis_url(data_dir: Path) -> str:
    """For redis-py. Raises EngineError, as `running_database_url`."""
    return redis_url(_running(data_dir, _REDIS_SOCKET))


def _running(data_dir: Path, name: str) -> Path:
    folder = data_dir.absolute()
    try:
        for sockets in _socket_folders(folder):
            if _listens(sockets / name):
                return sockets
    except PermissionError:
        raise EngineError(
            f"the database in {folder} is open only to the user that runs the sidecar; run this as that user, or as root"
        ) from None
    raise EngineError(
        f"no sidecar with an embedded database runs on the data folder {folder}; "
        "start it, or give this command the --config of the one that runs"
    )


def _socket_folders(folder: Path) -> Iterator[Path]:
    """Where `DataFolder.socket_folder` may have put them. One outside must be whose the inner one is, and closed to others."""
    near = folder / "run"
    yield near
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        far = Path((folder / "run-elsewhere").read_text(encoding="utf-8"))
        found = far.lstat()
        owned = stat.S_ISDIR(found.st_mode) and found.st_uid == near.stat().st_uid
        if owned and stat.S_IMODE(found.st_mode) == 0o700:
            yield far


def _listens(path: Path) -> bool:
    """Whether somebody answers there: a killed server leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as candidate:
        candidate.settimeout(3.0)
        try:
            candidate.connect(str(path))
        except PermissionError:
            raise
        except (TimeoutError, BlockingIOError):
            return True  # busy, or frozen: the database's own timeouts tell
        except OSError:
            return False
    return True
