"""`Spool`: where lines wait on disk while PostgreSQL is away. What was appended is there after a `kill -9`, and after a power cut.

One folder, a file for each process that uses it:

    <folder>/0.spool      held by an exclusive lock as long as its process lives; the kernel gives the lock back
    <folder>/1.spool      of a second replica on the same disk; if that one died, ours by its lock, to be read to its end

A line is one JSON text. The last one may be torn by a crash, and then it was never promised to anybody.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sidecar.errors import EngineError

MOST_FILES = 16


@dataclass(slots=True)
class _File:
    path: Path
    descriptor: int
    size: int


class Spool:
    """Blocks while it writes: call `append` and `settle` in a thread. One caller at a time."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raises EngineError where the folder cannot be used."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._files: list[_File] = []
        """The first is written to; the others were left by processes that died."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._files = list(self._lockable())
        except OSError as error:
            self.close()
            raise EngineError(
                f"the spool {folder} cannot be used: {error.strerror}; free or mend that folder"
            ) from None
        if not self._files:
            raise EngineError(
                f"the spool {folder} is in use by {MOST_FILES} other processes; give this one a data_dir of its own"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the files back; what is in them stays."""
        for file in self._files:
            os.close(file.descriptor)
        self._files = []

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(file.size for file in self._files)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the lines for good, all or none. Raises OverflowError where there is no room, on the disk or by `max_bytes`."""
        file = self._files[0]
        data = b"".join(line + b"\n" for line in lines)
        if self.size + len(data) > self._max_bytes:
            raise OverflowError("the spool is full")
        try:
            _write_all(file, data)
            os.fsync(file.descriptor)
        except OSError:
            os.ftruncate(file.descriptor, file.size)
            raise OverflowError("the disk of the spool takes no more") from None
        file.size += len(data)

    def batches(self, most: int) -> Iterator[list[bytes]]:
        """Everything that waits, so many lines at a time, in the order in which each process wrote it."""
        for file in reversed(self._files):
            with open(file.descriptor, "rb", closefd=False) as whole:
                whole.seek(0)
                while lines := list(itertools.islice(whole, most)):
                    yield [line[:-1] for line in lines]

    def settle(self) -> None:
        """All that waited is elsewhere now: empty the files."""
        for file in self._files:
            os.ftruncate(file.descriptor, 0)
            os.fsync(file.descriptor)
            file.size = 0

    def _lockable(self) -> Iterator[_File]:
        """A file to write to, and those that others left."""
        mine = False
        for number in range(MOST_FILES):
            path = self._folder / f"{number}.spool"
            if mine and not path.exists():
                return
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            file = _File(path, descriptor, 0)
            whole = sum(len(line) + 1 for line in _lines(file))
            os.ftruncate(descriptor, whole)  # behind it a line may be torn
            file.size = whole
            mine = True
            yield file


def _lines(file: _File) -> list[bytes]:
    """Whole ones only."""
    data = os.pread(file.descriptor, os.fstat(file.descriptor).st_size, 0)
    return data.split(b"\n")[:-1]


def _write_all(file: _File, data: bytes) -> None:
    at = file.size
    view = memoryview(data)
    while view:
        written = os.pwrite(file.descriptor, view, at)
        at += written
        view = view[written:]
