"""One supervised engine: started, watched, started again with back-off, ended."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import EngineError
from sidecar.storage.availability import ReportState
from sidecar.storage.engines.process import RunAs, end, ended, spawn, sweep

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_STEADY_AFTER = 30.0
_LOG_LIMIT = 4 * 1024 * 1024
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that differs between the engines."""

    engine: str
    """`postgres` or `redis`, as facts name them."""

    command: tuple[str, ...]
    """Program with arguments; it makes `folder` its working directory."""

    folder: Path
    """The engine's data, absolute."""

    log: Path
    """Where its output is appended; moved to `<name>.1` at a start that finds more than 4 MiB."""

    death_signal: int
    """What the kernel sends it when we are gone."""

    stop: tuple[tuple[int, float], ...]
    """How it is ended: signals, and the seconds that each may take before the next, at last SIGKILL."""

    is_ready: Callable[[], Awaitable[bool]]
    """Asks the engine itself; False while it is not there or still recovering."""

    before: Callable[[], None] = lambda: None
    """Clears what a predecessor left behind, when no such process runs any more."""

    start_timeout: float = 120.0
    """Seconds; recovery after a crash counts in."""


class Child:
    """Owns the process and the task that watches it.

    `start` raises EngineError when the engine does not come up; later failures are reported and tried again
    for ever.
    """

    def __init__(self, recipe: Recipe, run_as: RunAs, report: ReportState, clock: Callable[[], float]) -> None:
        self._recipe = recipe
        self._run_as = run_as
        self._report = report
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def engine(self) -> str:
        return self._recipe.engine

    @property
    def pid(self) -> int | None:
        """Of the running process; None between an end and the next start."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        await self._launch()
        self._report(self._recipe.engine, "up", "")
        self._watch = asyncio.create_task(self._keep_running(), name=f"supervise-{self._recipe.engine}")

    async def stop(self) -> None:
        """Bounded by the sum of `Recipe.stop`; also cleans up after a failed or cancelled `start`."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        if self._process is not None:
            await end(self._process, self._recipe.stop)
            self._process = None

    async def _keep_running(self) -> None:
        pause = _FIRST_PAUSE
        while self._process is not None:
            began = self._clock()
            status = await ended(self._process)
            self._report(self._recipe.engine, "away", f"ended with status {status}")
            if self._clock() - began >= _STEADY_AFTER:
                pause = _FIRST_PAUSE
            pause = await self._relaunch(pause)
            self._report(self._recipe.engine, "restarted", "")

    async def _relaunch(self, pause: float) -> float:
        """Try until it runs; the pause to begin with the next time."""
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                await self._launch()
            except (EngineError, OSError) as error:
                self._report(self._recipe.engine, "away", f"does not start: {type(error).__name__}")
            else:
                return pause

    async def _launch(self) -> None:
        recipe = self._recipe
        await sweep(Path(recipe.command[0]), recipe.folder)
        recipe.before()
        _rotate(recipe.log)
        with recipe.log.open("ab") as output:
            begin = output.tell()
            self._process = spawn(recipe.command, self._run_as, recipe.death_signal, output)
        try:
            await asyncio.wait_for(self._until_ready(self._process, begin), recipe.start_timeout)
        except TimeoutError:
            await end(self._process, recipe.stop)
            raise EngineError(
                f"{recipe.engine} was not ready after {recipe.start_timeout:.0f} s; see {recipe.log}"
            ) from None

    async def _until_ready(self, process: subprocess.Popen[bytes], begin: int) -> None:
        while not await self._recipe.is_ready():
            status = process.poll()
            if status is not None:
                raise EngineError(
                    f"{self._recipe.engine} ended with status {status} at its start: "
                    f"{last_lines(self._recipe.log, begin)} (see {self._recipe.log})"
                )
            await asyncio.sleep(_POLL)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_name(log.name + ".1"))


def last_lines(log: Path, begin: int = 0, count: int = 3) -> str:
    """The end of what was written to `log` after the offset `begin`, on one line."""
    with log.open("rb") as written:
        written.seek(begin)
        text = written.read().decode(errors="replace")
    return " / ".join(line.strip() for line in text.splitlines()[-count:]) or "it said nothing"
