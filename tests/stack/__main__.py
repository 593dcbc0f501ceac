"""`python -m tests.stack`: gateway and echo model, and the OpenID provider with `--idp`, until Ctrl-C.

Prints one line of JSON with addresses and secrets on stdout once all are ready; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import AUDIENCE, IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.node import VERSION, versions
from tests.stack.process import StackError


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stack", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--mode", choices=["trusted-proxy", "token"], default="trusted-proxy")
    parser.add_argument("--version", choices=versions(), default=VERSION)
    parser.add_argument("--open", action="store_true", help="open the gateway's session tools")
    parser.add_argument("--idp", action="store_true", help="start the OpenID provider too")
    parser.add_argument("--origin", action="append", default=[], help="origin that browsers may have; repeatable")
    parser.add_argument("--folder", type=Path, help="state of the gateway; a temporary folder by default")
    return parser.parse_args(argv)


async def run(options: argparse.Namespace) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        starting = asyncio.create_task(start(stack, options))
        waiting = asyncio.create_task(ended.wait())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if ended.is_set():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        print(json.dumps(starting.result()), flush=True)
        await waiting


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def start(stack: AsyncExitStack, options: argparse.Namespace) -> dict[str, Any]:
    folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stack-")))
    model = await stack.enter_async_context(EchoModel())
    gateway_options = GatewayOptions(
        folder=folder,
        model_url=model.url,
        mode=options.mode,
        version=options.version,
        session_tools="open" if options.open else "closed",
        allowed_origins=options.origin,
    )
    gateway = await stack.enter_async_context(Gateway(gateway_options, progress))
    provider = await start_provider(stack, folder) if options.idp else {}
    return provider | {
        "gateway": gateway.url,
        "token": gateway.token,
        "password": gateway.password,
        "pid": gateway.pid,
        "folder": str(folder),
        "log": str(gateway.log_path),
        "model": model.url,
        "counts": model.url.removesuffix("/v1") + "/counts",
    }


async def start_provider(stack: AsyncExitStack, folder: Path) -> dict[str, Any]:
    provider = await stack.enter_async_context(IdentityProvider(folder / "idp", progress=progress))
    return {
        "issuer": provider.issuer,
        "jwks_url": provider.jwks_url,
        "audience": AUDIENCE,
        "tokens": {user: await provider.token_for(user) for user in ("alice", "bob", "admin-carol")},
    }


if __name__ == "__main__":
    try:
        asyncio.run(run(arguments()))
    except StackError as error:
        sys.exit(str(error))
