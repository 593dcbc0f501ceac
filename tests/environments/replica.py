"""One sidecar's connection to a gateway and its writer of agents, in this process, over whatever gateway and Redis there are."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sidecar.policy
from sidecar.environments.openness import Wanted
from sidecar.environments.provisioning import Provisioner, Roster, no_roster
from sidecar.gateways.admin import AdminConnection, State
from sidecar.gateways.configuration import AgentOptions
from sidecar.gateways.options import GatewayOptions
from sidecar.policy.table import read_table
from sidecar.storage.redis import RedisStore
from sidecar.telemetry.facts import AgentsOpen, AgentsWritten, Fact
from tests.stack.proc import eventually

ROOT = "/data"
TABLES = [read_table(path.read_bytes()) for path in Path(sidecar.policy.__file__).parent.glob("gateway-*.toml")]


@dataclass(slots=True)
class Replica:
    """`facts`: what it reported. `defects`: errors that it should not have met."""

    admin: AdminConnection
    maker: Provisioner
    facts: list[Fact]
    defects: list[Exception]
    writer: asyncio.Task[None]

    @property
    def written(self) -> list[int]:
        """How many agents each write made or mended."""
        return [fact.count for fact in self.facts if isinstance(fact, AgentsWritten)]

    @property
    def told_open(self) -> list[int]:
        """How many agents stood open, each time that changed."""
        return [fact.count for fact in self.facts if isinstance(fact, AgentsOpen)]

    async def entries(self) -> dict[str, Any]:
        """The agents, as the gateway's configuration file has them."""
        found: dict[str, Any] = (await self.admin.configuration()).source["agents"].get("entries", {})
        return found


@contextlib.asynccontextmanager
async def replica(
    gateway: GatewayOptions,
    store: RedisStore,
    *,
    state: State = State.READY,
    roster: Roster = no_roster,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Replica]:
    """Connected; at the end everything is cancelled, as a stop does it."""
    facts: list[Fact] = []
    defects: list[Exception] = []
    admin = AdminConnection(gateway, TABLES, facts.append, defects.append)
    maker = Provisioner(
        admin,
        store,
        AgentOptions(),
        facts.append,
        owner=secrets.token_hex(8),
        root=ROOT,
        roster=roster,
        clock=clock,
    )
    tasks = [asyncio.create_task(admin.run()), asyncio.create_task(maker.run())]
    try:
        await eventually(lambda: admin.state is state)
        yield Replica(admin, maker, facts, defects, tasks[1])
        assert defects == []
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def wanted(name: str) -> Wanted:
    return Wanted(f"u-{name}", f"{ROOT}/u-{name}/workspace")
