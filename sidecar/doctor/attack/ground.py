"""What the attack works with: names that no user can have, and what the victim has to lose. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.gateways.configuration import AgentOptions, agents_patch, closed_agent

PREFIX = "doctor-attack"
PROVIDER = PREFIX
VICTIM, ATTACKER, OPEN = (f"{PROVIDER}/{role}" for role in ("victim", "attacker", "open"))
"""Models, one for each agent: by it a request says who asks. A message that one agent sends another may quote anything."""

OURS = re.compile(r"doctor-attack-[0-9a-f]{8}-(victim|attacker|open)")
"""Agents of this attack or of an earlier one. Users' are called `u-…`."""

LINES = ("alpha", "beta", "gamma")
"""What an attacker may know of the victim's file; the secret stands below."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One attack. `told` and `kept` are secrets of the victim: in her session, and in her file."""

    victim: str
    """Her agent."""

    attacker: str
    open: str
    """An agent that nobody closed, for the control."""

    root: str
    """Of all workspaces, as the gateway sees it."""

    config_path: str
    state_dir: str
    http_url: str
    """Of the gateway, as it reaches itself."""

    log_path: str

    told: str
    kept: str
    session_id: str = ""
    message_id: str = ""
    """What she said, by the transcript's own id."""

    @classmethod
    def new(cls, root: str, config_path: str, state_dir: str, http_url: str, log_path: str = "") -> Ground:
        number = secrets.token_hex(4)
        return cls(
            victim=f"{PREFIX}-{number}-victim",
            attacker=f"{PREFIX}-{number}-attacker",
            open=f"{PREFIX}-{number}-open",
            root=root.rstrip("/"),
            config_path=config_path,
            state_dir=state_dir,
            http_url=http_url,
            log_path=log_path,
            told=f"told{secrets.token_hex(8)}",
            kept=f"kept{secrets.token_hex(8)}",
        )

    def knowing(self, session_id: str, message_id: str) -> Ground:
        return replace(self, session_id=session_id, message_id=message_id)

    @property
    def her_key(self) -> str:
        return f"agent:{self.victim}:main"

    @property
    def her_folder(self) -> str:
        return self.workspace(self.victim)

    @property
    def her_file(self) -> str:
        return f"{self.her_folder}/kept.txt"

    def workspace(self, agent: str) -> str:
        return f"{self.root}/{agent}/workspace"

    def dotted(self, name: str) -> str:
        """Her file `name`, by a way out of the attacker's workspace."""
        return f"../../{self.victim}/workspace/{name}"


def roster(
    ground: Ground, source: Mapping[str, Any], effective: Mapping[str, Any], options: AgentOptions, *, control: bool
) -> dict[str, Any]:
    """The merge patch of `agents`: victim and attacker are what users' agents are, but for their model."""
    entries = {
        slug: closed_agent(slug, ground.workspace(slug), replace(options, model_allow=(model,)), effective)
        | _asks(model)
        for slug, model in ((ground.victim, VICTIM), (ground.attacker, ATTACKER))
    }
    if control:
        everybody = {"subagents": {"allowAgents": ["*"]}}
        entries[ground.open] = {"workspace": ground.workspace(ground.open), **everybody, **_asks(OPEN)}
    return agents_patch(source, entries)


def _asks(model: str) -> dict[str, Any]:
    return {"model": {"primary": model}, "utilityModel": model}


def provider(base_url: str, key: str) -> dict[str, Any]:
    """Our own models, for nothing."""
    models = [
        {
            "id": name.partition("/")[2],
            "name": "sidecar doctor",
            "reasoning": False,
            "input": ["text"],
            "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
            "contextWindow": 200_000,
            "maxTokens": 8192,
        }
        for name in (VICTIM, ATTACKER, OPEN)
    ]
    return {"baseUrl": base_url, "apiKey": key, "api": "openai-completions", "models": models}


def id_of(message: Mapping[str, Any]) -> str:
    """Of a message in `chat.history`."""
    return str(_at(message, "__openclaw").get("id", ""))


def leftovers(source: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Agents of earlier attacks, and whether their provider is still there."""
    entries, providers = (_at(source, *path) for path in (("agents", "entries"), ("models", "providers")))
    return [name for name in entries if OURS.fullmatch(name)], PROVIDER in providers


def _at(source: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    value: Any = source
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


Word = Callable[[Ground], str]
