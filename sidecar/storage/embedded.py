"""PostgreSQL and Valkey of our own below one data folder, for those who have no servers.

Linux only: the children are tied to our life by the kernel, so that no end of ours, kill -9 included, leaves
them behind.

    data_dir/
      sidecar.lock     held while we run; holds our pid
      postgres/        the cluster, complete or absent
      valkey/          the append-only file
      run/             sockets, unless the path is too long for them
      log/             what the engines say
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Self

from sidecar.errors import EngineError
from sidecar.storage.availability import ReportState
from sidecar.storage.engines import postgres, valkey
from sidecar.storage.engines.child import Child
from sidecar.storage.engines.folder import DataFolder
from sidecar.storage.engines.process import RunAs, choose_run_as


class EmbeddedEngines:
    """Starts what it was asked for, keeps it running, and gives the URLs to reach it.

    `report` hears (engine, `up` | `away` | `restarted`, why). With neither engine asked for, nothing happens
    and the data folder is not touched. May be started again after `stop`.
    """

    def __init__(
        self,
        data_dir: Path,
        report: ReportState,
        postgres: bool = True,
        redis: bool = True,
        *,
        run_as: RunAs | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = DataFolder(data_dir)
        self._report = report
        self._wants_postgres = postgres
        self._wants_redis = redis
        self._run_as = run_as
        self._clock = clock
        self._children: dict[str, Child] = {}
        self._urls: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def database_url(self) -> str:
        """For asyncpg. Raises EngineError where PostgreSQL is not embedded or not started."""
        return self._url("postgres")

    @property
    def redis_url(self) -> str:
        """For redis-py. Raises EngineError where Redis is not embedded or not started."""
        return self._url("redis")

    @property
    def pids(self) -> dict[str, int]:
        """Engine → process, of those that run at this moment."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    async def start(self) -> None:
        """Return when all engines answer.

        Raises:
            EngineError: a wheel is missing, the folder is in use or unusable, an engine does not start.
        """
        if not (self._wants_postgres or self._wants_redis):
            return
        if sys.platform != "linux":
            raise EngineError("embedded engines need Linux; set storage.database_url and storage.redis_url")
        try:
            await self._start()
        except OSError as error:
            await self.stop()
            raise EngineError(
                f"the data folder {self._folder.path} cannot be used ({error.strerror}); "
                "let storage.data_dir name a folder that the sidecar may write"
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the engines, at most some 15 s later by force, and give the data folder back."""
        try:
            await asyncio.gather(*(child.stop() for child in self._children.values()))
        finally:
            self._children.clear()
            self._urls.clear()
            self._folder.release()

    async def _start(self) -> None:
        binaries = postgres.find_binaries() if self._wants_postgres else None
        server = valkey.find_binary() if self._wants_redis else None
        run_as = self._run_as or choose_run_as(binaries / "postgres" if binaries else server or Path())
        self._folder.claim(run_as)
        sockets = self._folder.socket_folder(run_as)
        log = self._folder.path / "log"
        log.mkdir(mode=0o700, exist_ok=True)
        starts: list[Coroutine[None, None, None]] = []
        if binaries is not None:
            starts.append(self._start_postgres(binaries, sockets, log / "postgres.log", run_as))
        if server is not None:
            starts.append(self._start_valkey(server, sockets, log / "valkey.log", run_as))
        for outcome in await asyncio.gather(*starts, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _start_postgres(self, binaries: Path, sockets: Path, log: Path, run_as: RunAs) -> None:
        data = self._folder.path / "postgres"
        await postgres.ensure_cluster(binaries, data, log, run_as)
        self._urls["postgres"] = postgres.database_url(sockets)
        await self._start_child(Child(postgres.recipe(binaries, data, sockets, log), run_as, self._report, self._clock))

    async def _start_valkey(self, server: Path, sockets: Path, log: Path, run_as: RunAs) -> None:
        data = self._folder.private("valkey", run_as)
        self._urls["redis"] = valkey.redis_url(sockets)
        await self._start_child(Child(valkey.recipe(server, data, sockets, log), run_as, self._report, self._clock))

    async def _start_child(self, child: Child) -> None:
        self._children[child.engine] = child
        await child.start()

    def _url(self, engine: str) -> str:
        try:
            return self._urls[engine]
        except KeyError:
            raise EngineError(f"the embedded {engine} is not running; start it or set a URL of your own") from None
