"""Somebody at a gateway with nothing in between: what it tells to whoever listens, or asks. The control of every watcher."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from sidecar.protocol.handshake import forwarded_address
from sidecar.protocol.session_events import SESSION_SCOPED
from tests.live.direct import direct
from tests.live.person import CAPS, PATIENCE_S, Person
from tests.stack.gateway import USER_HEADER, USER_SCOPES, Gateway
from tests.stack.raw import RawClient, RequestError

KEYS = ("main", "asking", "showing", "spawning", "striving", "emptied", "queue")


@dataclass
class Stranger:
    """Has no agent, only a user's scopes, or the shared token."""

    gateway: Gateway
    slug: str
    ears: Sequence[RawClient]
    """One that gets what goes to everybody, one that subscribes to each session by itself."""

    pages: list[str] = field(default_factory=list)
    """What came over HTTP."""

    @property
    def heard(self) -> list[str]:
        return [*self.pages, *(text for ear in self.ears for text in ear.received)]

    async def listen(self, *people: Person) -> None:
        await self.ears[0].request("sessions.subscribe")
        for ear in self.ears:
            for one in people:
                await ear.request("sessions.messages.subscribe", {"key": one.main, "includeApprovals": True})

    async def ask(self, *people: Person) -> None:
        """For what is theirs, wherever a gateway keeps it."""
        for one in people:
            for method, params in _questions(one):
                with contextlib.suppress(RequestError):
                    await self.ears[0].request(method, params)
            await self._media(one)

    async def _media(self, one: Person) -> None:
        """The files that they sent, and that their agent showed, over HTTP: by their names and by a ticket."""
        sent = await self._history(one)
        places = [f"/__openclaw__/assistant-media?source={quote(url, safe='')}" for url in _urls(sent)]
        with contextlib.suppress(RequestError):
            whose = {"sessionKey": one.key("showing"), "agentId": one.slug, "artifactId": one.ids["artifact"]}
            places.append((await self.ears[0].request("artifacts.download", whose)).get("url") or "/")
        self.pages += await pages(
            self.gateway.http_url, [*places, f"/sessions/{quote(one.main)}/history"], self.headers
        )

    async def _history(self, one: Person) -> Any:
        """2026.8.2 asks to come again while it writes."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await self.ears[0].request("chat.history", {"sessionKey": one.main})
                except RequestError as error:
                    if "retry" not in str(error):
                        raise
                await asyncio.sleep(0.2)

    @property
    def headers(self) -> dict[str, str]:
        if self.gateway.token:
            return {"Authorization": f"Bearer {self.gateway.token}"}
        scopes = ",".join(USER_SCOPES)
        return {
            USER_HEADER: self.slug,
            "x-forwarded-for": forwarded_address(self.slug),
            "x-openclaw-scopes": scopes,
        }


@contextlib.asynccontextmanager
async def stranger(gateway: Gateway) -> AsyncIterator[Stranger]:
    slug = f"u-stranger{uuid.uuid4().hex[:8]}"
    async with direct(gateway, slug, CAPS) as one, direct(gateway, slug, [*CAPS, SESSION_SCOPED]) as other:
        yield Stranger(gateway, slug, (one, other))


async def pages(base: str, places: Sequence[str], headers: Mapping[str, str]) -> list[str]:
    """Status, headers and body of each, without its own address."""
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=20)) as session:
        got = []
        for place in places:
            async with session.get(base + place, allow_redirects=False) as answer:
                body = (await answer.read()).decode(errors="replace")
                got.append(f"{answer.status} {dict(answer.headers)} {body}".replace(place, ""))
        return got


def _questions(one: Person) -> Iterator[tuple[str, dict[str, Any]]]:
    agent = {"agentId": one.slug}
    for key in (*(one.key(rest) for rest in KEYS), one.key(one.marks["session-key"])):
        yield "chat.history", {"sessionKey": key}
        yield "progressCard.get", {"sessionKey": key}
        yield "sessions.describe", {"key": key}
        yield "artifacts.list", {"sessionKey": key}
    for method in ("sessions.list", "agents.workspace.list"):
        yield method, agent
    for path in ("found.txt", f"{one.marks['artifact-name']}.txt"):
        yield "agents.workspace.get", {**agent, "path": path}
    yield "agents.files.get", {**agent, "name": "USER.md"}
    for method in ("tasks.list", "question.list", "taskSuggestions.list", "approval.history", "system-presence"):
        yield method, {}
    yield "cron.list", {"includeDisabled": True}
    for method, name, kind in (
        ("tasks.get", "taskId", "task"),
        ("tasks.history", "taskId", "task"),
        ("cron.runs", "id", "cron"),
        ("question.get", "id", "question"),
        ("approval.get", "id", "approval"),
    ):
        yield method, {name: one.ids[kind]}
    yield "agent.wait", {"runId": one.known_run, "timeoutMs": 1}
    for method in ("users.list", "last-heartbeat", "users.prefs.get"):
        yield method, {}


def _urls(value: Any) -> Iterator[str]:
    """References to media, wherever in an answer they stand."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        for one in value:
            yield from _urls(one)
    elif isinstance(value, str) and value.startswith("media://"):
        yield value
