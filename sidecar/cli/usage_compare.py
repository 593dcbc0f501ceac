"""What `sidecar usage backfill` and `reconcile` do: all transcripts of all gateways, beside the ledger and Redis.

Neither disturbs a sidecar that runs: the ledger takes each call once. What a transcript does not have any more (a deleted session)
is in the ledger alone, and right there.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal

from sidecar.cli.plain import plain
from sidecar.doctor.gather import admin_of
from sidecar.domain.usage import ModelCall, Source
from sidecar.gateways.options import GatewayOptions
from sidecar.gateways.unmetered import WAYS
from sidecar.options import gateway_options, prices, quota_options
from sidecar.quota.accounts import Accounts
from sidecar.quota.windows import day_at, month_at
from sidecar.settings import Settings
from sidecar.storage.accounts import AccountStore
from sidecar.storage.engines.running import running_database_url, running_redis_url
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.quotas import QuotaBook
from sidecar.storage.redis import RedisOptions, RedisStore
from sidecar.telemetry.facts import Fact, untold
from sidecar.usage.estimates import Estimates
from sidecar.usage.prices import Prices
from sidecar.usage.transcripts import Transcripts

NOT_COUNTED = f"not counted, where a gateway does it, as no transcript shows it: {', '.join(way.what for way in WAYS)}"


@dataclass(slots=True)
class Compared:
    """One user's calls: transcripts beside the ledger, and the ledger beside Redis."""

    calls: int = 0
    lacking: int = 0
    lacking_tokens: int = 0
    otherwise: int = 0
    """With other figures than the transcript's."""

    written: int = 0
    redis: str = ""
    """By how many tokens of the day Redis differs; empty where it does not, or knows nothing."""

    missing: list[ModelCall] = field(default_factory=list)


async def compare(settings: Settings, *, write: bool) -> int:
    """1 where they differ, and nothing was written to mend it. Raises EngineError, StorageAway, GatewayAway."""
    storage = settings.storage
    database_url = storage.database_url.get_secret_value() or running_database_url(storage.data_dir)
    redis_url = storage.redis_url.get_secret_value() or running_redis_url(storage.data_dir)
    differ = False
    async with (
        Database(DatabaseOptions(database_url, statement_timeout=60.0)) as database,
        RedisStore(RedisOptions(redis_url)) as redis,
    ):
        for gateway in gateway_options(settings):
            ledger, book = Ledger(database), QuotaBook(database)
            users = await book.users_on(gateway.id)
            compared = await _transcripts(settings, gateway, ledger)
            if write:
                for one in compared.values():
                    one.written = len(await ledger.append(one.missing))
            accounts = Accounts(
                gateway.id, AccountStore(redis), ledger, book, quota_options(settings), untold, time.time
            )
            for slug in users:
                compared[slug].redis = await _redis(settings, gateway, slug, ledger, AccountStore(redis))
                if write and compared[slug].written:
                    await AccountStore(redis).forget(slug)
                    await accounts.figures(slug)
            print(f"gateway {gateway.id}: {len(users)} users")
            for slug, one in sorted(compared.items()):
                differ = _told(users.get(slug, slug), one, write=write) or differ
    print(NOT_COUNTED)
    return int(differ and not write)


async def _transcripts(settings: Settings, gateway: GatewayOptions, ledger: Ledger) -> dict[str, Compared]:
    compared: defaultdict[str, Compared] = defaultdict(Compared)
    facts: list[Fact] = []
    async with admin_of(gateway) as admin:
        transcripts = Transcripts(
            gateway.id,
            gateway.layout,
            admin.rpc,
            Estimates(gateway.id, ledger, settings.quota.estimate_tokens),
            Prices(prices(settings)),
            facts.append,
            time.time,
            settings.usage.retention_months,
        )
        keys, _ = await transcripts.changed(0.0)
        seen: set[str] = set()
        for key in sorted(keys):
            async for calls in transcripts.calls(key, 0.0):
                fresh = [call for call in calls if call.call_id not in seen]  # a fork has those of its parent
                seen.update(call.call_id for call in fresh)
                await _beside(fresh, gateway.id, ledger, compared)
    return compared


async def _beside(calls: list[ModelCall], gateway_id: str, ledger: Ledger, compared: dict[str, Compared]) -> None:
    known = await ledger.recorded(gateway_id, [call.call_id for call in calls])
    for call in calls:
        one = compared[call.slug]
        one.calls += 1
        if call.call_id not in known:
            one.lacking += 1
            one.lacking_tokens += call.tokens.total
            one.missing.append(call)
        elif call.source is Source.MESSAGE and known[call.call_id] != call.tokens.total:
            one.otherwise += 1


async def _redis(settings: Settings, gateway: GatewayOptions, slug: str, ledger: Ledger, store: AccountStore) -> str:
    options, now = quota_options(settings), time.time()
    day, month = day_at(now, options.zone), month_at(now, options.zone)
    figures = await store.look(slug, int(now * 1000), day.name, month.name)
    if figures is None:
        return ""
    used = await ledger.used_by(gateway.id, slug, day.starts, month.starts, now, options.weights)
    drift = figures.used.tokens - used.day_tokens
    return f"{drift:+,f}" if abs(drift) > Decimal("0.001") * (1 + used.day_calls) else ""


def _told(user: str, one: Compared, *, write: bool) -> bool:
    """True where something differs."""
    parts = [f"{one.calls:,} calls in transcripts"]
    if one.lacking:
        written = f", {one.written:,} written" if write else ""
        parts.append(f"{one.lacking:,} not in the ledger ({one.lacking_tokens:,} tokens){written}")
    if one.otherwise:
        parts.append(f"{one.otherwise:,} with other figures")
    if one.redis:
        parts.append(f"Redis differs from the ledger by {one.redis} tokens of today")
    print(f"  {plain(user)}: {'; '.join(parts)}")
    return bool(one.lacking or one.otherwise or one.redis)
