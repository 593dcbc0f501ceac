"""What `make demo` puts into its folder and onto the screen: files for each user, and lines that can be pasted."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.stack.node import CACHE, ensured, node, openclaw
from tests.stack.sidecar import Sidecar

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path(__file__).with_name("chat_example.py")


@dataclass(frozen=True, slots=True)
class User:
    name: str
    token: str
    folder: Path
    """The demo's."""

    @property
    def environment(self) -> Path:
        """A file for `.` in a shell: where and who for every OpenClaw client."""
        return self.folder / f"{self.name}.env"


def write_files(folder: Path, packages: Path, url: str, users: Sequence[User]) -> None:
    for user in users:
        _write(user.environment, _exports(user, url, packages), 0o600)
        _write(folder / f"{user.name}.token", user.token + "\n", 0o600)
    body = EXAMPLE.read_text().partition("\n")[2]
    _write(folder / "chat.py", f"#!{sys.executable}\n{body}", 0o700)
