"""The npm packages of a gateway: locked, installed once, whole or absent."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stack.node import BROWSER, LOCKS, VERSION, ensure_packages, folder_for, versions
from tests.stack.process import StackError

ROOT = Path(__file__).parents[2]
OLDER = "2026.8.2"


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("did not come true")


def test_lock_files_name_no_host() -> None:
    assert versions() == [OLDER, VERSION]
    for name in (*versions(), BROWSER):
        text = (LOCKS / name / "package-lock.json").read_text()
        assert '"resolved"' not in text
        assert '"integrity"' in text
        if name != BROWSER:
            assert json.loads(text)["packages"]["node_modules/openclaw"]["version"] == name


async def test_packages_are_installed_once() -> None:
    first, second = await asyncio.gather(ensure_packages(), ensure_packages())
    assert first == second == folder_for(VERSION)
    assert (first / "node_modules" / "openclaw" / "openclaw.mjs").is_file()


async def test_a_version_without_a_lock_file() -> None:
    with pytest.raises(StackError, match="no lock file for gateway 1999"):
        await ensure_packages("1999.1.1")


@pytest.mark.deep
async def test_an_interrupted_install_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    """Killed in the middle, nothing of it stays running; the next one starts over, and a second waits for it."""
    script = f"""
import asyncio
from pathlib import Path
from tests.stack.node import ensure_packages
asyncio.run(ensure_packages({OLDER!r}, cache=Path({str(tmp_path)!r})))
"""
    folder = folder_for(OLDER, tmp_path)
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as installer:
        try:
            await eventually(lambda: any(tmp_path.glob("*.tmp-*/node_modules/*")))
        finally:
            installer.kill()
    assert not folder.exists()
    lines: list[str] = []
    both = [ensure_packages(OLDER, lines.append, tmp_path), ensure_packages(OLDER, lines.append, tmp_path)]
    assert await asyncio.gather(*both) == [folder, folder]
    assert not list(tmp_path.glob("*.tmp-*"))
    assert any(line.startswith("installing gateway") for line in lines)
    assert any(line.startswith("waiting for another") for line in lines)
