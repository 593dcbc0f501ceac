"""Child processes that never outlive this one, not even its `kill -9`. See `leash.py` for how.

`subprocess.Popen` on purpose: uvloop's subprocesses know neither process groups nor pre-exec hooks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

LEASH = Path(__file__).with_name("leash.py")
POLL_S = 0.02


class StackError(RuntimeError):
    """Something of the stack cannot be installed or started; the message says why, with the log's tail."""


class Process:
    """One command on a leash, in a session of its own (Ctrl-C in a terminal does not reach it)."""

    def __init__(self, popen: subprocess.Popen[bytes], lifeline: socket.socket, pid: int) -> None:
        self._popen = popen
        self._lifeline = lifeline
        self.pid = pid
        """The command itself, not the leash."""

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        hold: Sequence[int] = (),
    ) -> Process:
        """Blocks for some 30 ms. Raises StackError when the command cannot be run at all.

        `hold`: descriptors that stay open until the last descendant is gone, whatever happens to us: a lock's, say.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), str(theirs.fileno()), *command],
                env=dict(env),
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=[theirs.fileno(), *hold],
                start_new_session=True,
            )
        ours.settimeout(10)
        try:
            pid = int(ours.recv(32))
        except (OSError, ValueError) as error:
            ours.close()
            popen.kill()
            popen.wait()
            raise StackError(f"{command[0]} could not be started") from error
        return cls(popen, ours, pid)

    @property
    def stdin(self) -> IO[bytes] | None:
        return self._popen.stdin

    def take_stdout(self) -> IO[bytes]:
        """The reading end of a piped stdout, for the caller to close."""
        stdout, self._popen.stdout = self._popen.stdout, None
        if stdout is None:
            raise StackError("stdout is no pipe, or was taken already")
        return stdout

    @property
    def returncode(self) -> int | None:
        """None while it runs; 128 + n when signal n ended it."""
        return self._popen.poll()

    async def wait(self, timeout: float) -> int | None:
        """The exit status, or None when it still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._popen.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        return self._release()

    async def stop(self, grace: float = 5.0) -> int:
        """SIGTERM, `grace` seconds, then SIGKILL for the command and all that it started."""
        self._signal(signal.SIGTERM)
        status = await self.wait(grace)
        return await self.kill() if status is None else status

    async def kill(self) -> int:
        """SIGKILL at once, for the command and all that it started."""
        self._signal(signal.SIGUSR1)
        status = await self.wait(5)
        if status is None:
            # A leash that does not answer: its death is the command's.
            self._popen.kill()
            status = await asyncio.to_thread(self._popen.wait)
        self._release()
        return status

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def _release(self) -> int | None:
        status = self._popen.poll()
        if status is not None:
            self._lifeline.close()
            for stream in (self._popen.stdin, self._popen.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        return status


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now; whoever listens on it should do so soon."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def bare_environment(home: Path, **extra: str) -> dict[str, str]:
    """An environment without this user's home, tokens or gateway settings."""
    kept = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"HOME": str(home)} | extra


def tail(path: Path, lines: int = 30) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
