"""`make demo`: a gateway with an echo model, an identity provider and the sidecar in front, until Ctrl-C.

With GATEWAY_URL it stands in front of that gateway instead, and starts none. Everything is kept in var/demo, so that
the next run finds the users' sessions again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp

from tests.stack.demo_folder import FOLDER, alone, folder_of, forget_taken_port, port_or_free
from tests.stack.demo_lines import Lines, User
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.given_gateway import GivenGateway
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.node import ensure_packages
from tests.stack.process import StackError, tail
from tests.stack.raw import ClosedError, RawClient, RequestError
from tests.stack.sidecar import ReachableGateway, Sidecar, SidecarOptions

PORT, METRICS_PORT = 8080, 9464
TOKEN_S = 12 * 3600
READY_TIMEOUT_S = 60
CHAT_TIMEOUT_S = 180
USERS = ("alice", "bob")
LIMITS = {"daily_tokens": 100_000, "monthly_cost_usd": 100.0}
"""As where an operator sets none: some twenty turns of the echo model."""

EPILOG = """\
environment:
  GATEWAY_URL          a running gateway on this host (ws://…); the demo writes agents for alice and bob into its
                       configuration, and their messages go to its model
  GATEWAY_PASSWORD     its gateway.auth.password, for mode "trusted-proxy"
  GATEWAY_TOKEN        its gateway.auth.token, for mode "token"
  GATEWAY_USER_HEADER  its gateway.auth.trustedProxy.userHeader (default x-forwarded-user)
  GATEWAY_WORKSPACES   folder of the users' workspaces, as the gateway sees it (default: in var/demo)
"""


T = TypeVar("T")


class Told:
    """Lines on stdout, each with the seconds since the start; on a terminal, progress stays on one line."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._open = False

    def __call__(self, line: str) -> None:
        self._write(line, "\n")

    def progress(self, line: str) -> None:
        self._write(line, "" if sys.stdout.isatty() else "\n")

    def plain(self, text: str) -> None:
        print(text, flush=True)

    async def waiting(self, what: str, work: Awaitable[T]) -> T:
        """The outcome of `work`; every two seconds a line says that it still goes on."""
        began = time.monotonic()
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=2))[0]:
                self.progress(f"{what}: {time.monotonic() - began:.0f} s")
            return await task
        finally:
            task.cancel()

    def _write(self, line: str, end: str) -> None:
        start = "\r\x1b[K" if self._open else ""
        self._open = not end
        print(f"{start}{time.monotonic() - self._began:5.0f} s  {line}", end=end, flush=True)


@dataclass(frozen=True, slots=True)
class Demo:
    """What runs."""

    sidecar: Sidecar
    gateway: ReachableGateway
    lines: Lines


async def start(stack: contextlib.AsyncExitStack, told: Told, folder: Path, given: GivenGateway | None) -> Demo:
    """Everything, innermost first; the stack ends it in the opposite order. Raises StackError."""
    packages = await ensure_packages(progress=told.progress)
    port = port_or_free(PORT)
    gateway = given or await start_gateway(stack, told, folder, f"http://127.0.0.1:{port}")
    provider = IdentityProvider(folder / "identity-provider", progress=told.progress)
    await stack.enter_async_context(stopping(told, "the identity provider", provider))
    told(f"identity provider: {provider.issuer}")
    options = SidecarOptions(
        folder=folder / "sidecar",
        gateway=gateway,
        issuer=provider.issuer,
        settings={"telemetry": {"log_format": "json"}, "quota": LIMITS},
        gateway_settings={"user_header": given.user_header} if given and given.password else {},
        port=port,
        metrics_port=port_or_free(METRICS_PORT),
    )
    sidecar = Sidecar(options)
    stack.push_async_callback(sidecar.stop)
    stack.callback(told, "stopping the sidecar, with its PostgreSQL and Valkey")
    await sidecar.start(wait=False)
    await told.waiting("sidecar is starting, usually 4 s", ready(sidecar))
    told(f"sidecar: {sidecar.url}, with PostgreSQL and Valkey of its own")
    users = [User(name, await provider.token_for(name, lifetime=TOKEN_S)) for name in USERS]
    return Demo(sidecar, gateway, Lines(folder, packages, sidecar, users))


async def start_gateway(stack: contextlib.AsyncExitStack, told: Told, folder: Path, origin: str) -> Gateway:
    model = await stack.enter_async_context(EchoModel())
    options = GatewayOptions(folder=folder / "gateway", model_url=model.url, allowed_origins=[origin])
    gateway = Gateway(options, told.progress)
    forget_taken_port(gateway.config_path)
    await stack.enter_async_context(stopping(told, "the gateway", gateway))
    told(f"gateway {options.version}: {gateway.url}, behind it a model that echoes")
    return gateway


@contextlib.asynccontextmanager
async def stopping(
    told: Told, what: str, running: contextlib.AbstractAsyncContextManager[object]
) -> AsyncIterator[None]:
    async with running:
        try:
            yield
        finally:
            told(f"stopping {what}")


async def ready(sidecar: Sidecar) -> None:
    """Return once `/readyz` says 200. Raises StackError with what it says instead."""
    began = time.monotonic()
    checks: dict[str, dict[str, object]] = {}
    while time.monotonic() - began < READY_TIMEOUT_S:
        if not sidecar.running:
            raise StackError(f"the sidecar ended while it started:\n{tail(sidecar.log_path)}")
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            status, body = await sidecar.readiness()
            if status == 200:
                return
            checks = body["checks"]
        await asyncio.sleep(0.2)
    failing = "; ".join(f"{name}: {check.get('why')}" for name, check in checks.items() if not check.get("ok"))
    raise StackError(f"the sidecar was not ready after {READY_TIMEOUT_S} s: {failing}\n{tail(sidecar.log_path)}")


async def chat(sidecar: Sidecar, user: User) -> str:
    """One turn, as one line to print."""
    try:
        async with RawClient.connect(sidecar.url, {"token": user.token}) as client:
            answer = await client.chat("main", f"hello, I am {user.name}", timeout=CHAT_TIMEOUT_S)
            history = await client.request("chat.history", {"sessionKey": "main"})
    except (RequestError, ClosedError, TimeoutError, aiohttp.ClientError) as error:
        return f"{user.name}: no answer: {error or type(error).__name__}"
    count = len(history["messages"])
    return f"{user.name} was answered {answer!r}; the session, which the next run finds again, holds {count} messages"


async def until_it_ends(demo: Demo) -> None:
    """Raises StackError when one of the children ends by itself."""
    while True:
        await asyncio.sleep(0.5)
        if not demo.sidecar.running:
            raise StackError(f"the sidecar ended:\n{tail(demo.sidecar.log_path)}")
        if isinstance(demo.gateway, Gateway) and not demo.gateway.running:
            raise StackError(f"the gateway ended:\n{tail(demo.gateway.log_path)}")


async def show(stack: contextlib.AsyncExitStack, told: Told, folder: Path, given: GivenGateway | None) -> None:
    if given:
        if given.workspaces.is_relative_to(folder):
            given.workspaces.mkdir(exist_ok=True)
        told(
            f"gateway {await given.check()}: {given.url}, yours; agents for alice and bob are added to its configuration"
        )
    demo = await start(stack, told, folder, given)
    demo.lines.write()
    told.plain(demo.lines.text())
    chats = asyncio.gather(*(chat(demo.sidecar, user) for user in demo.lines.users))
    for line in await told.waiting("alice and bob say hello; the first turn of a gateway takes about 10 s", chats):
        told(line)
    told("ready; Ctrl-C ends all of it")
    await until_it_ends(demo)


async def run(told: Told, folder: Path, given: GivenGateway | None) -> None:
    ended = asyncio.Event()

    def end() -> None:
        if ended.is_set():
            # The second time: whatever is left dies with us, by its leash.
            told("ending at once")
            os._exit(130)
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, end)
    async with contextlib.AsyncExitStack() as stack:
        showing = asyncio.create_task(show(stack, told, folder, given))
        waiting = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait({showing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            showing.cancel()
            waiting.cancel()
            outcome, _ = await asyncio.gather(showing, waiting, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="state that is kept between runs (default: var/demo)"
    )
    options = parser.parse_args(argv)
    told = Told()
    if sys.platform != "linux":
        print("demo: it needs Linux, as the embedded PostgreSQL and Valkey do", file=sys.stderr)
        return 1
    try:
        folder = folder_of(options.folder.resolve(), os.environ.get("GATEWAY_URL", ""))
        given = GivenGateway.from_environment(os.environ, folder)
        with alone(folder):
            asyncio.run(run(told, folder, given))
    except StackError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    told("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
