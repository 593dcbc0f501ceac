"""What a process holds, as Linux tells it: for counting before and after."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Holdings:
    """Counted at one moment."""

    sockets: int
    children: int
    threads: int


def holdings(pid: int) -> Holdings:
    """Of a running process. Raises FileNotFoundError where there is none."""
    return Holdings(sockets(pid), len(children(pid)), len(list(Path(f"/proc/{pid}/task").iterdir())))


def sockets(pid: int) -> int:
    """TCP sockets, listening ones included; those of the database and of Redis, whose number may vary, are not TCP here."""
    count = 0
    known = _tcp_inodes()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(descriptor.readlink()) in known
    return count


def _tcp_inodes() -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            found.add(f"socket:[{line.split()[9]}]")
    return found


def children(pid: int) -> list[int]:
    """Living children of all its threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in found if is_alive(child)]


def is_alive(pid: int) -> bool:
    """It runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


async def eventually(holds: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait until it holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)
