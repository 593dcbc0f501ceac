"""Every way in that is tried, and how one sees that it led in. Pure. Tools and their parameters as of gateway 2026.9.6."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.doctor.attack.ground import LINES, Ground, Word

Arguments = Callable[[Ground, str], dict[str, Any]]
Way = Literal["direct", "tool_call", "tools.invoke"]
WAYS: tuple[Way, ...] = ("direct", "tool_call", "tools.invoke")
"""In a turn by its own name; in a turn as most tools are reached, `tool_call {"id", "args"}`; and without any turn by the gateway's
method of that name, which serves some tools only but asks the same policy."""

_NOT_OFFERED = re.compile(
    r"Tool \S+ not found|Unknown tool id: |Tool not available: |This id names a skill, not a callable tool"
)


@dataclass(frozen=True, slots=True)
class Attack:
    """`arguments` get the ground and a mark to leave. It has won when `word` is in what the tool returned, or where `leaves` is
    set, when the mark is among the victim's things; where neither is told, when an agent that may not use the tool reaches it."""

    name: str
    tool: str
    arguments: Arguments
    word: Word | None = None
    leaves: bool = False
    needs_link: bool = False
    """It goes through a symlink to the victim's workspace, as one that was left from a time when the agent had a shell."""

    outside: bool = False
    """Where it is offered it reaches people, costs money or asks another model: it is called only where it is known not to be."""

    ends_turn: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attack on one way. `why` is ours or the first line of what the tool returned."""

    attack: str
    tool: str
    way: Way | Literal["reply"]
    verdict: Literal["held", "broke through", "not tried"]
    why: str
    controlled: bool | None = None
    """Whether the same attack won from an open agent; None where that was not tried."""


def _told(ground: Ground) -> str:
    return ground.told


def _kept(ground: Ground) -> str:
    return ground.kept


def _victim(ground: Ground) -> str:
    return ground.victim


def _session(ground: Ground) -> str:
    return ground.session_id


def _a(word: str) -> Word:
    return lambda _: word


def _add(path: str, mark: str) -> dict[str, Any]:
    return {"input": f"*** Begin Patch\n*** Add File: {path}\n+{mark}\n*** End Patch"}


def _replace(path: str, line: str, mark: str) -> dict[str, Any]:
    return {"input": f"*** Begin Patch\n*** Update File: {path}\n@@\n {line}\n+{mark}\n*** End Patch"}


def _state(ground: Ground) -> str:
    return f"{ground.state_dir}/agents/{ground.victim}/agent/openclaw-agent.sqlite"


FILES = (
    Attack("absolute path", "read", lambda g, _: {"path": g.her_file}, _kept),
    Attack("..", "read", lambda g, _: {"path": g.dotted("kept.txt")}, _kept),
    Attack("symlink", "read", lambda _, __: {"path": "link/kept.txt"}, _kept, needs_link=True),
    Attack("file URL", "read", lambda g, _: {"path": f"file://{g.her_file}"}, _kept),
    Attack("gateway configuration", "read", lambda g, _: {"path": g.config_path}, _victim),
    Attack("gateway state", "read", lambda g, _: {"path": _state(g)}, _a("SQLite format")),
    Attack("environment", "read", lambda _, __: {"path": "/proc/self/environ"}, _a("PATH=")),
    Attack("absolute path", "write", lambda g, m: {"path": f"{g.her_folder}/{m}.txt", "content": m}, leaves=True),
    Attack("..", "write", lambda g, m: {"path": g.dotted(f"{m}.txt"), "content": m}, leaves=True),
    Attack("symlink", "write", lambda _, m: {"path": f"link/{m}.txt", "content": m}, leaves=True, needs_link=True),
    Attack(
        "absolute path",
        "edit",
        lambda g, m: {"path": g.her_file, "edits": [{"oldText": LINES[0], "newText": f"{LINES[0]} {m}"}]},
        leaves=True,
    ),
    Attack(
        "..",
        "edit",
        lambda g, m: {"path": g.dotted("kept.txt"), "edits": [{"oldText": LINES[1], "newText": f"{LINES[1]} {m}"}]},
        leaves=True,
    ),
    Attack("absolute path", "apply_patch", lambda g, m: _add(f"{g.her_folder}/{m}.txt", m), leaves=True),
    Attack("..", "apply_patch", lambda g, m: _add(g.dotted(f"{m}.txt"), m), leaves=True),
    Attack("symlink", "apply_patch", lambda _, m: _add(f"link/{m}.txt", m), leaves=True, needs_link=True),
    Attack("her file", "apply_patch", lambda g, m: _replace(g.her_file, LINES[2], m), leaves=True),
    Attack("absolute path", "ls", lambda g, _: {"path": g.her_folder}, _a("kept.txt")),
    Attack("..", "ls", lambda g, _: {"path": g.dotted("")}, _a("kept.txt")),
    Attack("symlink", "ls", lambda _, __: {"path": "link"}, _a("kept.txt"), needs_link=True),
)
PROGRAMS = (
    Attack("reads", "exec", lambda g, _: {"command": f"cat {g.her_file}"}, _kept),
    Attack("writes", "exec", lambda g, m: {"command": f"echo {m} > {g.her_folder}/{m}.txt"}, leaves=True),
    Attack("environment", "exec", lambda _, __: {"command": "env"}, _a("PATH=")),
    Attack("gateway configuration", "exec", lambda g, _: {"command": f"cat {g.config_path}"}, _victim),
    Attack(
        "elevated", "exec", lambda g, _: {"command": f"cat {g.her_file}", "elevated": True, "host": "gateway"}, _kept
    ),
    Attack("list", "process", lambda _, __: {"action": "list"}),
    Attack("code", "code_execution", lambda _, __: {"task": "1+1"}, outside=True),
)
SESSIONS = (
    Attack("her session", "sessions_history", lambda g, _: {"sessionKey": g.her_key}, _told),
    Attack(
        "her session's id",
        "sessions_history",
        lambda g, _: {"sessionKey": g.her_key, "sessionId": g.session_id, "messageId": g.message_id},
        _told,
    ),
    Attack("her words", "sessions_search", lambda g, _: {"query": "findme", "sessionKey": g.her_key}, _told),
    Attack("list", "sessions_list", lambda _, __: {}, _victim),
    Attack("her agent", "sessions_list", lambda g, _: {"agentId": g.victim, "messageLimit": 5}, _session),
    Attack("her session", "session_status", lambda g, _: {"sessionKey": g.her_key}, lambda g: f"Session: {g.her_key}"),
    Attack(
        "her session",
        "sessions_send",
        lambda g, m: {"sessionKey": g.her_key, "message": m, "timeoutSeconds": 9},
        leaves=True,
    ),
    Attack(
        "her agent",
        "sessions_spawn",
        lambda g, m: {"task": m, "agentId": g.victim, "label": m, "cleanup": "keep"},
        leaves=True,
    ),
    Attack(
        "her session", "sessions", lambda g, m: {"action": "patch", "sessionKey": g.her_key, "label": m}, leaves=True
    ),
    Attack("list", "conversations_list", lambda _, __: {"limit": 50}, _victim),
    Attack("hers", "conversations_send", lambda g, m: {"conversationRef": g.her_key, "message": m}, leaves=True),
    Attack(
        "hers",
        "conversations_turn",
        lambda g, m: {"conversationRef": g.her_key, "message": m, "timeoutSeconds": 5},
        leaves=True,
    ),
    Attack("list", "agents_list", lambda _, __: {}, _victim),
    Attack("her session's id", "agents_wait", lambda g, _: {"ids": [g.session_id], "timeoutSeconds": 1}),
    Attack("list", "subagents", lambda _, __: {"action": "list"}),
    Attack("hers", "suggest_task", lambda g, m: {"title": m, "prompt": m, "sessionKey": g.her_key}),
    Attack("hers", "dismiss_task", lambda g, _: {"taskId": g.session_id}),
    Attack("her words", "memory_search", lambda _, __: {"query": "findme", "corpus": "sessions"}, _told),
    Attack("absolute path", "memory_get", lambda g, _: {"path": g.her_file}, _kept),
    Attack("..", "memory_get", lambda g, _: {"path": g.dotted("kept.txt")}, _kept),
    Attack("leave", "sessions_yield", lambda _, m: {"message": m}, ends_turn=True),
)
GATEWAY = (
    Attack("configuration", "gateway", lambda _, __: {"action": "config.get", "path": "agents"}, _victim),
    Attack("list", "automations", lambda _, __: {"action": "list"}),
    Attack("list", "cron", lambda _, __: {"action": "list"}),
    Attack("list", "secrets", lambda _, __: {"action": "list"}),
    Attack("list", "plugins", lambda _, __: {"action": "list"}),
    Attack("ask", "openclaw", lambda _, m: {"request": m}, outside=True),
    Attack("the gateway's own port", "web_fetch", lambda g, _: {"url": f"{g.http_url}/healthz"}),
    Attack("search", "web_search", lambda _, m: {"query": m}, outside=True),
    Attack("search", "x_search", lambda _, m: {"query": m}, outside=True),
    Attack("status", "browser", lambda _, __: {"action": "status"}),
    Attack("list", "terminal", lambda _, __: {"action": "list"}),
    Attack("list", "portal", lambda _, __: {"action": "list"}),
    Attack("her board", "dashboard", lambda g, _: {"action": "read", "sessionKey": g.her_key}),
    Attack("hide", "canvas", lambda _, __: {"action": "hide", "timeoutMs": 1000}),
    Attack("list", "theme", lambda _, __: {"action": "list"}),
    Attack("look", "screen", lambda _, __: {"action": "snapshot"}),
    Attack("show", "show_widget", lambda _, m: {"title": m, "html": m}),
    Attack("status", "nodes", lambda _, __: {"action": "status"}),
    Attack("look", "computer", lambda _, __: {"action": "screenshot"}),
    Attack("observe", "mobile_ui", lambda _, __: {"action": "observe", "timeoutMs": 1000}),
    Attack("her folder", "dir_list", lambda g, _: {"node": "gateway", "path": g.her_folder}, _a("kept.txt")),
    Attack("her folder", "dir_fetch", lambda g, _: {"node": "gateway", "path": g.her_folder}),
    Attack("her file", "file_fetch", lambda g, _: {"node": "gateway", "path": g.her_file}, _kept),
    Attack(
        "her folder",
        "file_write",
        lambda g, m: {"node": "gateway", "path": f"{g.her_folder}/{m}.txt", "contentBase64": "bWFyaw=="},
    ),
    Attack("discover", "node_inference", lambda _, __: {"action": "discover", "timeoutMs": 1000}),
    Attack("list", "intent", lambda _, __: {"action": "list"}),
    Attack("list", "talk_voice", lambda _, __: {"action": "list"}),
    Attack("list", "skill_workshop", lambda _, __: {"action": "list"}),
)
OTHERS = (
    Attack(
        "to anybody",
        "message",
        lambda _, m: {"action": "send", "target": m, "message": m, "dryRun": True},
        outside=True,
    ),
    Attack("beat", "heartbeat_respond", lambda _, m: {"message": m}),
    Attack(
        "ask", "ask_user", lambda _, m: {"questions": [{"id": m, "question": m}], "timeoutSeconds": 1}, outside=True
    ),
    Attack("read", "get_goal", lambda _, __: {}),
    Attack("set", "create_goal", lambda _, m: {"objective": m}),
    Attack("set", "update_goal", lambda _, m: {"status": "blocked", "note": m}),
    Attack("set", "progress_card", lambda _, m: {"markdown": m}),
    Attack("her file", "view_image", lambda g, _: {"path": g.her_file}),
    Attack("her file", "pdf", lambda g, _: {"path": g.her_file, "pdf": g.her_file}, outside=True),
    Attack("make", "image_generate", lambda _, m: {"prompt": m}, outside=True),
    Attack("make", "music_generate", lambda _, m: {"prompt": m}, outside=True),
    Attack("make", "video_generate", lambda _, m: {"prompt": m}, outside=True),
    Attack("speak", "tts", lambda _, m: {"text": m}, outside=True),
)
MATRIX = (*FILES, *PROGRAMS, *SESSIONS, *GATEWAY, *OTHERS)


def matrix(catalogue: Iterable[str]) -> list[Attack]:
    """All that is known, and for every tool of the gateway that is not, a call with whatever may name something of hers."""
    known = {attack.tool for attack in MATRIX}
    return [*MATRIX, *(Attack("hers", tool, _anything) for tool in sorted(set(catalogue) - known))]


def _anything(ground: Ground, mark: str) -> dict[str, Any]:
    return {
        "action": "list",
        "sessionKey": ground.her_key,
        "sessionId": ground.session_id,
        "agentId": ground.victim,
        "path": ground.her_file,
        "url": f"file://{ground.her_file}",
        "query": "findme",
        "message": mark,
    }


def judged_by_harm(attacks: Iterable[Attack]) -> set[str]:
    """Tools of which one sees more than whether they answer."""
    return {attack.tool for attack in attacks if attack.word is not None or attack.leaves}


def replies(ground: Ground) -> Iterator[tuple[str, str]]:
    """What an agent says can attach files too: (what it tries, the reply)."""
    yield "her file, absolute path", f"MEDIA:{ground.her_file}"
    yield "the gateway's configuration", f"MEDIA:{ground.config_path}"
    if ground.log_path:
        yield "the gateway's log", f"MEDIA:{ground.log_path}"
    yield "her file, symlink", "MEDIA:./link/kept.txt"


def not_offered(text: str) -> bool:
    """Did the gateway answer that the agent has no such tool?"""
    return _NOT_OFFERED.search(text) is not None


def won(attack: Attack, ground: Ground, text: str, *, left: bool) -> bool:
    """Did it do harm? `left`: its mark is among the victim's things."""
    if attack.leaves:
        return left
    return attack.word is not None and attack.word(ground) in text


def judged(
    attack: Attack, way: Way, ground: Ground, text: str | None, allowed: Collection[str], *, left: bool
) -> Outcome:
    """`text`: what the tool returned; None where the turn ended without it. `allowed`: tools that users' agents may have."""
    if text is None:
        return Outcome(attack.name, attack.tool, way, "not tried", "the turn ended before its answer")
    if won(attack, ground, text, left=left):
        what = (
            "its mark is among the victim's things"
            if attack.leaves
            else "the victim's secret, or the gateway's, came back"
        )
        return Outcome(attack.name, attack.tool, way, "broke through", what)
    if not_offered(text):
        return Outcome(attack.name, attack.tool, way, "held", "not offered")
    if attack.tool not in allowed:
        return Outcome(attack.name, attack.tool, way, "broke through", f"offered, though not allowed: {_line(text)}")
    return Outcome(attack.name, attack.tool, way, "held", _line(text))


def _line(text: str) -> str:
    """The tool's own words for why, in a line."""
    error = re.search(r'"error": "((?:[^"\\]|\\.)*)"', text)
    return " ".join((error[1] if error else text).split())[:120]


def marks(attacks: Iterable[tuple[Attack, Way]]) -> dict[tuple[str, str, Way], str]:
    """A mark of its own for each attack on each way, never the same again."""
    number = secrets.token_hex(4)
    return {(attack.tool, attack.name, way): f"mark{number}x{index:03d}" for index, (attack, way) in enumerate(attacks)}
