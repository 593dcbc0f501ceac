"""Starting a child that cannot outlive us, waiting for its end, and finding those that did."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sidecar.errors import EngineError

_LAUNCH = Path(__file__).with_name("launch.py")
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_LEFTOVER_GRACE = 3.0
_LEFTOVER_POLL = 0.05


@dataclass(frozen=True, slots=True)
class RunAs:
    """Whom the engines run as. `identity` is a word for `launch.py`; `uid` and `gid` own their files."""

    identity: str
    uid: int
    gid: int


def choose_run_as(binary: Path) -> RunAs:
    """Pick the way to run `binary` as somebody with a name who is not root.

    An ordinary user stays who they are. Root, and a number without a name (containers), become a known number inside a
    user namespace; where those are not permitted, root becomes `nobody`.

    Raises:
        EngineError: none of it works here.
    """
    uid, gid = os.geteuid(), os.getegid()
    names = {entry.pw_uid: entry.pw_name for entry in pwd.getpwall()}
    if uid != 0 and uid in names:
        return RunAs("same", uid, gid)
    ways = [RunAs(f"map:{known}", uid, gid) for known in sorted(names) if known != 0][:1]
    if uid == 0:
        ways.append(run_as_nobody())
    for way in ways:
        if _works(way, binary):
            return way
    raise EngineError(
        f"{binary.name} does not run as root, and here neither in a user namespace nor as nobody; "
        "start the sidecar as an ordinary user, or set storage.database_url and storage.redis_url"
    )


def run_as_nobody() -> RunAs:
    """The fallback of root; needs a data folder and an installation that everybody may enter."""
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return RunAs("drop:65534:65534", 65534, 65534)
    return RunAs(f"drop:{nobody.pw_uid}:{nobody.pw_gid}", nobody.pw_uid, nobody.pw_gid)


def _works(way: RunAs, binary: Path) -> bool:
    command = _launch_command(way, signal.SIGKILL, [str(binary), "--version"])
    ended = subprocess.run(command, check=False, capture_output=True, env=_ENVIRONMENT)  # noqa: S603 — our own argv
    return ended.returncode == 0


def _launch_command(run_as: RunAs, death_signal: int, command: Sequence[str]) -> list[str]:
    python = [sys.executable, "-I", "-S", str(_LAUNCH)]
    return [*python, str(os.getpid()), str(int(death_signal)), run_as.identity, *command]


def spawn(command: Sequence[str], run_as: RunAs, death_signal: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own (Ctrl-C reaches us first) and with an environment without our secrets.

    The death signal follows the *thread* that calls this: call it from the one that lives as long as the process.
    """
    return subprocess.Popen(  # noqa: S603 — argv is ours, no shell
        _launch_command(run_as, death_signal, command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=_ENVIRONMENT,
        start_new_session=True,
    )


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a child of ours; its return code (negative: the signal)."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(process.pid)
    done = asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


async def end(process: subprocess.Popen[bytes], steps: Sequence[tuple[int, float]]) -> None:
    """End a child: each step is a signal and the seconds it may take; then SIGKILL. Nothing is left when it returns."""
    try:
        for number, seconds in steps:
            if process.poll() is not None:
                return
            process.send_signal(number)
            try:
                await asyncio.wait_for(ended(process), seconds)
            except TimeoutError:
                continue
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def sweep(binary: Path, folder: Path) -> None:
    """End what a killed predecessor left running on `folder`; the caller holds the data folder's lock.

    They have the death signal already, so they get a moment to finish on their own.
    """
    for _ in range(int(_LEFTOVER_GRACE / _LEFTOVER_POLL)):
        if not any(leftovers(binary, folder)):
            return
        await asyncio.sleep(_LEFTOVER_POLL)
    for pid in leftovers(binary, folder):
        _kill_if_still(pid, binary, folder)
    for _ in range(int(_LEFTOVER_GRACE / _LEFTOVER_POLL)):
        if not any(leftovers(binary, folder)):
            return
        await asyncio.sleep(_LEFTOVER_POLL)
    raise EngineError(f"a {binary.name} that another run left behind still works on {folder}; end it and start again")


def leftovers(binary: Path, folder: Path) -> Iterator[int]:
    """Processes that run a program of that name with `folder` as working directory, as both engines do."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and works_on(int(entry.name), binary, folder):
            yield int(entry.name)


def works_on(pid: int, binary: Path, folder: Path) -> bool:
    """Whether `pid` is such a process; False when it is gone or may not be looked at."""
    try:
        program = Path(f"/proc/{pid}/exe").readlink()
        place = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return program.name.removesuffix(" (deleted)") == binary.name and place == folder


def _kill_if_still(pid: int, binary: Path, folder: Path) -> None:
    """Hold the process before looking again, so that a reused number is never hit."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if works_on(pid, binary, folder):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
