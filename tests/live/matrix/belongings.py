"""How one comes to have a thing of each kind: name of the kind → what makes one, and the names by which examples call it.

As seen on 2026.9.6 and 2026.8.2. Where the methods that make a thing are closed to users, or need admin, they are called at the
gateway itself: by the user's own device, or by its admin.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from tests.live.matrix.person import PATIENCE_S, Person, new_names
from tests.stack.raw import Frame, RequestError, is_end_of, text_of

Made = dict[str, Any]
Maker = Callable[[Person], Awaitable[Made]]

_BUSY = re.compile(r"while the agent is working|still running|still active|is active", re.IGNORECASE)
HELD = "[[wait 900000]]"
"""A model that says this waits longer than any test."""

DIARY = """# Dream Diary

<!-- openclaw:dreaming:diary:start -->
---

*November 20, 2026 at 3:00 AM*

{mark} in a dream.

---

*November 20, 2026 at 3:00 AM*

{mark} in a dream.
<!-- openclaw:dreaming:diary:end -->
"""


async def everything(one: Person) -> None:
    """Two sessions with marks, files in the workspace, and one thing of each kind."""
    one.known |= {"agent": one.slug, "slug": one.slug, "main": one.key("main"), "notes": one.key("notes")}
    one.known |= {"workspace": str(one.workspace), "state": str(one.house.gateway.state_dir)}
    await one.client.request("sessions.subscribe")
    one.known["profile"] = (await one.client.request("users.self"))["profile"]["id"]
    await one.chat("main", f"first {one.mark('main-text')}")
    _write_files(one)
    run = f"run-{uuid.uuid4().hex}"
    await one.chat("notes", f"{one.mark('notes-text')} findme", idempotencyKey=run)
    await one.client.request("sessions.patch", {"key": "notes", "label": one.mark("notes-label")})
    one.known |= {"run": run, "file": f"{one.mark('file-name')}.txt"}
    await _look_into_notes(one)
    for make in MAKERS.values():
        one.known |= await make(one)


def _write_files(one: Person) -> None:
    one.workspace.joinpath(f"{one.mark('file-name')}.txt").write_text(one.mark("file-text"))
    one.workspace.joinpath("USER.md").write_text(f"# Who\n\n{one.mark('user-file')}\n")
    one.workspace.joinpath("IDENTITY.md").write_text(f"# IDENTITY.md\n\n- **Name:** {one.mark('identity')}\n")
    one.workspace.joinpath("MEMORY.md").write_text(f"# Memory\n\nfindme {one.mark('memory')}\n")
    one.workspace.joinpath("memory").mkdir(exist_ok=True)
    one.workspace.joinpath("memory", "2026-11-20.md").write_text(f"# Day\n\n- findme {one.mark('memory-day')}\n")
    one.workspace.joinpath("DREAMS.md").write_text(DIARY.format(mark=one.mark("dream")))
    skill = one.workspace / "skills" / one.mark("skill")
    skill.mkdir(parents=True, exist_ok=True)
    head = f"name: {one.mark('skill')}\ndescription: {one.mark('skill-text')}\nuser-invocable: true"
    skill.joinpath("SKILL.md").write_text(f"---\n{head}\n---\n\nDo it.\n")


async def _look_into_notes(one: Person) -> None:
    notes = await one.client.request("chat.history", {"sessionKey": "notes"})
    said = {message["role"]: message["__openclaw"]["id"] for message in notes["messages"]}
    one.known |= {"session_id": notes["sessionId"], "message": said["user"], "reply": said["assistant"]}


async def session(one: Person) -> Made:
    """Two turns."""
    short = uuid.uuid4()
    key = one.key(f"dashboard:{short}")
    await one.chat(key, f"one {one.mark('session-one')}")
    await one.chat(key, f"two {one.mark('session-two')}")
    history = await one.client.request("chat.history", {"sessionKey": key})
    asked = [message["__openclaw"]["id"] for message in history["messages"] if message["role"] == "user"]
    await settled(one, key)
    return {"session": key, "short": str(short)[:8], "entry": asked[1], "session_session_id": history["sessionId"]}


async def settled(one: Person, key: str) -> None:
    """No run lives there any more: the last event of one comes a moment before that."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            row = (await one.bare.request("sessions.describe", {"key": key})).get("session") or {}
            if not row.get("hasActiveRun"):
                return
            await asyncio.sleep(0.05)


async def once_idle(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again while the gateway says that the agent is still at work, as it does for a moment after a run's last event."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await ask()
            except RequestError as error:
                if not _BUSY.search(str(error)):
                    raise
            await asyncio.sleep(0.1)


async def rewound(one: Person) -> Made:
    """A session with two branches; `leaf` ends the one that is left."""
    made = await session(one)
    key = made["session"]
    await once_idle(lambda: one.admin.request("sessions.rewind", {"sessionKey": key, "entryId": made["entry"]}))
    branches = (await one.bare.request("sessions.branches.list", {"sessionKey": key}))["branches"]
    left = [branch["leafEntryId"] for branch in branches if not branch.get("active")]
    return {"branched": key, "leaf": left[0], "branched_entry": made["entry"]}


async def compacted(one: Person) -> Made:
    """A session that was made shorter; on 2026.8.2 with a checkpoint of how it was before."""
    key = (await session(one))["session"]
    await one.admin.request("sessions.compact", {"key": key}, timeout=PATIENCE_S)
    if one.version != "2026.8.2":
        return {"compacted": key, "checkpoint": str(uuid.uuid4())}
    found = (await one.bare.request("sessions.compaction.list", {"key": key}))["checkpoints"]
    return {"compacted": key, "checkpoint": found[0]["checkpointId"]}


async def goal(one: Person) -> Made:
    """A session that works towards something; paused, so that `resume` has something to do."""
    key, names = one.key(f"goal-{uuid.uuid4().hex[:8]}"), new_names()
    since = len(one.client.frames)
    sent = {"sessionKey": key, "message": one.mark("goal"), "idempotencyKey": names["new"]}
    intent = {"kind": "session-goal-start", "version": 1, "issuedAtMs": names["now"]}
    await one.client.request("sessions.create", {"key": key})
    started = await one.client.request("chat.send", sent | {"intent": intent})
    await one.client.wait_for(is_end_of(names["new"]), since=since, timeout=PATIENCE_S)
    await settled(one, key)
    paused = {"sessionKey": key, "goalId": started["goalId"], "action": "pause", "operationId": names["other"]}
    await one.bare.request("sessions.goal.update", paused | {"issuedAtMs": names["now"]})
    return {"goal_key": key, "goal": started["goalId"]}


async def live_run(one: Person) -> Made:
    """A run that goes on until somebody ends it."""
    key, run = one.key(f"live-{uuid.uuid4().hex[:8]}"), f"live-{uuid.uuid4().hex}"
    await one.client.request("sessions.create", {"key": key})
    sent = {"sessionKey": key, "message": f"{HELD} {one.mark('live')}", "idempotencyKey": run}
    await one.client.request("chat.send", sent)
    await one.client.wait_for(_told_of("agent", run), timeout=PATIENCE_S)
    return {"live_key": key, "live_run": run}


async def board(one: Person) -> Made:
    key = one.key(f"board-{uuid.uuid4().hex[:8]}")
    await one.client.request("sessions.create", {"key": key})
    tab = {"kind": "tab_create", "tabId": "tab", "title": one.mark("tab")}
    await one.client.request("board.update", {"sessionKey": key, "ops": [tab]})
    html = f"<b>{one.mark('widget')}</b>"
    await one.bare.request(
        "board.widget.put", {"sessionKey": key, "name": "widget", "content": {"kind": "html", "html": html}}
    )
    await one.client.request("progressCard.put", {"sessionKey": key, "markdown": one.mark("card")})
    return {"board_key": key}


async def exec_approval(one: Person) -> Made:
    """As a run with a shell would ask. The event goes to the other connections of the device: the sidecar's."""
    since = len(one.client.frames)
    wanted: Made = {"command": f"echo {one.mark('command')}", "agentId": one.slug, "sessionKey": one.key("main")}
    made = await one.bare.request("exec.approval.request", wanted | {"twoPhase": True, "timeoutMs": 900_000})
    await one.client.wait_for(_told_of("exec.approval.requested", made["id"]), since=since)
    return {"exec_approval": made["id"]}


async def plugin_approval(one: Person) -> Made:
    since = len(one.client.frames)
    wanted: Made = {"title": one.mark("approval"), "description": one.mark("approval-why"), "agentId": one.slug}
    wanted |= {"sessionKey": one.key("main"), "twoPhase": True, "timeoutMs": 600_000}
    made = await one.bare.request("plugin.approval.request", wanted)
    await one.client.wait_for(_told_of("plugin.approval.requested", made["id"]), since=since)
    return {"plugin_approval": made["id"]}


async def question(one: Person) -> Made:
    asked: Made = {"id": "colour", "header": "Colour", "question": f"which one, {one.mark('question')}?"}
    asked |= {"options": [{"label": "red"}, {"label": one.mark("option")}]}
    key = await _agent_calls(one, "ask_user", {"questions": [asked], "timeoutSeconds": 3600})
    told = await one.client.wait_for(_event_in("question.requested", key), timeout=PATIENCE_S)
    return {"question": told["payload"]["id"]}


async def task(one: Person) -> Made:
    """A sub-agent at work."""
    wanted = {"task": f"{HELD} {one.mark('task')}", "label": one.mark("task-label")}
    key = await _agent_calls(one, "sessions_spawn", wanted)
    told = await one.client.wait_for(_event_in("task", key), timeout=PATIENCE_S)
    task = told["payload"]["task"]
    return {"task": task["id"], "child": task["childSessionKey"], "task_run": task.get("runId") or task["id"]}


async def _agent_calls(one: Person, tool: str, arguments: Made) -> str:
    """In a session of its own; its key. 2026.9.6 lets models call most tools through `tool_call` alone."""
    key = one.key(f"{tool.replace('_', '-')}-{uuid.uuid4().hex[:8]}")
    call = (tool, arguments) if one.version == "2026.8.2" else ("tool_call", {"id": tool, "args": arguments})
    message = f"[[tool {call[0]} {json.dumps(call[1])}]]"
    await one.client.request("sessions.create", {"key": key})
    await one.client.request("chat.send", {"sessionKey": key, "message": message, "idempotencyKey": uuid.uuid4().hex})
    return key


async def suggestion(one: Person) -> Made:
    since = len(one.client.frames)
    words = {word: one.mark(f"suggestion-{word}") for word in ("title", "prompt", "tldr")}
    made = await one.bare.request(
        "taskSuggestions.create", {**words, "cwd": str(one.workspace), "sessionKey": one.key("main")}
    )
    await one.client.wait_for(_told_of("task.suggestion", made["taskId"]), since=since)
    return {"suggestion": made["taskId"]}


async def job(one: Person) -> Made:
    """An automation that ran once."""
    since = len(one.client.frames)
    wanted = {
        "name": one.mark("job"),
        "agentId": one.slug,
        "schedule": {"kind": "every", "everyMs": 86_400_000},
        "sessionTarget": "isolated",
        "wakeMode": "now",
        "payload": {"kind": "agentTurn", "message": f"[[reply {one.mark('job-answer')}]]"},
        "delivery": {"mode": "none"},
    }
    made = await one.admin.request("cron.add", wanted)
    await one.client.wait_for(_told_of("cron", made["id"]), since=since)
    return {"cron": made["id"], "cron_key": one.key(f"cron:{made['id']}")}


async def ran_job(one: Person) -> Made:
    made = await job(one)
    await one.admin.request("cron.run", {"id": made["cron"], "mode": "force"})
    async with asyncio.timeout(PATIENCE_S):
        while True:
            entries = (await one.admin.request("cron.runs", {"id": made["cron"]}))["entries"]
            if entries:
                return made | {"cron_run": entries[0].get("runId") or made["cron"]}
            await asyncio.sleep(0.2)


async def proposal(one: Person) -> Made:
    word = one.mark("proposal")
    wanted = {"agentId": one.slug, "name": word, "description": one.mark("proposal-why"), "content": f"# {word}\n\nDo."}
    made = await one.admin.request("skills.proposals.create", wanted)
    return {"proposal": made["record"]["id"]}


async def artifact(one: Person) -> Made:
    """A file that the agent attached to its answer; the gateway does that a moment after the answer's end."""
    key = one.key(f"made-{uuid.uuid4().hex[:8]}")
    name = f"{one.mark('artifact')}.txt"
    one.workspace.joinpath(name).write_text(one.mark("artifact-text"))
    await one.chat(key, f"[[reply here\n\nMEDIA:./{name}]]")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await one.bare.request("artifacts.list", {"sessionKey": key}))["artifacts"]
            if found:
                return {"artifact": found[0]["id"], "artifact_key": key}
            await asyncio.sleep(0.1)


async def media(one: Person) -> Made:
    """A file that the person sent."""
    key = one.key(f"sent-{uuid.uuid4().hex[:8]}")
    content = base64.b64encode(one.mark("attachment").encode()).decode()
    attached = {"type": "file", "mimeType": "text/plain", "fileName": f"{one.mark('attached')}.txt", "content": content}
    await one.chat(key, "look at this", attachments=[attached])
    history = json.dumps(await one.bare.request("chat.history", {"sessionKey": key}))
    found = re.search(r"media://inbound/[^\"\\\s\])]+", history)
    assert found is not None, text_of(json.loads(history))
    return {"media": found[0], "media_key": key}


async def left(one: Person) -> None:
    """End what goes on: a gateway waits for its runs."""
    for row in (await one.admin.request("sessions.list", {"agentId": one.slug}))["sessions"]:
        if row.get("hasActiveRun"):
            with contextlib.suppress(RequestError):
                await one.admin.request("chat.abort", {"sessionKey": row["key"]})


def _told_of(event: str, handle: str) -> Callable[[Frame], bool]:
    return lambda frame: frame.get("event") == event and handle in json.dumps(frame["payload"])


def _event_in(event: str, key: str) -> Callable[[Frame], bool]:
    return lambda frame: frame.get("event") == event and f'"{key}"' in json.dumps(frame["payload"])


MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        *(session, rewound, compacted, goal, live_run, board, exec_approval, plugin_approval, question, task),
        *(suggestion, ran_job, proposal, artifact, media),
    )
}
FRESH: dict[str, Maker] = {**MAKERS, "job": job}
"""What examples may ask for anew."""
