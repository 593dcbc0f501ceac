"""How fast model calls come into the ledger, by its own writer, beside one insert after another as one writes it at first."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from sidecar.domain.environment import Environment
from sidecar.domain.usage import ModelCall, Source, Tokens
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.schema import migrate
from sidecar.storage.spool import Spool
from sidecar.usage.writer import Writer

WRITER, SINGLY = "sidecar", "one insert each"
SPOOL_BYTES = 64 << 20
SHARE_SINGLY = 10
"""Of the calls, one in so many is written singly."""


async def measured(folder: Path, calls: int) -> list[tuple[str, dict[str, float]]]:
    """Target and `rows` and `seconds`, each into an empty ledger of one PostgreSQL."""
    async with EmbeddedEngines(folder, lambda *_: None, redis=False) as engines:
        await migrate(engines.database_url)
        async with Database(DatabaseOptions(engines.database_url)) as database:
            await database.put_environment(_home())
            ledger = Ledger(database)
            await ledger.append([_call()])  # the month has its partition
            return [(WRITER, await _by_writer(ledger, folder, calls)), (SINGLY, await _singly(ledger, calls))]


async def _by_writer(ledger: Ledger, folder: Path, calls: int) -> dict[str, float]:
    with contextlib.closing(Spool(folder / "spool", SPOOL_BYTES)) as spool:
        writer = Writer(ledger, spool, lambda _: None)
        task = asyncio.create_task(writer.run())
        made = [_call() for _ in range(calls)]
        began = time.perf_counter()
        for call in made:
            writer.add([call])
        await writer.flushed()
        seconds = time.perf_counter() - began
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return {"rows": calls, "seconds": seconds}


async def _singly(ledger: Ledger, calls: int) -> dict[str, float]:
    made = [_call() for _ in range(max(1, calls // SHARE_SINGLY))]
    began = time.perf_counter()
    for call in made:
        await ledger.append([call])
    return {"rows": len(made), "seconds": time.perf_counter() - began}


def _home() -> Environment:
    now = datetime.now(UTC)
    return Environment(
        user_id="load|b",
        gateway_id="main",
        agent_id="u-b",
        workspace_dir="/u-b",
        profile_name="u-b",
        auth_profile_id="",
        created_at=now,
        updated_at=now,
        last_used_at=now,
    )


def _call() -> ModelCall:
    return ModelCall(
        gateway_id="main",
        call_id=str(uuid.uuid4()),
        source=Source.MESSAGE,
        slug="u-b",
        session_key="agent:u-b:main",
        run_id=str(uuid.uuid4()),
        provider="echo",
        model="echo-1",
        tokens=Tokens(4000, 200, 12_000, 0),
        cost_usd=Decimal("0.0186"),
        at=time.time(),
        metadata={"priced_by": "gateway", "stop_reason": "stop"},
    )
