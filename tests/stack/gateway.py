"""The real, unmodified gateway as a child process, on a port and in a folder of its own.

Sources: the `openclaw` package's docs (`gateway/trusted-proxy-auth.md`,
`gateway/configuration-reference.md`) and what was seen on 2026.9.6: `/readyz` answers 200 after 10 to 11 s;
800 MB of memory idle, so run one at a time where you can.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import aiohttp

from tests.stack.node import VERSION, Progress, ensure_packages, node, openclaw, silent
from tests.stack.process import Process, StackError, bare_environment, free_port, tail

Mode = Literal["trusted-proxy", "token"]
SessionTools = Literal["closed", "open", "unset"]

SESSION_TOOLS: Mapping[SessionTools, dict[str, Any]] = {
    "closed": {"agentToAgent": {"enabled": False}, "sessions": {"visibility": "self"}},
    "open": {"agentToAgent": {"enabled": True}, "sessions": {"visibility": "all"}},
    "unset": {"agentToAgent": None, "sessions": None},
}

USER_HEADER = "x-forwarded-user"
READY_TIMEOUT_S = 90
STOP_GRACE_S = 5
USER_SCOPES = ["operator.read", "operator.write", "operator.approvals", "operator.questions"]


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How the gateway is set up. Only `folder` and `model_url` have no default."""

    folder: Path
    """Configuration, state, log and home of the gateway; made when missing, never removed, taken up again."""

    model_url: str
    """Base URL of the echo model, `http://127.0.0.1:PORT/v1`."""

    mode: Mode = "trusted-proxy"
    version: str = VERSION
    session_tools: SessionTools = "closed"
    """`closed` as a shared gateway needs it, `open` to every agent's sessions, or `unset`: the version's own default, which
    is open on 2026.9.6 and closed across agents on 2026.8.2."""

    allowed_origins: Sequence[str] = ()
    """Origins that the gateway takes for browsers (`gateway.controlUi.allowedOrigins`)."""

    workspaces: Path | None = None
    """Root of the workspaces; the default agent's is `main` below it. None: `<folder>/workspaces`."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Merged over our configuration, key by key; None removes a key."""


class Gateway:
    """`async with Gateway(options) as gateway:` or `start()` and `stop()`."""

    def __init__(self, options: GatewayOptions, progress: Progress = silent) -> None:
        self.options = options
        self.port = 0
        self.token = secrets.token_hex(16) if options.mode == "token" else ""
        self.password = secrets.token_hex(16) if options.mode == "trusted-proxy" else ""
        self.state_dir = options.folder / "state"
        self.config_path = options.folder / "openclaw.json"
        self.log_path = options.folder / "gateway.log"
        self.workspaces = options.workspaces or options.folder / "workspaces"
        self._progress = progress
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The gateway's process id, None while it is down."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def __aenter__(self) -> Gateway:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Install what is missing, start, wait until ready. Raises StackError with the log's tail."""
        if self.running:
            raise StackError("this gateway is running already")
        packages = await ensure_packages(self.options.version, self._progress)
        self._write_config()
        self._process = self._spawn(packages)
        try:
            await self._wait_ready()
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """SIGTERM; SIGKILL after five seconds, since a gateway waits minutes for running turns."""
        if self._process is not None:
            await self._process.stop(STOP_GRACE_S)

    async def kill(self) -> None:
        """SIGKILL, for the gateway and all that it started."""
        if self._process is not None:
            await self._process.kill()

    async def restart(self) -> None:
        """Stop if need be, then start again on the same port and folder."""
        await self.stop()
        await self.start()

    def _spawn(self, packages: Path) -> Process:
        home = self.options.folder / "home"
        temporary = self.options.folder / "tmp"
        home.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(exist_ok=True)
        env = bare_environment(
            home,
            TMPDIR=str(temporary),
            NODE_COMPILE_CACHE=str(packages.parent / "compiled"),
            OPENCLAW_STATE_DIR=str(self.state_dir),
            OPENCLAW_CONFIG_PATH=str(self.config_path),
            OPENCLAW_SKIP_CHANNELS="1",
        )
        with self.log_path.open("ab") as log:
            return Process.start(
                [str(node()), str(openclaw(packages)), "gateway", "run"],
                env=env,
                cwd=self.options.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def _wait_ready(self) -> None:
        started = told = time.monotonic()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while not await self._is_ready(session):
                now = time.monotonic()
                if not self.running:
                    raise self._failure("ended while it started")
                if now - started > READY_TIMEOUT_S:
                    raise self._failure(f"was not ready after {READY_TIMEOUT_S} s")
                if now - told >= 2:
                    told = now
                    self._progress(f"gateway is starting: {now - started:.0f} s, usually about 11")
                await asyncio.sleep(0.1)

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.http_url}/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _failure(self, what: str) -> StackError:
        return StackError(f"gateway {self.options.version} {what}; its log ends with:\n{tail(self.log_path)}")

    def _write_config(self) -> None:
        """Ours over what is there: port, secrets and whatever was patched in since are kept."""
        self.options.folder.mkdir(parents=True, exist_ok=True)
        self.workspaces.mkdir(parents=True, exist_ok=True)
        there = json.loads(self.config_path.read_text()) if self.config_path.exists() else {}
        known = there.get("gateway", {})
        self.port = known.get("port") or free_port()
        if self.options.mode == "token":
            self.token = known.get("auth", {}).get("token") or self.token
        else:
            self.password = known.get("auth", {}).get("password") or self.password
        config = merge(merge(there, self._config()), self.options.extra)
        if config != there:
            self.config_path.touch(mode=0o600)
            self.config_path.write_text(json.dumps(config, indent=2))

    def _config(self) -> dict[str, Any]:
        defaults = {"model": {"primary": "fake/fake-1"}, "workspace": str(self.workspaces / "main")}
        return {
            "gateway": {"mode": "local", "port": self.port, "bind": "loopback"} | self._auth(),
            "agents": {"defaults": defaults},
            "models": {"mode": "merge", "providers": {"fake": provider(self.options.model_url, "fake-key")}},
            "tools": SESSION_TOOLS[self.options.session_tools],
            "logging": {"file": str(self.options.folder / "log" / "gateway.log")},
        }

    def _auth(self) -> dict[str, Any]:
        origins = {"controlUi": {"allowedOrigins": list(self.options.allowed_origins)}}
        if self.options.mode == "token":
            return origins | {"auth": {"mode": "token", "token": self.token}}
        proxy = {
            "userHeader": USER_HEADER,
            "allowLoopback": True,
            "deviceAutoApprove": {"enabled": True, "scopes": USER_SCOPES},
        }
        return origins | {
            "trustedProxies": ["127.0.0.1"],
            "auth": {"mode": "trusted-proxy", "password": self.password, "trustedProxy": proxy},
        }


def provider(model_url: str, bearer: str) -> dict[str, Any]:
    """A `models.providers` entry for the echo model under `bearer`. Costs are USD per million tokens."""
    model = {
        "id": "fake-1",
        "name": "Echo",
        "reasoning": False,
        "input": ["text"],
        "cost": {"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75},
        "contextWindow": 200_000,
        "maxTokens": 8192,
    }
    return {"baseUrl": model_url, "apiKey": bearer, "api": "openai-completions", "models": [model]}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386: objects are merged, None removes, anything else replaces."""
    merged = dict(base)
    for name, value in over.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            below = merged.get(name)
            merged[name] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged
