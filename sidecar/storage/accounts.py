"""`AccountStore`: what each user has used and reserved, in Redis, where all replicas decide by it.

Derived from the ledger, and read from it again whenever Redis does not know: after a flush, a restart, a fail-over. Tokens are kept
in thousandths and money in billionths of a dollar; smaller parts are rounded up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from sidecar.domain.quota import Admission, Amount, Figures, Limits, Outcome, QuotaType
from sidecar.storage.redis import RedisStore, digest, member, runs_key
from sidecar.storage.redis_pipeline import Script

_ADMIT = Script("account", "account_admit")
_SETTLE = Script("account", "account_settle")
_LOOK = Script("account", "account_look")
_BUILD = Script("account", "account_build")
_BUILT = Script("account", "account_built")
_FORGET = Script("account", "account_forget")
_RELEASE = Script("account", "account_release")

BUILD_MS = 10_000
COOL_MS = 2_000
"""What a run reserved stays reserved so long after its end: its last model call is told of beside it."""

_TOKEN = 1000
_USD = 10**9


@dataclass(frozen=True, slots=True)
class Ask:
    """A turn that asks to start, or runs already."""

    slug: str
    place: str
    """The list on which it counts, beside those of the same user at other gateways."""

    run_id: str
    session_key: str
    """Empty where it belongs to none."""

    estimate: Amount
    """For a session of which nothing is known."""

    limits: Limits
    ttl_ms: int
    """It ends by itself after so long without a word of it."""

    now_ms: int
    day: str
    month: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """A model call that counts."""

    slug: str
    call: str
    """Its key in the ledger: gateway and id."""

    session_key: str
    amount: Amount
    now_ms: int
    day: str
    """Of the call, as `month`."""

    month: str


class AccountStore:
    """Every method raises StorageAway. All calls are safe to repeat."""

    def __init__(self, redis: RedisStore) -> None:
        self._redis = redis

    async def admit(self, ask: Ask) -> Admission:
        """Admit and reserve, if every limit allows it."""
        return await self._asked(ask, adopt=False)

    async def adopt(self, ask: Ask) -> Admission:
        """Count in what runs already; figures of a user of whom nothing is known are empty."""
        return await self._asked(ask, adopt=True)

    async def _asked(self, ask: Ask, *, adopt: bool) -> Admission:
        limits = ask.limits
        reply = await self._redis.script(
            _ADMIT,
            _keys(ask.slug),
            *(member(ask.place, ask.run_id), ask.now_ms, ask.ttl_ms, ask.day, ask.month, _session(ask.session_key)),
            *(_milli(ask.estimate.tokens), _nano(ask.estimate.cost_usd)),
            int(limits.of(QuotaType.CONCURRENT_RUNS)),
            int(limits.of(QuotaType.MESSAGES_PER_MINUTE)),
            int(limits.of(QuotaType.API_CALLS)),
            _milli(limits.of(QuotaType.DAILY_TOKENS)),
            _nano(limits.of(QuotaType.MONTHLY_COST)),
            int(adopt),
        )
        tokens, cost, wait_ms = reply[9:]
        return Admission(Outcome(reply[0]), _figures(reply), _amount(tokens, cost), int(wait_ms))

    async def release(self, slug: str, place: str, run_id: str, now_ms: int) -> None:
        """The run is over."""
        await self._redis.script(_RELEASE, _keys(slug), member(place, run_id), now_ms + COOL_MS, now_ms)

    async def settle(self, settlement: Settlement) -> tuple[bool, Figures | None]:
        """Whether the call was counted now, and where its user stands; None where the ledger must say so first."""
        one = settlement
        reply = await self._redis.script(
            _SETTLE,
            _keys(one.slug),
            *(digest(one.call), one.now_ms, one.day, one.month),
            *(_milli(one.amount.tokens), _nano(one.amount.cost_usd), _session(one.session_key)),
        )
        return reply[0] == "new", None if reply[0] == "unknown" else _figures(reply)

    async def look(self, slug: str, now_ms: int, day: str, month: str) -> Figures | None:
        """Where the user stands; None where the ledger must say so first."""
        reply = await self._redis.script(_LOOK, _keys(slug), now_ms, day, month)
        return None if reply[0] == "unknown" else _figures(reply)

    async def begin_building(self, slug: str) -> bool:
        """Before the ledger is read; False where the figures are known."""
        return bool(await self._redis.script(_BUILD, _keys(slug), BUILD_MS))

    async def built(self, slug: str, figures: Figures, calls: Iterable[str], now_ms: int) -> bool:
        """The ledger's figures, and which of the calls that were written lately they hold; False: begin again."""
        one = figures
        reply = await self._redis.script(
            _BUILT,
            _keys(slug),
            *(now_ms, one.day, one.month, _milli(one.used.tokens), _nano(one.used.cost_usd), one.calls),
            *map(digest, calls),
        )
        return bool(reply)

    async def forget(self, slug: str) -> None:
        """Have the ledger asked before the next turn. What runs, and what that reserves, stays."""
        await self._redis.script(_FORGET, _keys(slug))


def _keys(slug: str) -> tuple[str, ...]:
    runs = runs_key(slug)
    base = runs.removesuffix("runs")
    return (
        f"{base}used",
        runs,
        *(f"{base}{name}" for name in ("held", "sent", "last", "seen", "building", "late")),
    )


def _session(key: str) -> str:
    return digest(key) if key else ""


def _milli(tokens: Decimal) -> int:
    return int((tokens * _TOKEN).to_integral_value(ROUND_CEILING))


def _nano(usd: Decimal) -> int:
    return int((usd * _USD).to_integral_value(ROUND_CEILING))


def _amount(milli: Any, nano: Any) -> Amount:
    return Amount(Decimal(milli) / _TOKEN, Decimal(nano) / _USD)


def _figures(reply: list[Any]) -> Figures:
    _, day, tokens, held_tokens, month, cost, held_cost, calls, runs = reply[:9]
    return Figures(day, month, _amount(tokens, cost), _amount(held_tokens, held_cost), int(calls), int(runs))
