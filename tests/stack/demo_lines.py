"""What `make demo` puts into its folder and onto the screen: files for each user, and lines that can be pasted."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.stack.node import node, openclaw
from tests.stack.sidecar import Sidecar

EXAMPLE = Path(__file__).with_name("chat_example.py")
TEXT = """
Connect any OpenClaw client to {url} with one of these tokens; they end in 12 hours, or with the demo.

{tokens}
Try, in another terminal:

{tries}
"""


@dataclass(frozen=True, slots=True)
class User:
    name: str
    token: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Of one run of the demo."""

    folder: Path
    packages: Path
    sidecar: Sidecar
    users: Sequence[User]

    def write(self) -> None:
        """`<user>.env` for `.` in a shell, `<user>.token`, `chat.py`, and `try.txt` with the text; tokens for the owner only."""
        for user in self.users:
            _write(self._environment(user.name), self._exports(user), 0o600)
            _write(self.folder / f"{user.name}.token", f"{user.token}\n", 0o600)
        _write(self.folder / "chat.py", f"#!{sys.executable}\n{EXAMPLE.read_text().partition(chr(10))[2]}", 0o700)
        _write(self.folder / "try.txt", self.text(), 0o600)

    def text(self) -> str:
        tokens = "".join(f"{user.name}, whose agent is u-{user.name}:\n{user.token}\n\n" for user in self.users)
        tries = "\n".join(f"# {what}\n{line}\n" for what, line in self._tries())
        return TEXT.format(url=self.sidecar.url, tokens=tokens, tries=tries)

    def _tries(self) -> list[tuple[str, str]]:
        sidecar, chat = self.sidecar, shlex.quote(str(self.folder / "chat.py"))
        bearer = '-H "Authorization: Bearer $OPENCLAW_GATEWAY_TOKEN"'
        bobs = json.dumps({"sessionKey": "agent:u-bob:main"})
        return [
            ("alice's sessions, and nobody else's", self._as("alice", "gateway", "call", "sessions.list", "--json")),
            (
                "bob's session is refused to her",
                self._as("alice", "gateway", "call", "chat.history", "--params", bobs),
            ),
            ("bob in the terminal client; /exit or Ctrl-C twice leaves it", self._as("bob", "tui")),
            ("a Python client, short enough to read", f"(. {self._quoted('alice')} && {chat} 'hello from Python')"),
            (
                "what alice has used of her 100,000 tokens a day; at 80 % her clients are told, at 100 % they are refused",
                f"(. {self._quoted('alice')} && curl -s {bearer} {sidecar.http_url}/api/openclaw/quota)",
            ),
            ("an operator gives her more", self._operator("quota", "set", "example|alice", "daily_tokens", "500000")),
            ("every call of the model, per user", self._operator("usage", "report", "--by", "user")),
            ("is it ready, and what does it wait for", f"curl -s {sidecar.ready_url}"),
            ("its metrics", f"curl -s {sidecar.metrics_url} | grep '^openclaw_sidecar'"),
            ("its log", f"tail -f {shlex.quote(str(sidecar.log_path))}"),
        ]

    def _as(self, user: str, *arguments: str) -> str:
        """`openclaw …` in a subshell, so that the user's shell keeps its own settings."""
        command = shlex.join([str(node()), str(openclaw(self.packages)), *arguments])
        return f"(. {self._quoted(user)} && {command})"

    def _operator(self, *words: str) -> str:
        return shlex.join(
            [str(Path(sys.executable).with_name("sidecar")), *words, "--config", str(self.sidecar.config_path)]
        )

    def _environment(self, user: str) -> Path:
        return self.folder / f"{user}.env"

    def _quoted(self, user: str) -> str:
        return shlex.quote(str(self._environment(user)))

    def _exports(self, user: User) -> str:
        """Where and who, and a state of the client's own: what the reader's `openclaw` knows is left alone."""
        home = self.folder / "clients" / user.name
        settings = {
            "OPENCLAW_GATEWAY_URL": self.sidecar.url,
            "OPENCLAW_GATEWAY_TOKEN": user.token,
            "OPENCLAW_STATE_DIR": str(home / "state"),
            "OPENCLAW_CONFIG_PATH": str(home / "openclaw.json"),
            "NODE_COMPILE_CACHE": str(self.packages.parent / "compiled"),
        }
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
        return f"unset OPENCLAW_GATEWAY_PASSWORD OPENCLAW_PROFILE\n{exports}"


def _write(path: Path, text: str, mode: int) -> None:
    """With its mode from its first byte on."""
    path.unlink(missing_ok=True)
    path.touch(mode=mode)
    path.write_text(text)
