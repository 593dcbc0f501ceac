"""Where `make demo` keeps its state between runs, and the ports that it takes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.stack.process import StackError, free_port

FOLDER = Path(__file__).resolve().parents[2] / "var" / "demo"


def folder_of(base: Path, gateway_url: str) -> Path:
    """One per gateway: what is known of its users is of no use beside another. Empty: the demo's own gateway."""
    if not gateway_url:
        return base
    return base / f"gateway-{hashlib.sha256(gateway_url.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder; the kernel gives it back however we end. Raises StackError where another demo holds it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "demo.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackError(
                f"a demo runs already on {folder} (process {lock.read().strip() or 'unknown'}): its lines are in "
                f"{folder / 'try.txt'}; end it with Ctrl-C there, or end that process"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def port_or_free(wanted: int) -> int:
    """`wanted` if nobody listens there, else any free one."""
    return wanted if _is_free(wanted) else free_port()


def forget_taken_port(config: Path) -> None:
    """A gateway keeps its port in its configuration; where somebody else has it now, let it choose again."""
    if not config.exists():
        return
    kept = json.loads(config.read_text())
    port = kept.get("gateway", {}).get("port")
    if port and not _is_free(port):
        del kept["gateway"]["port"]
        config.write_text(json.dumps(kept, indent=2))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connections only wait for their end is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
