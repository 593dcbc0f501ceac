"""What a gateway's configuration must say where one agent is everybody's. Pure, as `configuration`.

An agent has more than sessions: files that the gateway puts into every prompt (`MEMORY.md`, `USER.md`) and into the first one after
a soft reset (`memory/*.md`), a search over all transcripts, learned skills. The gateway fills them from whoever speaks, by itself:
memory flush, dreaming, the hook `session-memory`, self-learning (seen on 2026.9.6; `docs/concepts/memory.md` of the package). Each
would carry one user's words to the next, so none of them is read by this agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MEMORY = {"search": {"enabled": False, "rememberAcrossConversations": False}}
_KEPT_APART = frozenset({"memory-core", "none"})
"""Memory plugins that ask before they put anything into a prompt whether the agent may call their tools."""


def as_shared(entry: Mapping[str, Any], tools_allow: Sequence[str]) -> dict[str, Any]:
    """The entry of a closed agent, closed further: nothing that one user said or left reaches the next.

    No tool at all is `deny: ["*"]`: with an empty `allow` 2026.9.6 still offers its tool search, and an `allow` of which no tool
    is there fails every turn.
    """
    tools = {name: value for name, value in entry["tools"].items() if name != "allow"}
    chosen = {"allow": list(tools_allow)} if tools_allow else {"deny": ["*"]}
    return {**entry, "tools": {**chosen, **tools}, "contextInjection": "never", "skills": [], "memory": _MEMORY}


def shared_settings(config: Mapping[str, Any]) -> list[str]:
    """The gateway's own settings, each with its mend, through which a shared agent would tell one user of another.

    They hold for all agents of the gateway, so they are the operator's to close.
    """
    wrong = []
    defaults = _object(_object(config, "agents"), "defaults")
    if _object(defaults, "startupContext").get("enabled") is not False:
        wrong.append("agents.defaults.startupContext.enabled must be false")
    if _object(_object(config, "plugins"), "slots").get("memory", "memory-core") not in _KEPT_APART:
        wrong.append('plugins.slots.memory must be "memory-core" or "none"')
    return wrong


def _object(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}
