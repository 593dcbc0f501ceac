"""Somebody who uses a gateway in every way in which a user leaves words behind, each place under a mark of its own.

`begin` makes all that has an id by which others could ask for it, `work` goes on while others pry, `end` ends what was begun.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stack.raw import Frame, RawClient, is_end_of

PATIENCE_S = 60.0

PLACES = (
    # said, and done by tools
    *("text", "aborted-text", "queued-text", "agent-text", "new-text", "reset-text", "deleted-text"),
    *("file-name", "tool-argument", "tool-output", "missing-file"),
    # sessions
    *("session-key", "label", "deleted-label", "card", "goal"),
    # files
    *("attachment-name", "attachment-text", "artifact-name", "artifact-text", "workspace-file", "agent-file"),
    # what others begin: sub-agents, the operator's jobs, heartbeats
    *("task", "task-label", "task-answer", "job-name", "job-text", "job-answer", "heartbeat"),
    # what is asked
    *("question", "choice", "answer", "approval-title", "approval-text", "suggestion-title", "suggestion-text"),
    # who they are
    *("client-name", "preference"),
)

PRIED = "pried"
"""A session in which nobody works."""

CAPS = ("approvals", "exec-approvals", "plugin-approvals", "task-suggestions", "tool-events")
SCOPES = ("operator.read", "operator.write", "operator.approvals", "operator.questions")


def new_marks() -> dict[str, str]:
    return {place: f"mark{uuid.uuid4().hex[:14]}" for place in PLACES}


@dataclass
class Person:
    """One user. `client` is where they work; `others` are their other clients, which watch, or pry."""

    login: str
    token: str
    client: RawClient
    workspace: Path
    version: str
    """Of the gateway."""

    others: list[RawClient] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """What they were told where no client came to be."""

    marks: dict[str, str] = field(default_factory=new_marks)
    ids: dict[str, str] = field(default_factory=dict)
    """Kind → id of an object of theirs."""

    runs: list[str] = field(default_factory=list)
    known_run: str = field(default_factory=lambda: f"known-{uuid.uuid4().hex}")
    """The id of one run, which others know from somewhere."""

    @property
    def slug(self) -> str:
        return f"u-{self.login}"

    @property
    def main(self) -> str:
        return self.key("main")

    @property
    def received(self) -> list[str]:
        return [*self.errors, *(text for client in (self.client, *self.others) for text in client.received)]

    def key(self, rest: str) -> str:
        return f"agent:{self.slug}:{rest}"

    # --- what has an id ---------------------------------------------------------------------------------------------------

    async def begin(self, admin: RawClient, direct: RawClient) -> None:
        """`admin` is the operator's connection to the gateway, `direct` the user's own device's, as a plugin's asks would come."""
        await self.client.request("sessions.subscribe")
        await self.client.chat("main", "one run of which others know", idempotencyKey=self.known_run)
        await self.client.chat(PRIED, "something to look at")
        history = await self.client.request("chat.history", {"sessionKey": PRIED})
        self.ids["message"] = history["messages"][0]["__openclaw"]["id"]
        await self._spawn()
        await self._job(admin)
        await self._ask()
        await self._approval(direct)
        await self._suggestion(direct)
        await self._artifact()

    def tool(self, name: str, **arguments: Any) -> str:
        """A tool of the catalogue, which 2026.9 hides behind `tool_call`."""
        if self.version.startswith("2026.8"):
            return f"[[tool {name} {json.dumps(arguments)}]]"
        return f"[[tool tool_call {json.dumps({'id': name, 'args': arguments})}]]"

    async def _spawn(self) -> None:
        task = f"{self.marks['task']} [[wait 3000]] [[reply {self.marks['task-answer']}]]"
        since = len(self.client.frames)
        await self.chat("spawning", self.tool("sessions_spawn", task=task, label=self.marks["task-label"]))
        told = await self._event("task", since, lambda payload: "task" in payload)
        self.ids["task"] = told["task"]["id"]

    async def _job(self, admin: RawClient) -> None:
        job = await admin.request(
            "cron.add",
            {
                "name": self.marks["job-name"],
                "agentId": self.slug,
                "schedule": {"kind": "every", "everyMs": 86_400_000},
                "sessionTarget": "isolated",
                "wakeMode": "now",
                "payload": {
                    "kind": "agentTurn",
                    "message": f"{self.marks['job-text']} [[reply {self.marks['job-answer']}]]",
                },
                "delivery": {"mode": "none"},
            },
        )
        self.ids["cron"] = job["id"]
        await admin.request("cron.run", {"id": job["id"], "mode": "force"})

    async def _ask(self) -> None:
        """The agent asks, and its turn waits for the answer."""
        options = [{"label": self.marks["choice"]}, {"label": "another"}]
        asked = {"id": "which", "header": "Which", "question": self.marks["question"], "options": options}
        since = len(self.client.frames)
        await self.say("asking", self.tool("ask_user", questions=[asked]))
        self.ids["question"] = (await self._event("question.requested", since))["id"]

    async def _approval(self, direct: RawClient) -> None:
        about = {"title": self.marks["approval-title"], "description": self.marks["approval-text"]}
        since = len(self.client.frames)
        whose = {"agentId": self.slug, "sessionKey": self.main}
        await direct.request("plugin.approval.request", {**about, **whose, "twoPhase": True, "timeoutMs": 300_000})
        self.ids["approval"] = (await self._event("plugin.approval.requested", since))["id"]

    async def _suggestion(self, direct: RawClient) -> None:
        words = {"title": self.marks["suggestion-title"], "prompt": self.marks["suggestion-text"], "tldr": "short"}
        where = {"cwd": str(self.workspace), "sessionKey": self.main}
        self.ids["suggestion"] = (await direct.request("taskSuggestions.create", {**words, **where}))["taskId"]
        await self.client.request("taskSuggestions.list")

    async def _artifact(self) -> None:
        """A file that the agent shows: attached some moments after the turn has ended."""
        self.write(f"{self.marks['artifact-name']}.txt", self.marks["artifact-text"])
        await self.chat("showing", f"[[reply look\n\nMEDIA:./{self.marks['artifact-name']}.txt]]")
        async with asyncio.timeout(PATIENCE_S):
            while not (listed := await self.client.request("artifacts.list", {"sessionKey": "showing"}))["artifacts"]:
                await asyncio.sleep(0.1)
        self.ids["artifact"] = listed["artifacts"][0]["id"]

    # --- what goes on while others pry -------------------------------------------------------------------------------------

    async def work(self, admin: RawClient) -> None:
        """Leave the marks that no id leads to."""
        for step in (self._talk, self._files, self._sessions, self._resets, self._by_agent, self._abort, self._queue):
            await step()
        await self._heartbeat(admin)

    async def _talk(self) -> None:
        marks = self.marks
        self.write("found.txt", marks["tool-output"])
        self.write(f"{marks['workspace-file']}.txt", "nobody speaks of it")
        assert marks["text"] in await self.chat("main", marks["text"])
        written = {"path": f"{marks['file-name']}.txt", "content": marks["tool-argument"]}
        read = '[[tool read {"path": "found.txt"}]] ' + f'[[tool read {{"path": "{marks["missing-file"]}.txt"}}]]'
        assert marks["tool-output"] in await self.chat("main", f"[[tool write {json.dumps(written)}]] {read}")

    async def _files(self) -> None:
        content = base64.b64encode(self.marks["attachment-text"].encode()).decode()
        name = f"{self.marks['attachment-name']}.txt"
        attached = {"type": "file", "mimeType": "text/plain", "fileName": name, "content": content}
        await self.chat("main", "see what I attached", attachments=[attached])
        user = {"name": "USER.md", "content": f"# The user\n{self.marks['agent-file']}\n"}
        await self.client.request("agents.files.set", user)

    async def _sessions(self) -> None:
        marks = self.marks
        await self.client.request("sessions.create", {"key": marks["session-key"]})
        await self.client.request("sessions.patch", {"key": marks["session-key"], "label": marks["label"]})
        await self.chat(marks["session-key"], "in a session with a telling name")
        await self.client.request("progressCard.put", {"sessionKey": marks["session-key"], "markdown": marks["card"]})
        goal = {"kind": "session-goal-start", "version": 1, "issuedAtMs": int(time.time() * 1000)}
        await self.chat("striving", marks["goal"], intent=goal)
        with contextlib.suppress(Exception):
            await self.client.request("users.prefs.set", {"entries": {"ui.mark": marks["preference"]}})

    async def _resets(self) -> None:
        marks = self.marks
        await self.chat("emptied", marks["reset-text"])
        await self.client.request("sessions.reset", {"key": "emptied"})
        await self.chat("emptied", f"/new {marks['new-text']}")
        await self.chat("gone", marks["deleted-text"])
        await self.client.request("sessions.patch", {"key": "gone", "label": marks["deleted-label"]})
        await self.client.request("sessions.delete", {"key": "gone"})

    async def _by_agent(self) -> None:
        run = self._new_run()
        await self.client.request("agent", {"message": self.marks["agent-text"], "idempotencyKey": run})
        await self.client.request("agent.wait", {"runId": run, "timeoutMs": 20_000})

    async def _abort(self) -> None:
        since, mark = len(self.client.frames), self.marks["aborted-text"]
        run = await self.say("main", f"[[slow 400 40]] [[reply {mark}{' on' * 400}]]")
        await self.client.wait_for(lambda frame: mark in json.dumps(frame.get("payload")), since=since)
        await self.client.request("chat.abort", {"sessionKey": "main", "runId": run})
        await self.client.wait_for(is_end_of(run), since=since)

    async def _queue(self) -> None:
        """What is said while a turn runs waits for its end."""
        since, mark = len(self.client.frames), self.marks["queued-text"]
        run = await self.say("queue", "[[slow 10 60]] [[long 10]]")
        self.runs.append(await self.say("queue", mark, queueMode="followup"))
        await self.client.wait_for(is_end_of(run), since=since, timeout=PATIENCE_S)
        await self.client.wait_for(
            lambda frame: frame.get("event") == "chat" and mark in json.dumps(frame), since=since, timeout=PATIENCE_S
        )

    async def _heartbeat(self, admin: RawClient) -> None:
        text = f"[[reply {self.marks['heartbeat']}]]"
        since = len(self.client.frames)
        await admin.request("wake", {"mode": "now", "text": text, "agentId": self.slug, "sessionKey": self.main})
        with contextlib.suppress(TimeoutError):
            await self.client.wait_for(
                lambda frame: self.marks["heartbeat"] in json.dumps(frame.get("payload")), since=since, timeout=5
            )

    # --- what ends -----------------------------------------------------------------------------------------------------------

    async def end(self, admin: RawClient) -> None:
        """Answer what was asked, and take away what can be taken away."""
        await admin.wait_for(self._is_end_of_job, timeout=PATIENCE_S)
        answers = {"answers": {"which": [self.marks["answer"]]}}
        await self.client.request("question.resolve", {"id": self.ids["question"], "answers": answers})
        decided = {"id": self.ids["approval"], "kind": "plugin", "decision": "deny"}
        await self.client.request("approval.resolve", decided)
        await self.client.request("taskSuggestions.dismiss", {"taskId": self.ids["suggestion"]})
        await self.client.request("tasks.get", {"taskId": self.ids["task"]})
        await self.client.request("cron.update", {"id": self.ids["cron"], "patch": {"enabled": False}})
        await self.client.request("cron.remove", {"id": self.ids["cron"]})

    # --- words of theirs ------------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        (self.workspace / name).write_text(text)

    async def chat(self, key: str, message: str, **params: Any) -> str:
        return await self.client.chat(key, message, idempotencyKey=self._new_run(), timeout=PATIENCE_S, **params)

    async def say(self, key: str, message: str, **params: Any) -> str:
        """Begin a turn; its run."""
        sent = {"sessionKey": key, "message": message, "idempotencyKey": self._new_run(), **params}
        return str((await self.client.request("chat.send", sent))["runId"])

    def _new_run(self) -> str:
        self.runs.append(uuid.uuid4().hex)
        return self.runs[-1]

    async def _event(
        self, name: str, since: int, like: Callable[[dict[str, Any]], bool] = lambda payload: True
    ) -> dict[str, Any]:
        """The payload of the next event of that name which is like this."""

        def is_it(frame: Frame) -> bool:
            return frame.get("event") == name and like(frame["payload"])

        payload: dict[str, Any] = (await self.client.wait_for(is_it, since=since, timeout=PATIENCE_S))["payload"]
        return payload

    def _is_end_of_job(self, frame: Frame) -> bool:
        """That a job has run is told to the operator alone (2026.9.6)."""
        payload = frame.get("payload") or {}
        return frame.get("event") == "cron" and (payload.get("jobId"), payload.get("action")) == (
            self.ids["cron"],
            "finished",
        )
