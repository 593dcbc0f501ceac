"""Runs one command and takes everything that it started down with it.

Standard library only; run by path, not imported:

    python -I leash.py FD command…

FD is one end of a socket pair. The command's process id is written to it once the command runs; from then
on its end of file means that whoever holds the other end is gone, `kill -9` included, and every descendant
is killed. SIGTERM is passed to the command; SIGUSR1 kills all descendants at once. When the command ends,
what it left behind is killed too, and its exit status becomes ours (128 + signal). If this process itself
is killed, the command gets SIGKILL (Linux).

A process group is not enough: the gateway's tools start sessions of their own. On Linux this process is
therefore the "child subreaper" of the whole tree, so that no orphan leaves it; elsewhere the process group
has to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SWEEPS = 200


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants(pid: int) -> Iterator[int]:
    """All living descendants of `pid`, parents first. Nothing where /proc has no `children`."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from descendants(int(child))


def kill_all(command: int) -> None:
    """Kill the tree, again and again until nothing new appears: a process may fork while we look."""
    for _ in range(SWEEPS):
        with contextlib.suppress(OSError):
            os.killpg(command, signal.SIGKILL)
        left = [pid for pid in descendants(os.getpid()) if not is_zombie(pid)]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            return
        select.select([], [], [], 0.01)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def reap(command: int) -> int | None:
    """The command's exit status once it has ended; orphans that came to us are reaped on the way."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 255
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None


def watch(command: int, lifeline: socket.socket, wakeup: socket.socket) -> int:
    while True:
        status = reap(command)
        if status is not None:
            return status
        readable, _, _ = select.select([lifeline, wakeup], [], [])
        if wakeup in readable:
            arrived = wakeup.recv(64)
            if signal.SIGUSR1 in arrived:
                return 128 + signal.SIGKILL
            if signal.SIGTERM in arrived:
                with contextlib.suppress(OSError):
                    os.kill(command, signal.SIGTERM)
        if lifeline in readable and not lifeline.recv(64):
            return 128 + signal.SIGKILL


def main(descriptor: int, command: list[str]) -> int:
    lifeline = socket.socket(fileno=descriptor)
    lifeline.set_inheritable(False)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wakeup, writer = socket.socketpair()
    writer.setblocking(False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    child = subprocess.Popen(
        command,
        process_group=0,
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    lifeline.sendall(b"%d\n" % child.pid)
    status = watch(child.pid, lifeline, wakeup)
    kill_all(child.pid)
    return status


if __name__ == "__main__":
    # The command was reaped by hand, so Popen's own finaliser has nothing to do.
    os._exit(main(int(sys.argv[1]), sys.argv[2:]))
