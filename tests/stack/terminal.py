"""A program in a terminal, and what a person in front of it sees: a pseudo-terminal, with pyte as its screen."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pyte

from tests.stack.process import Process, StackError

COLUMNS, LINES = 120, 44
READ_BYTES = 1 << 16
PATIENCE_S = 60.0
KEYS: Mapping[str, str] = {"enter": "\r", "escape": "\x1b", "up": "\x1b[A", "down": "\x1b[B", "ctrl-c": "\x03"}

_UNKNOWN = re.compile(r"\x1b\[[<=>][0-9;]*[@-~]|\x1b\[\?[0-9;]*u|\x1b[_P^][^\x07\x1b]*(?:\x07|\x1b\\)")
"""Keyboard protocols and strings to the terminal itself: pyte (0.8.2) would print parts of them."""

_BEGUN = re.compile(r"\x1b(?:\[[<=>?][0-9;]*|[_P^][^\x07\x1b]*\x1b?)?\Z")
"""What may become one of them with the next bytes."""


class Terminal:
    """`async with Terminal(command, env, cwd) as terminal:`; the program and all that it started end with it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self.raw = ""
        """All that the program wrote."""
        self.seen: dict[str, None] = {}
        """Every line that ever stood on the screen, oldest first."""
        self._command = command
        self._env = {"TERM": "xterm-256color", **env}
        self._cwd = cwd
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = ""
        self._changed = asyncio.Event()
        self._master = -1
        self._process: Process | None = None

    @property
    def screen(self) -> str:
        """What stands there now, line by line."""
        return "\n".join(line.rstrip() for line in self._screen.display).strip("\n")

    @property
    def text(self) -> str:
        """The screen with each gap as one blank, so that it does not matter where lines break."""
        return " ".join(self.screen.split())

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def __aenter__(self) -> Terminal:
        self._master, theirs = pty.openpty()
        try:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            self._process = Process.start(
                self._command, env=self._env, cwd=self._cwd, stdin=theirs, stdout=theirs, stderr=theirs
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(self._master, False)
        asyncio.get_running_loop().add_reader(self._master, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            await self._process.kill()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)

    async def type(self, text: str) -> None:
        """As somebody types it, without Enter. Raises TimeoutError when the program takes no input."""
        waiting = text.encode()
        async with asyncio.timeout(10):
            while waiting:
                with contextlib.suppress(BlockingIOError):
                    waiting = waiting[os.write(self._master, waiting) :]
                await asyncio.sleep(0.01)

    async def press(self, key: str) -> None:
        """One of KEYS."""
        await self.type(KEYS[key])

    async def enter(self, line: str) -> None:
        """Type a line, see it stand in the program's input, and send it."""
        before = self.text.count(line)
        await self.type(line)
        await self.wait_until(lambda shown: not line or shown.count(line) > before, what=f"to take {line!r}")
        await self.press("enter")

    async def wait_for(self, *texts: str, timeout: float = PATIENCE_S) -> str:
        """The screen that shows all the texts, wherever lines break. Raises StackError with what it shows instead."""
        return await self.wait_until(lambda shown: all(text in shown for text in texts), timeout, f"to show {texts}")

    async def wait_gone(self, text: str, *, timeout: float = PATIENCE_S) -> str:
        """The screen that does not show the text any more."""
        return await self.wait_until(lambda shown: text not in shown, timeout, f"to stop showing {text!r}")

    async def wait_until(
        self, holds: Callable[[str], bool], timeout: float = PATIENCE_S, what: str = "to change"
    ) -> str:
        """The screen whose text (see `text`) satisfies."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not holds(self.text):
                    self._changed.clear()
                    await self._changed.wait()
                return self.screen
        state = "it runs" if self.running else "it has ended"
        raise StackError(f"waited {timeout:.0f} s for the terminal {what}; {state}, and shows:\n{self.screen}")

    async def ended(self, timeout: float = 10) -> int:
        """The program's exit status. Raises StackError while it runs on."""
        status = None if self._process is None else await self._process.wait(timeout)
        if status is None:
            raise StackError(f"the program still runs after {timeout:.0f} s, and shows:\n{self.screen}")
        return status

    def _read(self) -> None:
        try:
            data = os.read(self._master, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # the program is gone, and with it the other side
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self._show(self._decoder.decode(data, final=not data))
        self._changed.set()

    def _show(self, text: str) -> None:
        self.raw += text
        known = _UNKNOWN.sub("", self._begun + text)
        begun = _BEGUN.search(known)
        self._begun = begun[0] if begun else ""
        self._stream.feed(known[: len(known) - len(self._begun)])
        self.seen.update(dict.fromkeys(line.rstrip() for line in self._screen.display))
