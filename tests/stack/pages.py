"""Our client page, bundled by esbuild and served on an address of its own, for Chromium."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.stack.node import BROWSER, ensure_packages, node
from tests.stack.process import Process, StackError, bare_environment, tail

PAGE = Path(__file__).with_name("client_page.mjs")
BUNDLE_TIMEOUT_S = 60.0
HTML = """<!doctype html><meta charset="utf-8"><title>client</title><link rel="icon" href="data:,">
<body><script src="/page.js"></script></body>"""


async def bundled(script: Path, folder: Path) -> Path:
    """One script for browsers of `script` and all that it imports, in `folder`. Raises StackError with esbuild's words."""
    packages = (await ensure_packages(BROWSER)) / "node_modules"
    folder.mkdir(parents=True, exist_ok=True)
    bundle, log_path = folder / "page.js", folder / "esbuild.log"
    command = [str(node()), str(packages / "esbuild" / "bin" / "esbuild"), str(script)]
    with log_path.open("wb") as log:
        process = Process.start(
            [*command, "--bundle", "--format=iife", "--log-level=warning", f"--outfile={bundle}"],
            env=bare_environment(folder, NODE_PATH=str(packages)),
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        status = await process.wait(BUNDLE_TIMEOUT_S)
    finally:
        await process.kill()
    if status != 0:
        raise StackError(f"esbuild ended with {status}:\n{tail(log_path)}")
    return bundle


@asynccontextmanager
async def site(bundle: Path, port: int) -> AsyncIterator[str]:
    """Serve the bundle in a page; its origin is given, and the page's address is that and a slash."""

    async def html(_: web.Request) -> web.Response:
        return web.Response(text=HTML, content_type="text/html")

    async def script(_: web.Request) -> web.FileResponse:
        return web.FileResponse(bundle)

    app = web.Application()
    app.add_routes([web.get("/", html), web.get("/page.js", script)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
