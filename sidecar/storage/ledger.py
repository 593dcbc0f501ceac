"""`Ledger`: the table `token_usage_logs`, in which each model call stands once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from asyncpg import Record

from sidecar.domain.usage import ModelCall, OpenRun, Source, Tokens, UsageQuery, UsageSum, Weights
from sidecar.storage import queries
from sidecar.storage.postgres import Database, moment
from sidecar.storage.storable import storable

_USAGE = queries.load("usage")
LOCK = 0x6C6564676572
"""`ledger` in ASCII: the number of the advisory lock under which a replica makes or drops partitions."""

MONTHS_AHEAD = 2
CallKey = tuple[str, str]
"""Gateway id and call id."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a user has used in the day and in the month that were asked for."""

    day_tokens: Decimal
    """Weighted."""

    month_cost: Decimal
    """USD."""

    day_calls: int
    """Runs of the day, those of jobs and sub-agents apart: about as many as the turns that the user started."""

    recent: Sequence[str]
    """`<gateway> <call>` of calls that were written lately, all of them in the figures above."""


class Ledger:
    """Every method raises as `Database`'s do. Times are Unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._months: set[date] = set()

    async def append(self, calls: Sequence[ModelCall]) -> set[CallKey]:
        """Write the calls of users who have an environment, all in one transaction: the keys of those that are new."""
        if not calls:
            return set()
        await self.make_partitions(call.at for call in calls)
        columns = list(zip(*(_columns(call) for call in calls), strict=True))
        async with self._database.connection() as connection:
            rows = await connection.fetch(_USAGE["append_usage"], *columns)
        return {(row["gateway_id"], row["call_id"]) for row in rows}

    async def used_by(
        self, gateway_id: str, slug: str, day: float, month: float, recent: float, weights: Weights
    ) -> Used:
        """Since the moments `day` and `month`; `recent`: since when written calls are named."""
        moments = [moment(seconds) for seconds in (day, month, recent)]
        factors = (weights.input, weights.output, weights.cache_read, weights.cache_write)
        async with self._database.connection() as connection:
            [row] = await connection.fetch(_USAGE["used_by"], gateway_id, slug, *moments, *factors)
        return Used(row["day_tokens"], row["month_cost"], row["day_calls"], row["recent"])

    async def summed(self, query: UsageQuery) -> list[UsageSum]:
        """In the order of the groups' names."""
        bounds = (moment(query.since), moment(query.until))
        async with self._database.connection() as connection:
            rows = await connection.fetch(_USAGE["summed"], *bounds, query.user_id, query.by, query.zone)
        return [
            UsageSum(
                group=row["group"],
                calls=row["calls"],
                estimated=row["estimated"],
                tokens=Tokens(row["input"], row["output"], row["cache_read"], row["cache_write"]),
                cost_usd=row["cost_usd"],
            )
            for row in rows
        ]

    async def last_call(self, gateway_id: str, session_key: str, before: float) -> ModelCall | None:
        """The session's last call with the model's own figures; `before`: Unix seconds. Its `slug` is empty."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_USAGE["last_call"], gateway_id, storable(session_key), moment(before))
        return None if row is None else _call(row)

    async def least_call(self, gateway_id: str, slug: str, before: float) -> ModelCall | None:
        """The user's call with the shortest prompt of 30 days before then. As `last_call`."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_USAGE["least_call"], gateway_id, slug, moment(before))
        return None if row is None else _call(row)

    async def open_runs(self, gateway_id: str) -> list[OpenRun]:
        """Those that had begun when it was last heard of them."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_USAGE["open_runs"], gateway_id)
        return [OpenRun(row["run_id"], row["slug"], row["session_key"], row["began_at"].timestamp()) for row in rows]

    async def called_since(self, gateway_id: str, run_id: str, since: float) -> bool:
        """Is a call of this run in the ledger that was written down after that moment?"""
        async with self._database.connection() as connection:
            return bool(await connection.fetchval(_USAGE["called_since"], gateway_id, storable(run_id), moment(since)))

    async def note_runs(self, gateway_id: str, begun: Sequence[OpenRun], over: Sequence[str]) -> None:
        """Runs that have begun, and the ids of those that are over and in the ledger."""
        async with self._database.connection() as connection:
            if begun:
                texts = [[storable(getattr(run, name)) for run in begun] for name in ("run_id", "slug", "session_key")]
                moments = [moment(run.began_at) for run in begun]
                await connection.execute(_USAGE["open_more"], gateway_id, *texts, moments)
            if over:
                await connection.execute(_USAGE["close_some"], gateway_id, [storable(run_id) for run_id in over])

    async def recorded(self, gateway_id: str, call_ids: Sequence[str]) -> dict[str, int]:
        """Of these calls those that are in the ledger, with their tokens of all kinds."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_USAGE["recorded"], gateway_id, [storable(one) for one in call_ids])
        return {row["call_id"]: row["tokens_total"] for row in rows}

    async def read_until(self, gateway_id: str) -> float | None:
        """Up to when, by its own clock, all that the gateway's transcripts tell was written; None: never."""
        async with self._database.connection() as connection:
            value: datetime | None = await connection.fetchval(_USAGE["read_until"], gateway_id)
        return None if value is None else value.timestamp()

    async def set_read_until(self, gateway_id: str, until: float) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_USAGE["set_read_until"], gateway_id, moment(until))

    async def make_partitions(self, moments: Iterable[float]) -> None:
        """For the months of these moments, where there are none."""
        wanted = {_month(seconds) for seconds in moments} - self._months
        if not wanted:
            return
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
            for first in wanted:
                await connection.execute(_partition(first))
        self._months |= wanted

    async def drop_partitions(self, before: float) -> list[date]:
        """Those of months that ended before this moment, and their calls' keys: the first days of these months."""
        keep = _month(before)
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
            rows = await connection.fetch(_USAGE["months_of_usage"])
            gone = sorted(row["month"] for row in rows if row["month"] < keep)
            for first in gone:
                await connection.execute(f"drop table {_name(first)}")
            if gone:
                await connection.execute(_USAGE["forget_calls"], datetime(keep.year, keep.month, 1, tzinfo=UTC))
        self._months.difference_update(gone)
        return gone


def months_ahead(now: float) -> list[float]:
    """A moment of this month, and of those for which a partition is made ahead."""
    first = _month(now)
    moments = []
    for _ in range(MONTHS_AHEAD + 1):
        moments.append(datetime(first.year, first.month, 1, tzinfo=UTC).timestamp())
        first = _following(first)
    return moments


def _call(row: Record) -> ModelCall:
    return ModelCall(
        gateway_id=row["gateway_id"],
        call_id=row["call_id"],
        source=Source(row["source"]),
        slug="",
        session_key=row["session_key"],
        run_id=row["request_id"],
        provider=row["provider"],
        model=row["model"],
        tokens=Tokens(*(row[f"tokens_{name}"] for name in ("input", "output", "cache_read", "cache_write"))),
        cost_usd=row["cost_usd"],
        at=row["timestamp"].timestamp(),
        metadata=json.loads(row["metadata"]),
    )


def _columns(call: ModelCall) -> tuple[object, ...]:
    tokens = call.tokens
    texts = (call.call_id, call.source.value, call.slug, call.session_key, call.run_id, call.provider, call.model)
    return (
        call.gateway_id,
        *(storable(text) for text in texts),
        *(tokens.input, tokens.output, tokens.cache_read, tokens.cache_write),
        call.cost_usd,
        moment(call.at),
        json.dumps(storable(call.metadata)),
    )


def _month(seconds: float) -> date:
    return datetime.fromtimestamp(seconds, UTC).date().replace(day=1)


def _following(first: date) -> date:
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)


def _name(first: date) -> str:
    return f"token_usage_logs_{first:%Y_%m}"


def _partition(first: date) -> str:
    """Names and dates are made here, of nothing that anybody wrote."""
    bounds = f"from ('{first} 00:00:00+00') to ('{_following(first)} 00:00:00+00')"
    return f"create table if not exists {_name(first)} partition of token_usage_logs for values {bounds}"
