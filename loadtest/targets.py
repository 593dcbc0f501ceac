"""Starts everything that is measured, each a process of its own that ends with us."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

from loadtest import issuer, nginx
from loadtest.client import Caller, Place
from loadtest.wire import BenchError
from tests.stack.gateway import USER_HEADER
from tests.stack.process import Process, bare_environment, free_port, tail
from tests.stack.sidecar import Sidecar, SidecarOptions

DIRECT, NGINX, COALESCED, PARSED, SIDECAR = "direct", "nginx", "aiohttp coalesced", "aiohttp orjson", "sidecar"
LIMITED = "sidecar with quotas"
"""A second one, in which every quota is in force and none is reached; only for what quotas have to do with."""

TARGETS = (DIRECT, NGINX, COALESCED, PARSED, SIDECAR)

ROOT = Path(__file__).resolve().parents[1]
START_S = 15.0
JOB_S = 240.0


@dataclass(frozen=True, slots=True)
class Stub:
    """The stub, as the sidecar's configuration needs it (`tests.stack.sidecar.ReachableGateway`)."""

    port: int
    password: str
    workspaces: Path
    token: str = ""

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


@dataclass(slots=True)
class House:
    """What runs. `job` has the client do something."""

    folder: Path
    places: Mapping[str, Place]
    issuer: issuer.Issuer
    _numbers: Iterable[int] = field(default_factory=itertools.count)

    def callers(self, target: str, logins: Sequence[str]) -> list[Caller]:
        """Users, each with a token that the sidecar has not seen; the others are told who it is, as the sidecar tells a gateway."""
        if target in {SIDECAR, LIMITED}:
            return [Caller(f"u-{login}", {"Authorization": f"Bearer {self.issuer.token(login)}"}) for login in logins]
        return [Caller(f"u-{login}", {USER_HEADER: f"u-{login}"}) for login in logins]

    async def job(self, do: str, target: str, logins: Sequence[str], **more: object) -> dict[str, float]:
        """The result of one of `client.JOBS`. Raises BenchError."""
        number = next(iter(self._numbers))
        path, out, log = (self.folder / f"job-{number}.{kind}" for kind in ("json", "out", "log"))
        callers = [asdict(caller) for caller in self.callers(target, logins)]
        path.write_text(json.dumps({"do": do, "place": asdict(self.places[target]), "callers": callers} | more))
        with out.open("wb") as stdout, log.open("wb") as stderr:
            process = start(self.folder, ["loadtest.client", str(path)], stdout=stdout, stderr=stderr)
            try:
                status = await process.wait(JOB_S)
            finally:
                await process.kill()
        said = log.read_text(errors="replace").strip()
        if status != 0:
            raise BenchError(f"{do} on {target}: {said or f'nothing within {JOB_S:g} s'}")
        result: dict[str, float] = json.loads(out.read_text())
        for one in (path, out, log):
            one.unlink()
        return result


def start(folder: Path, module: Sequence[str], **more: object) -> Process:
    """A module of ours. Its name and arguments."""
    options = {"env": bare_environment(folder), "cwd": ROOT} | more
    return Process.start([sys.executable, "-m", *module], **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def house(folder: Path, without: Iterable[str]) -> AsyncIterator[House]:
    """Everything but the targets `without`, ready. Raises BenchError, StackError."""
    async with contextlib.AsyncExitStack() as stack:
        signer = await stack.enter_async_context(issuer.serving())
        stub = Stub(free_port(), secrets.token_hex(16), folder / "workspaces")
        stub.workspaces.mkdir()
        secret = bare_environment(folder, LOADTEST_PASSWORD=stub.password)
        places = {DIRECT: Place(stub.port)}
        await _running(
            stack, folder, "stub", stub.port, [sys.executable, "-m", "loadtest.stub", str(stub.port)], secret
        )
        for target, look in ((COALESCED, "coalesced"), (PARSED, "orjson")):
            if target not in without:
                port = free_port()
                command = [sys.executable, "-m", "loadtest.peers", str(port), stub.url, look]
                places[target] = Place(port, await _running(stack, folder, look, port, command))
        if NGINX not in without:
            port = free_port()
            (folder / "nginx").mkdir()
            command = nginx.command(await nginx.installed(), folder / "nginx", port, stub.port)
            places[NGINX] = Place(port, await _running(stack, folder, NGINX, port, command))
        sidecar = await stack.enter_async_context(Sidecar(sidecar_options(folder / "sidecar", stub, signer.url)))
        places[SIDECAR] = Place(sidecar.port, sidecar.pid)
        limited = await stack.enter_async_context(Sidecar(sidecar_options(folder / "limited", stub, signer.url, HIGH)))
        places[LIMITED] = Place(limited.port, limited.pid)
        yield House(folder, {target: places[target] for target in (*TARGETS, LIMITED) if target in places}, signer)


NONE = {"daily_tokens": 0, "monthly_cost_usd": 0.0, "concurrent_runs": 0}
HIGH = {
    "daily_tokens": 1_000_000_000,
    **dict.fromkeys(("api_calls_per_day", "messages_per_minute", "concurrent_runs"), 10_000),
    "monthly_cost_usd": 1_000_000.0,
}


def sidecar_options(
    folder: Path, stub: Stub, issuer_url: str, quota: Mapping[str, object] = MappingProxyType(NONE)
) -> SidecarOptions:
    """The defaults, but for the limits per address and per user: everybody here comes from one address, and at once."""
    limits = {"max_unauthenticated_per_address": 1000, "max_connections_per_user": 1000}
    return SidecarOptions(folder, stub, issuer_url, settings={"server": limits, "quota": quota})


async def _running(
    stack: contextlib.AsyncExitStack,
    folder: Path,
    name: str,
    port: int,
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
) -> int:
    """The process id of `command` once it listens; it is stopped with the stack."""
    log_path = folder / f"{name}.log"
    with log_path.open("ab") as log:
        process = Process.start(
            command, env=env or bare_environment(folder), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
    stack.push_async_callback(process.stop, 2)
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        await writer.wait_closed()
        return process.pid
    raise BenchError(f"{name} did not start:\n{tail(log_path)}")
