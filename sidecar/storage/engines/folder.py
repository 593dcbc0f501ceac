"""The data folder: one sidecar at a time, and a place for sockets that is short and nobody else's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from sidecar.errors import EngineError
from sidecar.storage.engines.process import RunAs

_LOCK = "sidecar.lock"
_LONGEST_SOCKET = ".s.PGSQL.5432"


class DataFolder:
    """A folder held by an flock, which the kernel gives back however we end."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None
        self._elsewhere: Path | None = None

    def claim(self, run_as: RunAs) -> None:
        """Make the folder where it is missing, and hold it.

        Raises:
            EngineError: another sidecar holds it, or it cannot be written.
        """
        foreign = run_as.uid != os.geteuid()
        try:
            self.path.mkdir(mode=0o711 if foreign else 0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EngineError(
                f"the data folder {self.path} cannot be used ({error.strerror}); "
                "let storage.data_dir name a folder that the sidecar may write"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            self._unlock()
            raise EngineError(
                f"the data folder {self.path} is in use by another sidecar (pid {holder}); stop that one, "
                "give this one a storage.data_dir of its own, or let both use servers "
                "of yours by storage.database_url and storage.redis_url"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the folder back; harmless when it is not held."""
        if self._elsewhere is not None:
            shutil.rmtree(self._elsewhere, ignore_errors=True)
            self._elsewhere = None
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def private(self, name: str, run_as: RunAs) -> Path:
        """A folder below ours that only the engines (and root) may enter."""
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        _hand_over(folder, run_as)
        return folder

    def socket_folder(self, run_as: RunAs) -> Path:
        """`run` below the data folder, or a folder in the system's temporary one where the path is too long
        for a socket (107 bytes) or the file system has none. That one's random name is kept in
        `run-elsewhere`, so that kills leave one behind and not many.

        Raises:
            EngineError: neither place takes a socket.
        """
        near = self.private("run", run_as)
        if _takes_sockets(near):
            return near
        far = self._kept_elsewhere(run_as) or self._new_elsewhere(run_as)
        self._elsewhere = far
        if _takes_sockets(far):
            return far
        raise EngineError(
            f"neither {near} nor {far} can hold a Unix socket (at most 107 bytes of path); "
            "shorten storage.data_dir or set TMPDIR to a short path"
        )

    def _kept_elsewhere(self, run_as: RunAs) -> Path | None:
        """The one that a killed predecessor used, if it is still a folder of ours that nobody else can enter."""
        with contextlib.suppress(OSError):
            kept = Path((self.path / "run-elsewhere").read_text())
            found = kept.lstat()
            owned = stat.S_ISDIR(found.st_mode) and found.st_uid == run_as.uid
            if owned and stat.S_IMODE(found.st_mode) == 0o700:
                return kept
        return None

    def _new_elsewhere(self, run_as: RunAs) -> Path:
        far = Path(tempfile.mkdtemp(prefix="openclaw-"))
        _hand_over(far, run_as)
        note = self.path / "run-elsewhere"
        note.write_text(str(far))
        note.chmod(0o600)
        return far


def _hand_over(folder: Path, run_as: RunAs) -> None:
    if folder.stat().st_uid != run_as.uid:
        os.chown(folder, run_as.uid, run_as.gid)
    folder.chmod(0o700)


def _takes_sockets(folder: Path) -> bool:
    probe = folder / _LONGEST_SOCKET.replace(".s.", ".p.")
    probe.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as candidate:
        try:
            candidate.bind(str(probe))
        except OSError:
            return False
    probe.unlink()
    return True
