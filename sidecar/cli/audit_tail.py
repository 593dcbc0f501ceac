"""What `sidecar audit tail` does: rows of the audit log as lines, the last ones and those that come.

Texts in the log are what clients wrote: none reaches the terminal as it is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from sidecar import settings
from sidecar.cli.plain import json_line, plain
from sidecar.domain.audit import AuditQuery, StoredAudit
from sidecar.errors import EngineError, StorageAway
from sidecar.storage.engines.running import running_database_url
from sidecar.storage.postgres import Database, DatabaseOptions

POLL_SECONDS = 1.0
OVERLAP = 1000
"""Ids that are looked at again: of two batches written at once by two replicas, the later ids may be committed first."""

STEP = 5000
"""Ids that are read at once."""

Show = Callable[[Sequence[StoredAudit]], None]


class Following:
    """Which rows were shown, as far back as one may still appear behind them."""

    def __init__(self, query: AuditQuery) -> None:
        self._query = query
        self._top = 0
        self._seen: set[int] = set()

    async def begin(self, database: Database) -> None:
        """Whatever is there already is no news."""
        self._top = await database.newest_audit()
        await self._next(database, self._top)

    def shown(self, rows: Sequence[StoredAudit]) -> None:
        """These are no news either: some may have come since."""
        self._seen.update(row.id for row in rows)

    async def news(self, database: Database) -> AsyncIterator[list[StoredAudit]]:
        """What was not there the last time, some at a time."""
        newest = await database.newest_audit()
        while True:
            yield await self._next(database, max(self._top, min(newest, self._top + STEP)))
            if self._top >= newest:
                return

    async def _next(self, database: Database, until: int) -> list[StoredAudit]:
        rows = await database.audit_between(self._query, max(0, self._top - OVERLAP), until)
        fresh = [row for row in rows if row.id not in self._seen]
        self._top = until
        self._seen = {number for number in (*self._seen, *(row.id for row in fresh)) if number > until - OVERLAP}
        return fresh


async def tail(storage: settings.Storage, query: AuditQuery, number: int, show: Show, *, follow: bool) -> None:
    """Show the last `number` rows, and with `follow` those that come, until cancelled.

    Raises EngineError where no database is found, StorageAway where it does not answer at first.
    """
    following = Following(query)
    async with _opened(storage) as database:
        await following.begin(database)
        rows = await database.last_audit(query, number)
        following.shown(rows)
        show(rows)
    away = ""
    while follow:
        away = await _follow(storage, following, show, away)
        await asyncio.sleep(POLL_SECONDS)


async def _follow(storage: settings.Storage, following: Following, show: Show, away: str) -> str:
    """Show news until the database is away, and say so once; `away` is what was said. It may come back on another socket."""
    try:
        async with _opened(storage) as database:
            while True:
                async for rows in following.news(database):
                    show(rows)
                if away:
                    _say("the database is back")
                    away = ""
                await asyncio.sleep(POLL_SECONDS)
    except (StorageAway, EngineError) as error:
        if not away:
            _say(f"waiting for the database: {error.message}")
        return error.message


def _opened(storage: settings.Storage) -> Database:
    """Neither migrated nor started: the sidecar does that."""
    return Database(DatabaseOptions(storage.database_url.get_secret_value() or running_database_url(storage.data_dir)))


def show_lines(rows: Sequence[StoredAudit]) -> None:
    for stored in rows:
        row = stored.row
        at = datetime.fromtimestamp(row.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        words = [plain(word) if word else "-" for word in (row.user_id, row.action, row.method, row.code)]
        user, action, method, code = words
        details = "".join(f"  {plain(name)}={plain(str(value))}" for name, value in row.details.items())
        print(f"{at}  {user:<24}  {action:<14}  {method:<24}  {code}{details}")
    sys.stdout.flush()


def show_json(rows: Sequence[StoredAudit]) -> None:
    for stored in rows:
        at = datetime.fromtimestamp(stored.row.at, UTC).isoformat().replace("+00:00", "Z")
        print(json_line({"id": stored.id, **asdict(stored.row), "at": at}))
    sys.stdout.flush()


def _say(text: str) -> None:
    print(f"sidecar: {text}", file=sys.stderr, flush=True)
