"""A terminal shows what a person would see, and leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.stack.proc import eventually, is_alive
from tests.stack.process import StackError, bare_environment
from tests.stack.terminal import COLUMNS, LINES, Terminal

ASKING = """
import os, shutil, sys
print("size", *shutil.get_terminal_size(), sys.stdin.isatty(), os.environ["TERM"])
print("name? ", end="", flush=True)
name = input()
print("\\x1b[2J\\x1b[H\\x1b[>7u\\x1b[?u\\x1b_secret\\x1b\\\\good \\x1b[31mday\\x1b[0m", name)
print("é" * 10, "word " * 40)
sys.exit(3)
"""


def python(program: str, folder: Path) -> Terminal:
    return Terminal([sys.executable, "-c", program], bare_environment(folder), folder)


async def test_what_a_person_sees(tmp_path: Path) -> None:
    async with python(ASKING, tmp_path) as terminal:
        shown = await terminal.wait_for("name?")
        assert shown.splitlines() == [f"size {COLUMNS} {LINES} True xterm-256color", "name?"]
        await terminal.enter("alice")
        shown = await terminal.wait_for("word word " * 15)
        assert await terminal.ended() == 3
    first, second, *_ = shown.splitlines()
    assert first == "good day alice", "the screen was cleared, and what is for the terminal alone is not shown"
    assert second.startswith("é" * 10)
    assert f"size {COLUMNS} {LINES} True xterm-256color" in terminal.seen
    assert "secret" in terminal.raw


async def test_a_sequence_in_pieces(tmp_path: Path) -> None:
    program = """
import sys, time
for piece in ("one\\x1b[", ">7", "u two\\x1b_hid", "den\\x1b", "\\\\ three ", "\\u00e9".encode()[:1], "\\u00e9".encode()[1:]):
    sys.stdout.buffer.write(piece if isinstance(piece, bytes) else piece.encode()); sys.stdout.flush(); time.sleep(0.05)
time.sleep(60)
"""
    async with python(program, tmp_path) as terminal:
        assert await terminal.wait_for("é") == "one two three é"


async def test_a_wait_in_vain_says_what_is_shown(tmp_path: Path) -> None:
    async with python("print('something else'); input()", tmp_path) as terminal:
        await terminal.wait_for("something")
        with pytest.raises(StackError, match=r"to show \('never',\); it runs, and shows:\nsomething else"):
            await terminal.wait_for("never", timeout=0.2)
        with pytest.raises(StackError, match="the program still runs"):
            await terminal.ended(0.1)
        await terminal.enter("")
        assert await terminal.ended() == 0
        with pytest.raises(StackError, match="it has ended"):
            await terminal.wait_for("never", timeout=0.2)


async def test_nothing_is_left(tmp_path: Path) -> None:
    program = """
import os, signal, subprocess
signal.signal(signal.SIGHUP, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
print("pids", os.getpid(), child.pid, flush=True)
child.wait()
"""
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with python(program, tmp_path) as terminal:
        shown = await terminal.wait_until(lambda text: len(text.split()) == 3)
        pids = [int(word) for word in shown.split()[1:]]
        assert all(map(is_alive, pids))
    await eventually(lambda: not any(map(is_alive, pids)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
