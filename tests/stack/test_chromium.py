"""The browser does as a person would, keeps people apart, reaches nothing outside, and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from tests.stack.chromium import Chromium, PageError, ensure_chromium
from tests.stack.leash import descendants
from tests.stack.pages import PAGE, bundled, site
from tests.stack.proc import eventually, is_alive
from tests.stack.process import StackError, free_port

HTML = """<!doctype html><link rel="icon" href="data:,"><body>
<form><input id="word"></form><div style="height: 3000px"></div><button id="far">far</button><p id="said"></p>
<script>
  const said = (text) => { document.querySelector("#said").textContent += text + "; "; };
  document.querySelector("form").onsubmit = (event) => { event.preventDefault(); said(event.target[0].value); };
  document.querySelector("#far").onclick = (event) => said(event.isTrusted ? "clicked" : "made up");
  said("hello " + (document.cookie || "stranger"));
  document.cookie = "name=known";
  console.log("logged", 7);
  fetch("http://example.invalid/").catch(() => said("nothing outside"));
  const socket = new WebSocket("ws://" + location.host + "/ws");
  socket.onmessage = ({ data }) => socket.send(data + " back");
</script>"""


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text=HTML, content_type="text/html")

    async def socket(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        await answer.send_str("a frame")
        await answer.receive()
        return answer

    app = web.Application()
    app.add_routes([web.get("/", page), web.get("/ws", socket)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    async with Chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


async def test_a_person_at_a_page(chromium: Chromium, tmp_path: Path) -> None:
    async with served() as url:
        page = await chromium.open(url)
        await page.wait_for("hello stranger", "nothing outside")
        await page.type("#word", "schön")
        await page.press_enter()
        await page.wait_for("schön;")
        await page.click("#far")
        await page.wait_for("clicked;")
        assert await page.evaluate("Promise.resolve([1, {a: null}])") == [1, {"a": None}]
        assert "logged 7" in page.console
        assert any("example.invalid" in line or "ERR_NAME_NOT_RESOLVED" in line for line in page.console)
        await page.wait_until("socket.readyState === WebSocket.CLOSED")
        assert (page.frames, page.sent) == (["a frame"], ["a frame back"])
        await page.picture(tmp_path / "page.png")
        assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
        other = await chromium.open(url)
        await other.wait_for("hello stranger")
        await page.go(url)
        await page.wait_for("hello name=known")


async def test_errors_are_told(chromium: Chromium) -> None:
    async with served() as url:
        page = await chromium.open(url)
        with pytest.raises(PageError, match=r"TypeError: .* of null"):
            await page.evaluate("null.missing")
        with pytest.raises(PageError, match=r"to show \('never',\); it shows:\s+far\s+hello"):
            await page.wait_for("never", timeout=0.2)
        with pytest.raises(TimeoutError):
            await page.wait_until("false", timeout=0.2)
        with pytest.raises(PageError, match="Page\\.unknown"):
            await page.call("Page.unknown")
        with pytest.raises(PageError, match="ERR_CONNECTION_REFUSED"):
            await chromium.open(f"http://127.0.0.1:{free_port()}/")


async def test_the_client_page(chromium: Chromium, tmp_path: Path) -> None:
    """It stands, and without anybody who answers it says so."""
    async with site(await bundled(PAGE, tmp_path), free_port()) as origin:
        page = await chromium.open(f"{origin}/")
        await page.evaluate(f"start({{url: 'ws://127.0.0.1:{free_port()}', token: 'x'}})")
        await page.wait_for("away: 1006")


async def test_a_script_that_cannot_be_bundled(tmp_path: Path) -> None:
    script = tmp_path / "broken.mjs"
    script.write_text('import "there-is-no-such-package";')
    with pytest.raises(StackError, match="there-is-no-such-package"):
        await bundled(script, tmp_path)


async def test_nothing_is_left(tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    async with Chromium(tmp_path) as browser:
        await browser.open("about:blank#")
        processes = set(descendants(os.getpid())) - before
        assert len(processes) > 3
    await eventually(lambda: not any(map(is_alive, processes)))
    with pytest.raises(StackError, match="Chromium is not running"):
        await browser.call("Target.getTargets")


def test_without_a_browser_one_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="on Debian with `sudo apt-get install"):
        ensure_chromium()
