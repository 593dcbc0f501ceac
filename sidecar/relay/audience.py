"""The connections of each user to one gateway in this process, and the sessions that all of them listen to.

On a gateway of one's own every client hears of every session. Here a gateway sends a session's events only to connections that
subscribed to it, so whoever learns of a session first tells the others: the client that names it, before its request goes on,
or the sidecar's own connection, which hears of what nobody here began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

RECENT = 32
"""So many sessions of a user are remembered while they have a connection, and listened to by a new one from its start."""

WAIT_SECONDS = 2.0
"""So long a request waits for everybody to listen to the session that it names. A gateway takes some milliseconds."""


class Listener(Protocol):
    """One connection, as far as others make it listen."""

    def listen(self, key: str) -> asyncio.Future[None] | None:
        """See to it that the events of the session `key` come. What is still to be waited for; None where they come already."""

    def say(self, event: bytes) -> None:
        """Give the client an event of ours."""


@dataclass(slots=True)
class _Company:
    listeners: list[Listener] = field(default_factory=list)
    recent: dict[str, None] = field(default_factory=dict)
    """Least recently heard of first."""

    def remember(self, key: str) -> None:
        self.recent.pop(key, None)
        self.recent[key] = None
        if len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]


class Audience:
    """Of one gateway. `slug` stands for the user; keys are the user's own, which is for the caller to know."""

    def __init__(self) -> None:
        self._companies: dict[str, _Company] = {}

    def join(self, slug: str, listener: Listener) -> list[str] | None:
        """The sessions that the user's other connections know of, the latest last; None where there is no other."""
        first = slug not in self._companies
        company = self._companies.setdefault(slug, _Company())
        company.listeners.append(listener)
        return None if first else list(company.recent)

    def leave(self, slug: str, listener: Listener) -> None:
        """With the last one everything about the user is forgotten."""
        company = self._companies[slug]
        company.listeners.remove(listener)
        if not company.listeners:
            del self._companies[slug]

    def hear(self, slug: str, keys: Iterable[str]) -> None:
        """The gateway tells of these sessions, the latest last. Costs next to nothing for who is not here."""
        company = self._companies.get(slug)
        if company is None:
            return
        for key in keys:
            company.remember(key)
            for listener in company.listeners:
                listener.listen(key)

    def say(self, slug: str, event: bytes) -> None:
        """To all of the user who are here."""
        company = self._companies.get(slug)
        for listener in company.listeners if company is not None else ():
            listener.say(event)

    async def tell(self, slug: str, key: str) -> None:
        """A request is about to do something in this session: returns once everybody listens, or after `WAIT_SECONDS`."""
        company = self._companies.get(slug)
        if company is None:
            return
        company.remember(key)
        waiting = [future for listener in company.listeners if (future := listener.listen(key)) is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=WAIT_SECONDS)
