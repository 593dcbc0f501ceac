"""Agents for waiting users, in one configuration write; and those that somebody opened, closed again in another.

`config.patch` is limited to 30 a minute, and of two with one base hash one fails (2026.9.6). So: one writer per gateway (a lease in
Redis), who takes everybody that waits into one patch, at most one every two seconds over all replicas. What is there already is
seen by reading and costs no write, so doing it twice, or dying half-way and doing it again, changes nothing.

Whenever the configuration changes (by RPC, or on disk: told after a second and a half) and when the connection comes up, every
replica looks at every user's agent. Newcomers and opened agents are written apart: one that the gateway refuses to close must not
keep others out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from sidecar.environments.openness import Openness, Wanted
from sidecar.errors import GatewayAway, GatewayOpen, SidecarError, StorageAway
from sidecar.gateways.admin import AdminConnection, Configuration
from sidecar.gateways.configuration import (
    AgentOptions,
    agents_patch,
    closed_agent,
    opened,
    replaced_arrays,
    users_agents,
)
from sidecar.gateways.rpc import RequestRefused
from sidecar.telemetry.facts import AgentsOpen, AgentsRefused, AgentsWritten, Report

WRITE_INTERVAL_MS = 2000
GATHER_SECONDS = 0.3
"""Those who come at once get into one write: a second would wait until the first ones' turns let go of the gateway's CPU."""

LEASE_MS = 15_000
ATTEMPTS = 8
PATIENCE_SECONDS = 30.0
ROSTER_RETRY_SECONDS = 5.0
MAX_NAMED = 20
"""Opened agents that one line of the log names."""

Roster = Callable[[], Awaitable[Mapping[str, str]]]
"""The agents that the database knows for this gateway: slug → workspace. Raises StorageAway."""


class Leases(Protocol):
    """What several sidecars agree on. All raise StorageAway."""

    async def acquire(self, name: str, owner: str, ttl_ms: int) -> bool: ...

    async def release(self, name: str, owner: str) -> bool: ...

    async def pass_gate(self, name: str, interval_ms: int) -> int: ...


async def no_roster() -> Mapping[str, str]:
    return {}


class Provisioner:
    """For one gateway. `ensure` may be called by any number of connections; `run()` is the one task that writes.

    `root` is the `environments.root` below which users' agents are known by their names alone.
    """

    def __init__(
        self,
        admin: AdminConnection,
        leases: Leases,
        options: AgentOptions,
        report: Report,
        *,
        owner: str,
        root: str,
        roster: Roster = no_roster,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admin = admin
        self._leases = leases
        self._options = options
        self._report = report
        self._owner = owner
        self._root = root
        self._roster = roster
        self._clock = clock
        self._present: dict[str, str] = {}
        self._waiting: dict[Wanted, asyncio.Future[None]] = {}
        self._openness = Openness()
        self._roster_due = True
        self._someone = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        admin.listeners.on_configuration.append(self._look)
        admin.listeners.on_configuration_changed.append(self._present.clear)
        admin.listeners.on_lost.append(self._lost)

    async def ensure(self, wanted: Wanted) -> None:
        """Return once the agent is in the gateway's configuration, closed. Raises GatewayAway, GatewayOpen, StorageAway."""
        self._admin.require()
        self._openness.know({wanted.slug: wanted.workspace})
        if self._openness.waits(wanted.slug, self._clock()):
            self.require_closed(wanted.slug)
        if self._present.get(wanted.slug) == wanted.workspace:
            return
        waiting = self._waiting.get(wanted)
        if waiting is None:
            waiting = self._waiting[wanted] = asyncio.get_running_loop().create_future()
            waiting.add_done_callback(_seen)
            self._someone.set()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.shield(waiting)
        except TimeoutError:
            raise GatewayAway("your agent is still being set up", retry_after_ms=2000) from None

    def is_closed(self, slug: str) -> bool:
        """Is the agent, as far as it was looked at, as it should be?"""
        return slug not in self._openness.open

    def require_closed(self, slug: str) -> None:
        """Raises GatewayOpen while the agent was found open and is not closed again: none of its runs may start."""
        if slug in self._openness.open:
            wait = self._openness.waits(slug, self._clock())
            raise GatewayOpen(
                "your agent is not closed as it has to be, since somebody changed the gateway's configuration: it runs again "
                "once it is closed; tell the operator if that takes long",
                retry_after_ms=int(max(wait, 2.0) * 1000),
            )

    async def run(self) -> None:
        """Serve those who wait and close what stands open, until cancelled."""
        self._someone.set()
        while True:
            await self._someone.wait()
            self._someone.clear()
            if self._roster_due:
                await self._learn()
            await self._serve()
            await self._close()
            if self._waiting:
                self._someone.set()

    async def _learn(self) -> None:
        """From the database too: an agent whose workspace somebody moved away is not known by its place any more."""
        self._roster_due = False
        if self._admin.gateway.shared_agent:
            return
        try:
            if self._openness.know(await self._roster()):
                self._look(await self._admin.configuration())
        except (StorageAway, GatewayAway):
            asyncio.get_running_loop().call_later(ROSTER_RETRY_SECONDS, self._ask_roster)

    def _ask_roster(self) -> None:
        self._roster_due = True
        self._someone.set()

    def _look(self, configuration: Configuration) -> None:
        """Every user's agent, against what it should be."""
        self._openness.know(self._by_place(configuration))
        now = self._clock()
        known = [Wanted(slug, workspace) for slug, workspace in self._openness.known.items()]
        if self._openness.look(opened(configuration.source, self._entries(configuration, known)), now):
            self._tell_open()
        self._wake()

    def _by_place(self, configuration: Configuration) -> dict[str, str]:
        shared = self._admin.gateway.shared_agent
        if shared:
            return {shared: f"{self._root.rstrip('/')}/{shared}/workspace"}
        return users_agents(configuration.source, self._root)

    def _tell_open(self) -> None:
        slugs = sorted(self._openness.open)
        named = [f"{slug} ({', '.join(self._openness.members(slug))})" for slug in slugs[:MAX_NAMED]]
        self._report(AgentsOpen(self._admin.gateway.id, len(slugs), "; ".join(named)))

    def _wake(self) -> None:
        wait = self._openness.next_due(self._clock())
        if wait == 0 or self._roster_due:
            self._someone.set()
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(wait, self._someone.set) if wait else None

    def _lost(self) -> None:
        self._present.clear()
        self._roster_due = True

    async def _serve(self) -> None:
        batch = tuple(self._waiting)
        try:
            written = await self._written(lambda: tuple(self._waiting)) if batch else ()
        except SidecarError as error:
            self._settle(batch, error)
        else:
            self._settle(written)

    async def _close(self) -> None:
        batch = self._openness.due(self._clock())
        if not batch:
            return
        slugs = [one.slug for one in batch]
        try:
            await self._written(lambda: batch)
        except SidecarError:
            self._openness.failed(slugs, self._clock())
        else:
            self._closed(slugs)
        self._wake()

    def _closed(self, slugs: Iterable[str]) -> None:
        before = self._openness.open
        self._openness.closed(slugs, self._clock())
        if self._openness.open != before:
            self._tell_open()

    async def _written(self, wanted: Callable[[], Collection[Wanted]]) -> Collection[Wanted]:
        """Those who are in the configuration now, as they should be. Raises GatewayAway, StorageAway."""
        batch = wanted()
        if not self._patch(await self._admin.configuration(), batch):
            return batch
        lease = f"config-writer:{self._admin.gateway.id}"
        while not await self._leases.acquire(lease, self._owner, LEASE_MS):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(0.1)
        try:
            return await self._write(wanted)
        finally:
            with contextlib.suppress(StorageAway):
                await self._leases.release(lease, self._owner)

    async def _write(self, wanted: Callable[[], Collection[Wanted]]) -> Collection[Wanted]:
        gate = f"config-write:{self._admin.gateway.id}"
        for _ in range(ATTEMPTS):
            while wait := await self._leases.pass_gate(gate, WRITE_INTERVAL_MS):  # noqa: ASYNC110 - the gate is in Redis
                await asyncio.sleep(wait / 1000)
            await asyncio.sleep(GATHER_SECONDS)
            batch = wanted()
            configuration = await self._admin.configuration()
            patch = self._patch(configuration, batch)
            started = time.monotonic()
            try:
                if patch:
                    await self._send(configuration, patch)
            except RequestRefused as refused:
                await self._after(refused)
                continue
            if patch:
                count = sum(one.slug in patch["agents"]["entries"] for one in batch)
                self._report(AgentsWritten(self._admin.gateway.id, count, time.monotonic() - started))
            return batch
        raise GatewayAway("the gateway's configuration is being changed by somebody else all the time")

    async def _send(self, configuration: Configuration, patch: Mapping[str, Any]) -> None:
        params: dict[str, Any] = {"raw": json.dumps(patch), "baseHash": configuration.hash}
        if replaced := replaced_arrays(configuration.source, patch):
            params["replacePaths"] = replaced
        await self._admin.request("config.patch", params)

    async def _after(self, refused: RequestRefused) -> None:
        """Return where trying again has a chance; else raise."""
        message = str(refused.error.get("message", ""))
        retry = refused.error.get("retryAfterMs")
        if isinstance(retry, int):
            await asyncio.sleep(min(retry, 60_000) / 1000)
        elif "changed since last load" not in message:
            # Its message may name paths and other people's agents: for the operator, not for whoever waits.
            self._report(AgentsRefused(self._admin.gateway.id, message[:500]))
            raise GatewayAway("the gateway refuses to add your agent; tell its operator")

    def _patch(self, configuration: Configuration, batch: Iterable[Wanted]) -> dict[str, Any]:
        return agents_patch(configuration.source, self._entries(configuration, batch))

    def _entries(self, configuration: Configuration, batch: Iterable[Wanted]) -> dict[str, dict[str, Any]]:
        return {
            one.slug: closed_agent(one.slug, one.workspace, self._options, configuration.effective) for one in batch
        }

    def _settle(self, batch: Iterable[Wanted], error: SidecarError | None = None) -> None:
        settled = list(batch)
        for wanted in settled:
            waiting = self._waiting.pop(wanted, None)
            if error is None:
                self._present[wanted.slug] = wanted.workspace
            if waiting is not None and not waiting.done():
                waiting.set_exception(error) if error else waiting.set_result(None)
        if error is None:
            self._closed(wanted.slug for wanted in settled)


def _seen(waiting: asyncio.Future[None]) -> None:
    """Whoever waited may be gone: an exception that nobody fetches is not news."""
    if not waiting.cancelled():
        waiting.exception()
