"""Debian's Chromium without a window, told what to do in its DevTools protocol over a pipe.

    python -m tests.stack.chromium      install it where it is missing

Each page is a person of its own: cookies and storage are shared with no other. Nothing but 127.0.0.1 can be reached.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.stack.process import Process, StackError, bare_environment, tail

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install --no-install-recommends chromium"
INSTALL_TIMEOUT_S = 600
MESSAGE_LIMIT = 256 * 1024 * 1024
PATIENCE_S = 60.0
POLL_S = 0.05

FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
    "--password-store=basic", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip

Message = dict[str, Any]


class PageError(Exception):
    """The page, or the browser, said no; the message is its own."""


def ensure_chromium() -> Path:
    """The browser's path, installed first where it is missing and this is root on Debian. Raises StackError with what to do."""
    found = _found()
    if found is None and (os.geteuid() != 0 or shutil.which("apt-get") is None):
        raise StackError(f"no Chromium: install it, on Debian with `sudo {INSTALL}`; tests in a browser need it")
    if found is None:
        found = _install()
    return found


def _found() -> Path | None:
    return next((Path(path) for name in NAMES if (path := shutil.which(name))), None)


def _install() -> Path:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with (Path(tempfile.gettempdir()) / "stack-chromium.lock").open("w") as lock, tempfile.TemporaryFile() as log:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one installer at a time, across processes
        for command in ("apt-get update", f"{INSTALL} --yes"):
            if _found() is None:
                subprocess.run(
                    command.split(), env=environment, stdout=log, stderr=log, timeout=INSTALL_TIMEOUT_S, check=False
                )
        if (found := _found()) is None:
            log.seek(0)
            raise StackError(f"`{INSTALL}` did not bring Chromium:\n{log.read().decode(errors='replace')[-2000:]}")
    return found


class Chromium:
    """`async with Chromium(folder) as chromium:`; the browser and all of its processes end with it."""

    def __init__(self, folder: Path) -> None:
        self.log_path = folder / "chromium.log"
        self._folder = folder
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._pages: dict[str, Page] = {}
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Chromium:
        path = await asyncio.to_thread(ensure_chromium)
        self._folder.mkdir(parents=True, exist_ok=True)
        flags = [*FLAGS, f"--user-data-dir={self._folder / 'profile'}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium's own does not start for root
        with self.log_path.open("ab") as log:
            self._process = Process.start(
                # It reads from descriptor 3 and writes to 4.
                ["/bin/sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >&2', "sh", str(path), *flags],
                env=bare_environment(self._folder),
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._reader = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            await self._process.kill()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def open(self, url: str) -> Page:
        """A page at `url`, loaded, of a person who was never here. Raises PageError."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"])
        self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.call(f"{domain}.enable")
        await page.go(url)
        return page

    async def call(self, method: str, session: str = "", /, **params: Any) -> Any:
        """One command of the protocol and its result. Raises PageError, StackError (the browser ended), TimeoutError."""
        if self._process is None or self._process.stdin is None or self._process.returncode is not None:
            raise StackError(f"Chromium is not running:\n{tail(self.log_path)}")
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        try:
            async with asyncio.timeout(PATIENCE_S):
                answered = await answer
        finally:
            del self._waiting[number]
        if "error" in answered:
            raise PageError(f"{method}: {answered['error']['message']}")
        return answered["result"]

    async def _read(self, process: Process) -> None:
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=MESSAGE_LIMIT)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), process.take_stdout())
        try:
            while True:
                self._take(json.loads((await stream.readuntil(b"\0"))[:-1]))
        except asyncio.IncompleteReadError:
            pass
        finally:
            transport.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(StackError(f"Chromium ended:\n{tail(self.log_path)}"))

    def _take(self, message: Message) -> None:
        answer = self._waiting.get(message.get("id", 0))
        page = self._pages.get(message.get("sessionId", ""))
        if answer is not None and not answer.done():
            answer.set_result(message)
        elif page is not None and "method" in message:
            page.take(message["method"], message["params"])


class Page:
    """One tab. Selectors are CSS; expressions are JavaScript, promises are awaited, values are JSON."""

    def __init__(self, chromium: Chromium, session: str) -> None:
        self.console: list[str] = []
        """What the page logged, what it threw, and what the browser said of it: failed requests, refused sockets."""
        self.frames: list[str] = []
        """Text of all WebSocket frames that came to the page, raw."""
        self.sent: list[str] = []
        """Those that it sent."""
        self._chromium = chromium
        self._session = session

    async def call(self, method: str, **params: Any) -> Any:
        """A command of the DevTools protocol, for this page."""
        return await self._chromium.call(method, self._session, **params)

    async def go(self, url: str) -> None:
        """Load an address, to its end. Raises PageError."""
        loaded = await self.call("Page.navigate", url=url)
        if loaded.get("errorText"):
            raise PageError(f"{url}: {loaded['errorText']}")
        await self.wait_until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def evaluate(self, expression: str) -> Any:
        """Raises PageError with what was thrown."""
        evaluated = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if thrown := evaluated.get("exceptionDetails"):
            raise PageError(thrown.get("exception", {}).get("description") or thrown["text"])
        return evaluated["result"].get("value")

    async def text(self) -> str:
        """All that a person can read."""
        return str(await self.evaluate("document.body.innerText"))

    async def wait_for(self, *texts: str, timeout: float = PATIENCE_S) -> str:
        """What a person reads once all the texts are there. Raises PageError with what is there instead."""
        return await self._wait(lambda shown: all(text in shown for text in texts), timeout, f"to show {texts}")

    async def wait_gone(self, text: str, *, timeout: float = PATIENCE_S) -> str:
        return await self._wait(lambda shown: text not in shown, timeout, f"to stop showing {text!r}")

    async def wait_until(self, expression: str, *, timeout: float = PATIENCE_S) -> None:
        """Until the expression is true. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not await self.evaluate(expression):
                await asyncio.sleep(POLL_S)

    async def click(self, selector: str) -> None:
        """With the mouse, in the middle of the first such element, once it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        await self.wait_until(f"!!{found}?.getClientRects().length")
        box = await self.evaluate(
            f"({found}.scrollIntoView({{block: 'center'}}), {found}.getBoundingClientRect().toJSON())"
        )
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, **at)

    async def type(self, selector: str, text: str) -> None:
        """Click, and write over what stands there."""
        await self.click(selector)
        await self.evaluate("document.activeElement.select?.()")
        await self.call("Input.insertText", text=text)

    async def press_enter(self) -> None:
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, **key)

    async def picture(self, path: Path) -> None:
        """Write a PNG of what is to be seen."""
        taken = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(taken["data"]))

    def take(self, method: str, params: Message) -> None:
        """News of the browser about this page."""
        match method:
            case "Network.webSocketFrameReceived":
                self.frames.append(params["response"]["payloadData"])
            case "Network.webSocketFrameSent":
                self.sent.append(params["response"]["payloadData"])
            case "Log.entryAdded":
                self.console.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled":
                self.console.append(
                    " ".join(str(part.get("value", part.get("description"))) for part in params["args"])
                )
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description") or details["text"])

    async def _wait(self, holds: Callable[[str], bool], timeout: float, what: str) -> str:
        deadline = asyncio.get_running_loop().time() + timeout
        while not holds(shown := await self.text()):
            if asyncio.get_running_loop().time() > deadline:
                raise PageError(f"waited {timeout:.0f} s for the page {what}; it shows:\n{shown}\n{self.console[-5:]}")
            await asyncio.sleep(POLL_S)
        return shown


if __name__ == "__main__":
    print(f"Chromium is {ensure_chromium()}")
