"""A turn that does not fit, in words for the person who reads them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from sidecar.domain.quota import REFUSED_FOR, Admission, Limits, QuotaType
from sidecar.errors import QuotaExceeded, TooManyRuns
from sidecar.quota.windows import day_at, month_at

CODES = {
    QuotaType.DAILY_TOKENS: "DAILY_TOKENS_EXCEEDED",
    QuotaType.MONTHLY_COST: "MONTHLY_COST_EXCEEDED",
    QuotaType.API_CALLS: "API_CALLS_EXCEEDED",
    QuotaType.MESSAGES_PER_MINUTE: "RATE_LIMITED",
}


def refusal(admission: Admission, limits: Limits, now: float, zone: ZoneInfo) -> QuotaExceeded | TooManyRuns:
    """The error for an admission that is none. `limits`: the user's, without any grace."""
    kind = REFUSED_FOR[admission.outcome]
    limit, figures = limits.of(kind), admission.figures
    if kind is QuotaType.CONCURRENT_RUNS:
        return TooManyRuns(
            f"{int(limit)} of your turns are running, which is as many as may run at once; wait for one to end or stop one",
            details={"limit": int(limit), "used": figures.runs},
        )
    if kind is QuotaType.MESSAGES_PER_MINUTE:
        seconds = -(-admission.wait_ms // 1000)
        return _error(
            kind,
            f"you may start {int(limit)} turns a minute; the next one in {seconds} s",
            {"limit": int(limit), "resetsAt": int(now * 1000) + admission.wait_ms},
            admission.wait_ms,
        )
    if kind is QuotaType.API_CALLS:
        at = day_at(now, zone).ends
        return _error(
            kind,
            f"you have started {figures.calls:,} turns today, and may start {int(limit):,} a day; {_again(at, zone)}",
            {"limit": int(limit), "used": figures.calls, "resetsAt": int(at * 1000)},
        )
    if kind is QuotaType.DAILY_TOKENS:
        return _no_tokens(admission, limit, day_at(now, zone).ends, zone)
    return _no_money(admission, limit, month_at(now, zone).ends, zone)


def _no_tokens(admission: Admission, limit: Decimal, at: float, zone: ZoneInfo) -> QuotaExceeded:
    used, reserved, needed = admission.figures.used.tokens, admission.figures.reserved.tokens, admission.estimate.tokens
    return _error(
        QuotaType.DAILY_TOKENS,
        f"you have used {_tokens(used)} of your {_tokens(limit)} tokens for today{_held(_tokens(reserved), reserved)}, "
        f"and this turn takes about {_tokens(needed)}; {_again(at, zone)}",
        {
            "limit": int(limit),
            "used": _count(used),
            "reserved": _count(reserved),
            "needed": _count(needed),
            "resetsAt": int(at * 1000),
        },
    )


def _no_money(admission: Admission, limit: Decimal, at: float, zone: ZoneInfo) -> QuotaExceeded:
    figures, needed = admission.figures, admission.estimate.cost_usd
    used, reserved = figures.used.cost_usd, figures.reserved.cost_usd
    return _error(
        QuotaType.MONTHLY_COST,
        f"you have used {_usd(used)} of your {_usd(limit)} for this month{_held(_usd(reserved), reserved)}, "
        f"and this turn costs about {_usd(needed)}; {_again(at, zone)}",
        {
            "limit": float(limit),
            "used": float(used),
            "reserved": float(reserved),
            "needed": float(needed),
            "resetsAt": int(at * 1000),
        },
    )


def cut_sentence(kind: QuotaType, used: Decimal, limit: Decimal, at: float, zone: ZoneInfo) -> str:
    """Why a turn was stopped."""
    if kind is QuotaType.DAILY_TOKENS:
        told = f"you have used {_tokens(used)} of your {_tokens(limit)} tokens for today"
    else:
        told = f"you have used {_usd(used)} of your {_usd(limit)} for this month"
    return f"This turn was stopped: {told}; {_again(at, zone)}."


def _error(
    kind: QuotaType, message: str, details: dict[str, object], retry_after_ms: int | None = None
) -> QuotaExceeded:
    return QuotaExceeded(message, detail_code=CODES[kind], details=details, retry_after_ms=retry_after_ms)


def _held(words: str, amount: Decimal) -> str:
    return f", {words} more are set aside for turns that run" if amount else ""


def _again(at: float, zone: ZoneInfo) -> str:
    return f"it starts again at {datetime.fromtimestamp(at, zone):%Y-%m-%d %H:%M} ({zone.key})"


def _count(tokens: Decimal) -> int | float:
    return int(tokens) if tokens == int(tokens) else float(tokens)


def _tokens(tokens: Decimal) -> str:
    return f"{round(tokens):,}"


def _usd(usd: Decimal) -> str:
    return f"${usd:,.2f}" if usd >= Decimal("0.01") or not usd else f"${usd:.6f}".rstrip("0")
