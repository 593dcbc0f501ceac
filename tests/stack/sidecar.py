"""The sidecar itself as a user starts it: `sidecar run --config FILE`, as a child process on a free port.

Beside a gateway and an identity provider of the stack; everything that it keeps is in one folder.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import aiohttp

from tests.stack.gateway import USER_HEADER
from tests.stack.process import Process, StackError, bare_environment, free_port, tail

READY_TIMEOUT_S = 30
STOP_GRACE_S = 20


class ReachableGateway(Protocol):
    """A running gateway on this host. With a token its mode is `token`, else `trusted-proxy`."""

    @property
    def url(self) -> str: ...

    @property
    def token(self) -> str: ...

    @property
    def password(self) -> str: ...

    @property
    def workspaces(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """How the sidecar is set up."""

    folder: Path
    """Configuration, data and log; made when missing, never removed."""

    gateway: ReachableGateway
    issuer: str
    """Issuer URL of the identity provider; its users are `u-<login>`."""

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Sections merged over ours: `{"server": {"drain_seconds": 1}}`."""

    gateway_settings: Mapping[str, Any] = field(default_factory=dict)
    issuers: tuple[Mapping[str, Any], ...] = ()
    """More rows of `identity.issuers`."""

    data_dir: Path | None = None
    """None: below `folder`."""

    port: int = 0
    """For clients; 0: any free one."""

    metrics_port: int = 0


class Sidecar:
    """`async with Sidecar(options) as sidecar:` or `start()` and `stop()`."""

    def __init__(self, options: SidecarOptions) -> None:
        self.options = options
        self.port = 0
        self.metrics_port = 0
        self.config_path = options.folder / "sidecar.toml"
        self.log_path = options.folder / "sidecar.log"
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ready_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/readyz"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process that is Python itself. Raises StackError while it is down."""
        if self._process is None or self._process.returncode is not None:
            raise StackError("this sidecar is not running")
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    async def __aenter__(self) -> Sidecar:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, *, wait: bool = True) -> None:
        """Start, and wait until `/readyz` says 200. Raises StackError with the log's tail."""
        self.options.folder.mkdir(parents=True, exist_ok=True)
        if not self.port:
            self.port = self.options.port or free_port()
            self.metrics_port = self.options.metrics_port or free_port()
            self.config_path.touch(mode=0o600)
            self.config_path.write_text(self._toml())
        with self.log_path.open("ab") as log:
            self._process = Process.start(
                [sys.executable, "-m", "sidecar.cli.main", "run", "--config", str(self.config_path)],
                env=bare_environment(self.options.folder),
                cwd=Path(__file__).resolve().parents[2],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            if wait:
                await self._wait_ready()
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """SIGTERM, as an operator does it."""
        if self._process is not None:
            await self._process.stop(STOP_GRACE_S)

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            await self._process.kill()

    async def readiness(self) -> tuple[int, dict[str, Any]]:
        """Status and body of the operators' `/readyz`. Raises aiohttp.ClientError while nothing listens."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self.ready_url) as answer:
            return answer.status, await answer.json()

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(self.metrics_url) as answer:
            return await answer.text()

    async def wait_ready(self) -> None:
        await self._wait_ready()

    async def _wait_ready(self) -> None:
        started = time.monotonic()
        seen: object = None
        while time.monotonic() - started < READY_TIMEOUT_S:
            if self._process is None or self._process.returncode is not None:
                raise StackError(f"the sidecar ended while it started\n{tail(self.log_path)}")
            try:
                status, seen = await self.readiness()
            except (aiohttp.ClientError, TimeoutError):
                status = 0
            if status == 200:
                return
            await asyncio.sleep(0.05)
        raise StackError(f"the sidecar was not ready after {READY_TIMEOUT_S} s: {seen}\n{tail(self.log_path)}")

    def _toml(self) -> str:
        options, gateway = self.options, self.options.gateway
        data_dir = options.data_dir or options.folder / "data"
        sections: dict[str, dict[str, Any]] = {
            "server": {
                "port": self.port,
                "metrics_port": self.metrics_port,
                "public_url": f"http://127.0.0.1:{self.port}",
                "drain_seconds": 2,
            },
            "environments": {"root": str(gateway.workspaces)},
            "quota": {"daily_tokens": 0, "monthly_cost_usd": 0.0},
            "storage": {"data_dir": str(data_dir)},
        }
        for name, over in options.settings.items():
            sections[name] = sections.get(name, {}) | dict(over)
        row: dict[str, Any] = {"id": "main", "url": gateway.url, "auth": "token" if gateway.token else "trusted-proxy"}
        row |= {"token": gateway.token} if gateway.token else {"password": gateway.password, "user_header": USER_HEADER}
        row |= options.gateway_settings
        issuer = {"name": "example", "issuer": options.issuer, "readable_ids": True}
        parts = [f"[{name}]\n{_lines(values)}" for name, values in sections.items()]
        parts.append(f"[[gateways]]\n{_lines(row)}")
        parts += [f"[[identity.issuers]]\n{_lines(one)}" for one in (issuer, *options.issuers)]
        return "\n".join(parts)


def _lines(values: Mapping[str, Any]) -> str:
    """JSON's scalars and lists are TOML's."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
