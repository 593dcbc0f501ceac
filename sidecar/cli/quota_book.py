"""What `sidecar quota` does, on the databases of a sidecar that runs, or on those that the settings name."""

from __future__ import annotations

import time
from decimal import Decimal

from sidecar.cli.plain import json_line, plain
from sidecar.domain.quota import Figures, QuotaType
from sidecar.errors import SidecarError
from sidecar.options import quota_options
from sidecar.quota.accounts import Accounts
from sidecar.settings import Settings
from sidecar.storage.accounts import AccountStore
from sidecar.storage.engines.running import running_database_url, running_redis_url
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.quotas import QuotaBook
from sidecar.storage.redis import RedisOptions, RedisStore
from sidecar.telemetry.facts import untold


async def show(settings: Settings, user_id: str, *, as_json: bool) -> int:
    """Raises EngineError where no engine is found, StorageAway where one does not answer, SidecarError for who is not known."""
    storage = settings.storage
    redis_url = storage.redis_url.get_secret_value() or running_redis_url(storage.data_dir)
    async with Database(_database(settings)) as database, RedisStore(RedisOptions(redis_url)) as redis:
        book = QuotaBook(database)
        gateway_id, slug = await _home(book, user_id)
        accounts = Accounts(
            gateway_id, AccountStore(redis), Ledger(database), book, quota_options(settings), untold, time.time
        )
        figures, limits = await accounts.figures(slug)
        _, own = await book.terms_of(gateway_id, slug)
    rows = {kind: (_used(kind, figures), limits.of(kind), "own" if kind in own else "settings") for kind in QuotaType}
    if as_json:
        print(json_line({"userId": user_id} | {kind.value: _json(*row) for kind, row in rows.items()}))
    else:
        print(_table(rows))
    return 0


async def change(settings: Settings, user_id: str, kind: QuotaType, limit: Decimal | None) -> int:
    """None: as the settings say. Raises as `show`."""
    async with Database(_database(settings)) as database:
        book = QuotaBook(database)
        await _home(book, user_id)
        await book.set_limit(user_id, kind, limit)
    told = "as the settings say" if limit is None else "unlimited" if not limit else f"{limit:,f}"
    print(f"{kind} of {plain(user_id)}: {told}")
    return 0


def _database(settings: Settings) -> DatabaseOptions:
    return DatabaseOptions(
        settings.storage.database_url.get_secret_value() or running_database_url(settings.storage.data_dir)
    )


async def _home(book: QuotaBook, user_id: str) -> tuple[str, str]:
    home = await book.home_of(user_id)
    if home is None:
        raise SidecarError(
            f"nobody is known as '{plain(user_id)}': a user id is '<issuer>|<subject>', from the first connect on"
        )
    return home


def _used(kind: QuotaType, figures: Figures) -> tuple[Decimal | None, Decimal | None]:
    """Used, and reserved."""
    return {
        QuotaType.DAILY_TOKENS: (figures.used.tokens, figures.reserved.tokens),
        QuotaType.MONTHLY_COST: (figures.used.cost_usd, figures.reserved.cost_usd),
        QuotaType.API_CALLS: (Decimal(figures.calls), None),
        QuotaType.CONCURRENT_RUNS: (Decimal(figures.runs), None),
    }.get(kind, (None, None))


def _json(used: tuple[Decimal | None, Decimal | None], limit: Decimal, source: str) -> dict[str, object]:
    spent, reserved = (None if one is None else float(one) for one in used)
    return {"limit": float(limit) or None, "used": spent, "reserved": reserved, "from": source}


def _table(rows: dict[QuotaType, tuple[tuple[Decimal | None, Decimal | None], Decimal, str]]) -> str:
    lines = [f"{'quota':<20}{'limit':>18}{'used':>18}{'reserved':>18}  from"]
    for kind, ((used, reserved), limit, source) in rows.items():
        cells = (f"{limit:,f}" if limit else "unlimited", _cell(used), _cell(reserved))
        lines.append(f"{kind:<20}" + "".join(f"{cell:>18}" for cell in cells) + f"  {source}")
    return "\n".join(lines)


def _cell(value: Decimal | None) -> str:
    return "" if value is None else f"{value.normalize():,f}"
