"""The users' real clients: the `openclaw` command line and `@openclaw/gateway-client`."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.stack.driver import Driver
from tests.stack.node import VERSION, ensure_packages, node, openclaw
from tests.stack.process import Process, StackError, bare_environment
from tests.stack.terminal import Terminal

SCRIPT = Path(__file__).with_name("gateway_client.mjs")
CLI_TIMEOUT_S = 60.0

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """stdout as JSON. Raises StackError with all that was said when it is none."""
        try:
            return json.loads(self.stdout)
        except ValueError as error:
            raise StackError(f"not JSON: {self}") from error


class CommandLine:
    """`openclaw …` as one user has it: a home and state of their own, a gateway address, a token."""

    def __init__(self, folder: Path, url: str, token: str = "", *, password: str = "", version: str = VERSION) -> None:
        self.url = url
        self.token = token
        self.password = password
        self._folder = folder
        self._version = version

    async def run(self, *arguments: str, timeout: float = CLI_TIMEOUT_S) -> Finished:
        """Run `openclaw <arguments>` to its end (about 2 s). Raises TimeoutError, after killing it."""
        packages = await ensure_packages(self._version)
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            process = Process.start(
                [str(node()), str(openclaw(packages)), *arguments],
                env=self._environment(packages),
                cwd=self._folder,
                stdout=stdout,
                stderr=stderr,
            )
            try:
                status = await process.wait(timeout)
            finally:
                await process.kill()
            if status is None:
                raise TimeoutError(f"openclaw {arguments[0]} still ran after {timeout} s")
            stdout.seek(0)
            stderr.seek(0)
            return Finished(status, stdout.read().decode(), stderr.read().decode())

    async def call(self, method: str, params: Mapping[str, Any] | None = None, *more: str) -> Finished:
        """`openclaw gateway call METHOD --params JSON --json`."""
        return await self.run("gateway", "call", method, "--json", "--params", json.dumps(params or {}), *more)

    async def terminal(self, *arguments: str) -> Terminal:
        """`openclaw <arguments>` for somebody at a terminal; `async with` starts it and ends it."""
        packages = await ensure_packages(self._version)
        self._folder.mkdir(parents=True, exist_ok=True)
        return Terminal([str(node()), str(openclaw(packages)), *arguments], self._environment(packages), self._folder)

    def _environment(self, packages: Path) -> dict[str, str]:
        return bare_environment(
            self._folder,
            OPENCLAW_STATE_DIR=str(self._folder / "state"),
            OPENCLAW_CONFIG_PATH=str(self._folder / "openclaw.json"),
            OPENCLAW_GATEWAY_URL=self.url,
            NODE_COMPILE_CACHE=str(packages.parent / "compiled"),
            NO_COLOR="1",
            **({"OPENCLAW_GATEWAY_TOKEN": self.token} if self.token else {}),
            **({"OPENCLAW_GATEWAY_PASSWORD": self.password} if self.password else {}),
        )


class GatewayClient:
    """One `@openclaw/gateway-client` in a Node process of its own, which `async with` starts and stops."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Frame] = []
        """Event frames, in order, as the client handed them out."""
        self.states: list[dict[str, Any]] = []
        """`{"state": "hello" | "connect-error" | "paused" | "closed" | "gap", …}`, in order."""
        self.hello: Frame = {}
        self._folder = folder
        self._changed = asyncio.Event()
        self._driver: Driver | None = None

    @property
    def received(self) -> list[str]:
        """Everything that came from the client, raw: events, answers, errors, states; for leak searches."""
        return [] if self._driver is None else self._driver.received

    async def __aenter__(self) -> GatewayClient:
        driver = Driver(SCRIPT, await ensure_packages(), self._folder, self._take)
        await driver.start()
        self._driver = driver
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._driver is not None:
            await self._driver.stop()

    async def connect(self, url: str, token: str = "", *, timeout: float = 30, **options: Any) -> Frame:
        """The hello. `options` are those of the package (`clientName`, `mode`, `scopes`, `caps` …).

        Raises CommandError when the client gives up, TimeoutError while it still retries by itself.
        """
        asked = {"url": url, **({"token": token} if token else {}), **options}
        hello: Frame = await self._call("connect", timeout=timeout, options=asked)
        self.hello = hello
        return hello

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float = 30,
        final: bool = False,
    ) -> Any:
        """The payload; `final` waits for the second answer of `agent`. Raises CommandError, TimeoutError."""
        return await self._call("request", timeout=timeout, method=method, params=dict(params or {}), expectFinal=final)

    async def close(self) -> None:
        """Close the socket; the process stays, and can connect again."""
        await self._call("close")

    async def kill(self) -> None:
        """SIGKILL, as a client that crashed."""
        if self._driver is not None:
            await self._driver.kill()

    async def wait_for(self, predicate: Callable[[Frame], bool], *, timeout: float = 30, since: int = 0) -> Frame:
        """The first event from index `since` on that satisfies. Raises TimeoutError."""
        return await _first(self.events, predicate, self._changed, timeout, since)

    async def wait_for_state(self, state: str, *, timeout: float = 30, since: int = 0) -> dict[str, Any]:
        """The first state of that name from index `since` on. Raises TimeoutError."""
        return await _first(self.states, lambda told: told["state"] == state, self._changed, timeout, since)

    async def _call(self, do: str, *, timeout: float = 30, **arguments: Any) -> Any:
        if self._driver is None:
            raise StackError("the client's process is not started: use `async with`")
        return await self._driver.call(do, timeout=timeout, **arguments)

    def _take(self, news: dict[str, Any]) -> None:
        if "event" in news:
            self.events.append(news["event"])
        else:
            self.states.append(news)
        self._changed.set()


async def _first(
    kept: list[dict[str, Any]],
    predicate: Callable[[dict[str, Any]], bool],
    changed: asyncio.Event,
    timeout: float,
    position: int,
) -> dict[str, Any]:
    async with asyncio.timeout(timeout):
        while True:
            for item in kept[position:]:
                if predicate(item):
                    return item
            position = max(position, len(kept))
            changed.clear()
            await changed.wait()
