"""A Node program of ours, told what to do in JSON lines on its stdin; answers and news come on its stdout."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.stack.node import node
from tests.stack.process import Process, StackError, bare_environment, tail

LINE_LIMIT = 64 * 1024 * 1024


class CommandError(Exception):
    """The program answered `ok: false`; `error` is what it said."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.error = dict(error)

    @property
    def code(self) -> str:
        return str(self.error.get("code"))

    @property
    def detail_code(self) -> str:
        return str((self.error.get("details") or {}).get("code"))


class Driver:
    """One running program. What it says beside answers goes to `news`, every line raw to `received`."""

    def __init__(self, script: Path, packages: Path, folder: Path, news: Callable[[dict[str, Any]], None]) -> None:
        self.received: list[str] = []
        self.log_path = folder / f"{script.stem}.log"
        self._script = script
        self._packages = packages
        self._folder = folder
        self._news = news
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = Process.start(
                [str(node()), str(self._script), str(self._packages)],
                env=bare_environment(self._folder),
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._reader = asyncio.create_task(self._read(self._process))

    async def call(self, do: str, *, timeout: float = 60, **arguments: Any) -> Any:
        """Give a command and return its result. Raises CommandError, StackError (it ended), TimeoutError."""
        if self._process is None or self._process.stdin is None or not self.running:
            raise StackError(f"{self._script.name} is not running:\n{tail(self.log_path)}")
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n"
        stdin = self._process.stdin
        try:
            await asyncio.to_thread(lambda: (stdin.write(line), stdin.flush()))
            async with asyncio.timeout(timeout):
                return await answer
        except BrokenPipeError as error:
            raise StackError(f"{self._script.name} ended:\n{tail(self.log_path)}") from error
        finally:
            self._waiting.pop(number, None)

    async def stop(self) -> None:
        await self._end(lambda process: process.stop(1))

    async def kill(self) -> None:
        await self._end(lambda process: process.kill())

    async def _end(self, end: Callable[[Process], Any]) -> None:
        if self._process is not None:
            await end(self._process)
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def _read(self, process: Process) -> None:
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=LINE_LIMIT)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), process.take_stdout())
        try:
            while line := await stream.readline():
                self._take(line.decode())
        finally:
            transport.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(StackError(f"{self._script.name} ended:\n{tail(self.log_path)}"))

    def _take(self, line: str) -> None:
        self.received.append(line)
        said = json.loads(line)
        answer = self._waiting.get(said["id"]) if "id" in said else None
        if "id" not in said:
            self._news(said)
        elif answer is not None and not answer.done():
            if said["ok"]:
                answer.set_result(said.get("result"))
            else:
                answer.set_exception(CommandError(said["error"]))
