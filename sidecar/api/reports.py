"""What a user may use and has used: `GET /api/openclaw/quota`, `/usage`, `/usage.csv` and the alerts.

Everybody reads their own. Administrators read anybody's with `?user=<user id>`, and everybody's usage with `?user=*`.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from aiohttp import web

from sidecar.api.bearer import answer, text
from sidecar.domain.alerts import Alert
from sidecar.domain.principal import Principal
from sidecar.domain.quota import Figures, Limits, QuotaType
from sidecar.domain.usage import GROUPS, UsageQuery, UsageSum, spreadsheet
from sidecar.errors import BadQuery, MethodRefused
from sidecar.quota.windows import day_at, month_at

MOST_DAYS = 400
MOST_ALERTS = 200
MOST_NOTE = 1000
MOST_SUMS = 2
"""At a time, however many are asked for: those who start turns need the database, too."""

FIRST_YEAR, LAST_YEAR = 1970, 9998
_ADMINISTRATOR = "administrator"
_COUNTS = ("input", "output", "cache_read", "cache_write", "total")


class Ledger(Protocol):
    """Raises StorageAway."""

    async def summed(self, query: UsageQuery) -> list[UsageSum]: ...


class Book(Protocol):
    """All raise StorageAway."""

    async def home_of(self, user_id: str) -> tuple[str, str] | None: ...

    async def alerts(self, user_id: str, *, only_open: bool, before: int, limit: int) -> Sequence[Alert]: ...

    async def acknowledge(self, alert_id: int, user_id: str) -> bool: ...

    async def resolve(self, alert_id: int, user_id: str, by: str, note: str, now: float) -> bool: ...


class Accounts(Protocol):
    """Of one gateway. Raises StorageAway."""

    async def figures(self, slug: str) -> tuple[Figures, Limits]: ...


class Reports:
    """`accounts`: by gateway id."""

    def __init__(
        self,
        ledger: Ledger,
        book: Book,
        accounts: Mapping[str, Accounts],
        zone: ZoneInfo,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._book = book
        self._accounts = accounts
        self._zone = zone
        self._clock = clock
        self._few = asyncio.Semaphore(MOST_SUMS)

    async def quota(self, principal: Principal, request: web.Request) -> web.Response:
        """Limits, what is used and set aside, and when it begins again. 404 for who was never here."""
        user_id = _whose(principal, request, all_too=False)
        home = await self._book.home_of(user_id)
        if home is None or home[0] not in self._accounts:
            return _not_found("nothing is known of this user yet: they have not connected")
        figures, limits = await self._accounts[home[0]].figures(home[1])
        now = self._clock()
        day, month = day_at(now, self._zone).ends, month_at(now, self._zone).ends
        rows = {
            QuotaType.DAILY_TOKENS: (figures.used.tokens, figures.reserved.tokens, day),
            QuotaType.MONTHLY_COST: (figures.used.cost_usd, figures.reserved.cost_usd, month),
            QuotaType.API_CALLS: (Decimal(figures.calls), None, day),
            QuotaType.CONCURRENT_RUNS: (Decimal(figures.runs), None, None),
        }
        quotas = {kind.value: _quota(limits.of(kind), *row) for kind, row in rows.items()}
        quotas[QuotaType.MESSAGES_PER_MINUTE.value] = {
            "limit": _number(limits.of(QuotaType.MESSAGES_PER_MINUTE)) or None
        }
        return answer({"userId": user_id, "timezone": self._zone.key, "quotas": quotas})

    async def usage(self, principal: Principal, request: web.Request) -> web.Response:
        """Sums by day, month, model, session, or (for administrators) user. Raises BadQuery."""
        query, first, last = self._query(principal, request)
        rows = [_sum(query.by, one) for one in await self._summed(query)]
        period = {"from": first.isoformat(), "to": last.isoformat(), "timezone": self._zone.key}
        return answer({"userId": query.user_id or "*", **period, "groupBy": query.by, "rows": rows})

    async def usage_csv(self, principal: Principal, request: web.Request) -> web.Response:
        """The same for a spreadsheet."""
        query, first, last = self._query(principal, request)
        out = io.StringIO()
        csv.writer(out, lineterminator="\r\n").writerows(spreadsheet(query.by, await self._summed(query)))
        return text(out.getvalue(), "text/csv", f"usage-{first}-{last}.csv")

    async def alerts(self, principal: Principal, request: web.Request) -> web.Response:
        """The newest first; `?open=true` for those that nobody resolved, `?before=<id>` for the next page."""
        user_id = _whose(principal, request, all_too=True)
        only_open = request.query.get("open", "") == "true"
        found = await self._book.alerts(
            user_id, only_open=only_open, before=_id(request.query.get("before", "0")), limit=MOST_ALERTS
        )
        return answer({"alerts": [_alert(one) for one in found]})

    async def acknowledge(self, principal: Principal, request: web.Request) -> web.Response:
        """Of one's own, or as an administrator. 404 for another's."""
        done = await self._book.acknowledge(_id(request.match_info["id"]), _owner(principal))
        return answer({"ok": True}) if done else _not_found("there is no such alert")

    async def resolve(self, principal: Principal, request: web.Request) -> web.Response:
        """For administrators, with a note: `{"note": "…"}`."""
        _require_administrator(principal)
        try:
            body = await request.json() if request.can_read_body else {}
        except ValueError:
            raise BadQuery('send a JSON object, as {"note": "…"}') from None
        note = body.get("note", "") if isinstance(body, dict) else None
        if not isinstance(note, str) or len(note) > MOST_NOTE:
            raise BadQuery(f"`note` is a text of at most {MOST_NOTE} characters")
        done = await self._book.resolve(_id(request.match_info["id"]), "", principal.user_id, note, self._clock())
        return answer({"ok": True}) if done else _not_found("there is no such alert")

    async def _summed(self, query: UsageQuery) -> Sequence[UsageSum]:
        async with self._few:
            return await self._ledger.summed(query)

    def _query(self, principal: Principal, request: web.Request) -> tuple[UsageQuery, date, date]:
        by = request.query.get("groupBy", "day")
        user_id = _whose(principal, request, all_too=True)
        if by not in GROUPS:
            raise BadQuery(f"`groupBy` is one of {', '.join(GROUPS)}")
        today = datetime.fromtimestamp(self._clock(), self._zone).date()
        first = _day(request.query.get("from", ""), today.replace(day=1))
        last = _day(request.query.get("to", ""), today)
        if not 0 <= (last - first).days < MOST_DAYS:
            raise BadQuery(f"`from` comes before `to`, and at most {MOST_DAYS} days lie between")
        query = UsageQuery(self._begin(first), self._begin(last + timedelta(days=1)), by, user_id, self._zone.key)
        return query, first, last

    def _begin(self, day: date) -> float:
        return datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp()


def _whose(principal: Principal, request: web.Request, *, all_too: bool) -> str:
    """Whom it is about; empty for everybody. Raises MethodRefused where that is not the caller's to ask."""
    user_id = request.query.get("user", principal.user_id)
    if user_id != principal.user_id:
        _require_administrator(principal)
    if "\0" in user_id:
        raise BadQuery("no user id has such a character")
    if user_id == "*" and all_too:
        return ""
    return user_id


def _owner(principal: Principal) -> str:
    return "" if _ADMINISTRATOR in principal.roles else principal.user_id


def _require_administrator(principal: Principal) -> None:
    if _ADMINISTRATOR not in principal.roles:
        raise MethodRefused("this is for administrators", detail_code="ROLE_NOT_ALLOWED")


def _quota(limit: Decimal, used: Decimal, reserved: Decimal | None, resets_at: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"limit": _number(limit) or None, "used": _number(used)}
    if reserved is not None:
        row["reserved"] = _number(reserved)
    if limit:
        row["remaining"] = _number(max(limit - used - (reserved or 0), Decimal(0)))
    if resets_at is not None:
        row["resetsAt"] = int(resets_at * 1000)
    return row


def _number(value: Decimal) -> int | float:
    return int(value) if value == int(value) else float(value)


def _sum(by: str, one: UsageSum) -> dict[str, Any]:
    tokens = one.tokens
    counts = (tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, tokens.total)
    return {
        by: one.group,
        "calls": one.calls,
        "estimated": one.estimated,
        **dict(zip(_COUNTS, counts, strict=True)),
        "costUsd": f"{one.cost_usd:f}",
    }


def _alert(one: Alert) -> dict[str, Any]:
    return {
        "id": one.id,
        "userId": one.user_id,
        "type": one.alert_type,
        "period": one.period,
        "used": _number(one.used),
        "limit": _number(one.limit_value),
        "triggeredAt": one.triggered_at.isoformat(),
        "acknowledged": one.acknowledged,
        "resolvedAt": one.resolved_at.isoformat() if one.resolved_at else None,
        "resolvedBy": one.resolved_by or None,
        "resolutionNote": one.resolution_note or None,
    }


def _day(given: str, otherwise: date) -> date:
    try:
        day = date.fromisoformat(given) if given else otherwise
    except ValueError:
        day = None
    if day is None or not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise BadQuery("write a day as 2026-11-27")
    return day


def _id(given: str) -> int:
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise BadQuery("an alert's id is a number")
    return int(given)


def _not_found(message: str) -> web.Response:
    return answer({"error": {"code": "NOT_FOUND", "message": message}}, 404)
