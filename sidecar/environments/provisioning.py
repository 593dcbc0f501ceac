"""Agents for waiting users, in one configuration write.

`config.patch` is limited to 30 a minute, and of two with one base hash one fails (2026.9.6). So: one writer per gateway (a lease in
Redis), who takes everybody that waits into one patch, at most one every two seconds over all replicas. What is there already is
seen by reading and costs no write, so doing it twice, or dying half-way and doing it again, changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.errors import GatewayAway, SidecarError, StorageAway
from sidecar.gateways.admin import AdminConnection, Configuration
from sidecar.gateways.configuration import AgentOptions, agents_patch, closed_agent, replaced_arrays
from sidecar.gateways.rpc import RequestRefused
from sidecar.telemetry.facts import AgentsRefused, AgentsWritten, Report

WRITE_INTERVAL_MS = 2000
GATHER_SECONDS = 0.3
"""Those who come at once get into one write: a second would wait until the first ones' turns let go of the gateway's CPU."""

LEASE_MS = 15_000
ATTEMPTS = 8
PATIENCE_SECONDS = 30.0


class Leases(Protocol):
    """What several sidecars agree on. All raise StorageAway."""

    async def acquire(self, name: str, owner: str, ttl_ms: int) -> bool: ...

    async def release(self, name: str, owner: str) -> bool: ...

    async def pass_gate(self, name: str, interval_ms: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """One user's agent."""

    slug: str
    workspace: str


class Provisioner:
    """For one gateway. `ensure` may be called by any number of connections; `run()` is the one task that writes."""

    def __init__(
        self, admin: AdminConnection, leases: Leases, options: AgentOptions, report: Report, *, owner: str
    ) -> None:
        self._admin = admin
        self._leases = leases
        self._options = options
        self._report = report
        self._owner = owner
        self._present: dict[str, str] = {}
        self._waiting: dict[Wanted, asyncio.Future[None]] = {}
        self._someone = asyncio.Event()
        admin.listeners.on_configuration_changed.append(self._present.clear)
        admin.listeners.on_lost.append(self._present.clear)

    async def ensure(self, wanted: Wanted) -> None:
        """Return once the agent is in the gateway's configuration, closed. Raises GatewayAway, GatewayOpen, StorageAway."""
        self._admin.require()
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

    async def run(self) -> None:
        """Serve those who wait, until cancelled."""
        if self._waiting:
            self._someone.set()
        while True:
            await self._someone.wait()
            self._someone.clear()
            batch = dict(self._waiting)
            try:
                await self._serve(batch)
            except SidecarError as error:
                self._settle(batch, error)
            if self._waiting:
                self._someone.set()

    async def _serve(self, batch: Mapping[Wanted, asyncio.Future[None]]) -> None:
        if not self._patch(await self._admin.configuration(), batch):
            self._settle(batch)
            return
        lease = f"config-writer:{self._admin.gateway.id}"
        while not await self._leases.acquire(lease, self._owner, LEASE_MS):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(0.1)
        try:
            await self._write()
        finally:
            with contextlib.suppress(StorageAway):
                await self._leases.release(lease, self._owner)

    async def _write(self) -> None:
        gate = f"config-write:{self._admin.gateway.id}"
        for _ in range(ATTEMPTS):
            while wait := await self._leases.pass_gate(gate, WRITE_INTERVAL_MS):  # noqa: ASYNC110 - the gate is in Redis
                await asyncio.sleep(wait / 1000)
            await asyncio.sleep(GATHER_SECONDS)
            batch = dict(self._waiting)
            configuration = await self._admin.configuration()
            patch = self._patch(configuration, batch)
            started = time.monotonic()
            try:
                if patch:
                    await self._send(configuration, patch)
            except RequestRefused as refused:
                await self._after(refused)
                continue
            self._settle(batch)
            if patch:
                count = sum(one.slug in patch["agents"]["entries"] for one in batch)
                self._report(AgentsWritten(self._admin.gateway.id, count, time.monotonic() - started))
            return
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

    def _patch(self, configuration: Configuration, batch: Mapping[Wanted, object]) -> dict[str, Any]:
        wanted = {
            one.slug: closed_agent(one.slug, one.workspace, self._options, configuration.effective) for one in batch
        }
        return agents_patch(configuration.source, wanted)

    def _settle(self, batch: Mapping[Wanted, asyncio.Future[None]], error: SidecarError | None = None) -> None:
        for wanted, waiting in batch.items():
            self._waiting.pop(wanted, None)
            if error is None:
                self._present[wanted.slug] = wanted.workspace
            if not waiting.done():
                waiting.set_exception(error) if error else waiting.set_result(None)


def _seen(waiting: asyncio.Future[None]) -> None:
    """Whoever waited may be gone: an exception that nobody fetches is not news."""
    if not waiting.cancelled():
        waiting.exception()
