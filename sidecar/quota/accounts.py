"""Accounts: what a user may start, by what they have used; and what each model call takes of it.

    admit ─► limits, one Lua call: all of them, or nothing ─► reserved while the run lives ─► released
    settle ─► counted once per model call ─► told when a limit comes near, cut when it is passed

Redis decides, the ledger remembers: figures that Redis does not have are read from the ledger before the first answer, and figures
that may be wrong are forgotten. While Redis is away the operator's policy decides (`on_redis_failure`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from sidecar.domain.quota import NOTHING, Admission, Amount, Figures, Limits, Outcome, QuotaType
from sidecar.domain.usage import ModelCall
from sidecar.errors import QuotaExceeded, SidecarError, StorageAway, TooManyRuns
from sidecar.quota.options import QuotaOptions
from sidecar.quota.ports import Ledger, Store, Terms
from sidecar.quota.refusals import refusal
from sidecar.quota.windows import day_at, month_at
from sidecar.storage.accounts import Ask, Settlement
from sidecar.telemetry.facts import AdmittedBlindly, Report

FRESH_SECONDS = 1800.0
"""A model call that is older when it is first seen is not counted beside the ledger: the user's figures are read from it again."""

RECENT_SECONDS = 2 * 3600.0
LIMITS_SECONDS = 5.0
"""Limits that an operator changed are in force after this."""

PATIENCE_SECONDS = 8.0
"""A gateway that nobody meters is waited for so long: whoever led and died is replaced by then (`usage.collector`)."""

MOST_KNOWN = 10_000
TRIES = 3
AGAIN_SECONDS = 0.5


Standing = Callable[[str, Figures, Limits], None]
"""Hears (slug, figures, limits) after each model call that was counted."""


@dataclass(slots=True)
class _Known:
    """What this process knows of a user, for when others are away."""

    limits: Limits
    limits_at: float
    figures: Figures | None = None
    alone: Amount = NOTHING
    """Reserved without Redis, since the figures."""

    calls_alone: int = 0
    runs_here: set[str] = field(default_factory=set)


async def _always() -> bool:
    return True


class Accounts:
    """One gateway's users. `run()` in a task of the caller's."""

    def __init__(
        self,
        gateway_id: str,
        store: Store,
        ledger: Ledger,
        terms: Terms,
        options: QuotaOptions,
        report: Report,
        clock: Callable[[], float],
    ) -> None:
        self._gateway_id = gateway_id
        self._store = store
        self._ledger = ledger
        self._terms = terms
        self.options = options
        self._report = report
        self._clock = clock
        self.on_standing: list[Standing] = []
        self.metered: Callable[[], Awaitable[bool]] = _always
        """Whether what runs is settled soon; while it is not, nobody knows what is used. Raises StorageAway."""

        self.patience = PATIENCE_SECONDS
        self._unmetered_since = 0.0
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._building: dict[str, asyncio.Task[None]] = {}
        self._calls: deque[tuple[ModelCall, bool]] = deque()
        self._begun: set[str] = set()
        """Users with runs that nobody admitted, and that may be too many."""

        self._doubtful: set[str] = set()
        """Users whose figures in Redis may lack something."""

        self._news = asyncio.Event()

    # --- before a run -------------------------------------------------------------------------------------------------

    async def admit(self, slug: str, place: str, run_id: str, session_key: str, ttl_ms: int) -> Admission:
        """Whether the turn may start; it is reserved then. Raises StorageAway where nobody can tell."""
        try:
            known = await self._known_of(slug)
            ask = self._ask(slug, place, run_id, session_key, ttl_ms, self.options.enforced(known.limits))
            if not await self._is_metered():
                return self._blindly(slug, run_id)
            admission = await self._decided(ask)
        except StorageAway:
            return self._blindly(slug, run_id)
        known.figures, known.alone, known.calls_alone = admission.figures, NOTHING, 0
        if admission.admitted:
            known.runs_here.add(run_id)
        return admission

    async def adopt(self, slug: str, place: str, run_id: str, ttl_ms: int) -> bool:
        """Count in a run that is there, whoever began it: False where it was counted before. Raises StorageAway."""
        admission = await self._store.adopt(self._ask(slug, place, run_id, "", ttl_ms, Limits()))
        if not admission.repeated:
            self._begun.add(slug)
            self._news.set()
        return not admission.repeated

    async def release(self, slug: str, place: str, run_id: str) -> None:
        """The run is over. Raises StorageAway."""
        if (known := self._known.get(slug)) is not None:
            known.runs_here.discard(run_id)
        await self._store.release(slug, place, run_id, self._now_ms())

    def refusal(self, slug: str, admission: Admission) -> QuotaExceeded | TooManyRuns:
        """The error for an admission that is none."""
        known = self._known.get(slug)
        return refusal(admission, known.limits if known else Limits(), self._clock(), self.options.zone)

    async def figures(self, slug: str) -> tuple[Figures, Limits]:
        """Where a user stands. Raises StorageAway."""
        known = await self._known_of(slug)
        now = self._clock()
        day, month = day_at(now, self.options.zone), month_at(now, self.options.zone)
        for _ in range(TRIES):
            found = await self._store.look(slug, self._now_ms(), day.name, month.name)
            if found is not None:
                return found, known.limits
            await self._built(slug)
        raise StorageAway("what you have used could not be read from the ledger in time")

    def _ask(self, slug: str, place: str, run_id: str, session_key: str, ttl_ms: int, limits: Limits) -> Ask:
        now, zone = self._clock(), self.options.zone
        return Ask(
            slug=slug,
            place=place,
            run_id=run_id,
            session_key=self._session(session_key),
            estimate=self.options.estimate,
            limits=limits,
            ttl_ms=ttl_ms,
            now_ms=int(now * 1000),
            day=day_at(now, zone).name,
            month=month_at(now, zone).name,
        )

    async def _decided(self, ask: Ask) -> Admission:
        for _ in range(TRIES):
            admission = await self._store.admit(ask)
            if admission.outcome is not Outcome.UNKNOWN:
                return admission
            await self._built(ask.slug)
        raise StorageAway("what you have used could not be read from the ledger in time")

    async def _is_metered(self) -> bool:
        """Wait for who is about to meter, as after a restart; but only as long as that takes. Raises StorageAway."""
        while not await self.metered():
            now = time.monotonic()
            self._unmetered_since = self._unmetered_since or now
            if now - self._unmetered_since >= self.patience:
                return False
            await asyncio.sleep(AGAIN_SECONDS)
        self._unmetered_since = 0.0
        return True

    async def why_blind(self, ping: Callable[[], Awaitable[None]]) -> str:
        """Why nobody can say what is used, and what is done about it; empty where that is known. `ping`: of Redis."""
        try:
            await ping()  # whoever meters knows that they do without asking it
            if await self.metered():
                return ""
            why = "model calls are not collected"
        except StorageAway as error:
            why = error.message
        policies = sorted({self.options.rule(kind).on_redis_failure for kind in QuotaType})
        return f"{why}; quotas are decided by on_redis_failure ({', '.join(policies)})"

    def _blindly(self, slug: str, run_id: str) -> Admission:
        """Raises StorageAway."""
        try:
            admission = self._alone(slug, run_id)
        except StorageAway:
            self._report(AdmittedBlindly(self._gateway_id, admitted=False))
            raise
        self._report(AdmittedBlindly(self._gateway_id, admitted=admission.admitted))
        return admission

    def _alone(self, slug: str, run_id: str) -> Admission:
        """Nobody knows what is used: Redis is away, or the ledger that it would ask, or whoever meters the gateway.

        As the operator wants it. Raises StorageAway.
        """
        known = self._known.get(slug)
        if known is None:
            raise StorageAway("what you may use is not known at the moment; nothing new is started until it is")
        limits, options, figures = self.options.enforced(known.limits), self.options, known.figures
        policies = {kind: options.rule(kind).on_redis_failure for kind, value in limits.values.items() if value}
        if "closed" in policies.values() or ("local" in policies.values() and figures is None):
            raise StorageAway("what you have used is not known at the moment; nothing new is started until it is")
        figures = figures or Figures("", "", NOTHING, NOTHING, 0, 0)
        amount = options.estimate
        if run_id in known.runs_here:
            return Admission(Outcome.REPEATED, figures, amount)
        before, alone = figures.used.plus(figures.reserved), known.alone.plus(amount)
        asked = {
            QuotaType.DAILY_TOKENS: (Outcome.TOKENS, before.tokens, alone.tokens),
            QuotaType.MONTHLY_COST: (Outcome.COST, before.cost_usd, alone.cost_usd),
            QuotaType.API_CALLS: (Outcome.CALLS, Decimal(figures.calls), Decimal(known.calls_alone + 1)),
            QuotaType.CONCURRENT_RUNS: (Outcome.RUNS, Decimal(0), Decimal(len(known.runs_here) + 1)),
        }
        for kind, (outcome, used, wanted) in asked.items():
            if policies.get(kind) == "local" and used + wanted * options.replicas > limits.of(kind):
                return Admission(outcome, figures, amount)
        known.alone = alone
        known.calls_alone += 1
        known.runs_here.add(run_id)
        self._doubt(slug)
        return Admission(Outcome.ADMITTED, figures, amount)

    async def _known_of(self, slug: str) -> _Known:
        known, now = self._known.get(slug), self._clock()
        if known is None or not 0 <= now - known.limits_at < LIMITS_SECONDS:
            try:
                limits = self.options.limits(*await self._terms.terms_of(self._gateway_id, slug))
            except StorageAway:
                if known is None:
                    raise
            else:
                known = known or _Known(limits, now)
                known.limits, known.limits_at = limits, now
            self._known[slug] = known
        self._known.move_to_end(slug)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return known

    # --- what the ledger knows ----------------------------------------------------------------------------------------

    async def _built(self, slug: str) -> None:
        """Have Redis know what the user has used; once for all who ask at the same time. Raises StorageAway."""
        task = self._building.get(slug)
        if task is None:
            task = self._building[slug] = asyncio.create_task(self._build(slug))
            task.add_done_callback(lambda _: self._building.pop(slug, None))
        await asyncio.shield(task)

    async def _build(self, slug: str) -> None:
        if not await self._store.begin_building(slug):
            return
        now, zone = self._clock(), self.options.zone
        day, month = day_at(now, zone), month_at(now, zone)
        used = await self._ledger.used_by(
            self._gateway_id, slug, day.starts, month.starts, now - RECENT_SECONDS, self.options.weights
        )
        figures = Figures(day.name, month.name, Amount(used.day_tokens, used.month_cost), NOTHING, used.day_calls, 0)
        await self._store.built(slug, figures, used.recent, self._now_ms())

    # --- after a model call -------------------------------------------------------------------------------------------

    def settle(self, call: ModelCall) -> None:
        """A model call was seen."""
        self._calls.append((call, False))
        self._news.set()

    def recorded(self, calls: Sequence[ModelCall]) -> None:
        """These are in the ledger now, and were not before."""
        self._calls.extend((call, True) for call in calls)
        self._news.set()

    async def run(self) -> None:
        """Settle what is seen, until cancelled."""
        while True:
            if self._doubtful and not await self._all_forgotten():
                self._doubtful.update(call.slug for call, _ in self._calls)  # the ledger will have them
                self._calls.clear()
                await asyncio.sleep(AGAIN_SECONDS)
            elif not self._calls and not self._begun:
                self._news.clear()
                await self._news.wait()
            while self._begun:
                with contextlib.suppress(StorageAway):
                    await self._tell(self._begun.pop())
            while self._calls and not self._doubtful:
                await self._settled(*self._calls[0])
                self._calls.popleft()

    async def _settled(self, call: ModelCall, recorded: bool) -> None:
        now, zone = self._clock(), self.options.zone
        at = min(call.at, now)  # a gateway's clock that is ahead begins no day
        if now - at > FRESH_SECONDS:
            if recorded:
                self._doubt(call.slug)
            return
        amount = Amount(self.options.weights.of(call.tokens), call.cost_usd)
        settlement = Settlement(
            slug=call.slug,
            call=f"{call.gateway_id} {call.call_id}",
            session_key=self._session(call.session_key),
            amount=amount,
            now_ms=int(now * 1000),
            day=day_at(at, zone).name,
            month=month_at(at, zone).name,
        )
        try:
            new, figures = await self._store.settle(settlement)
            if new or figures is None:
                await self._tell(call.slug, figures)
        except SidecarError:  # Redis is away, or takes no such figures
            self._doubt(call.slug)

    async def _tell(self, slug: str, figures: Figures | None = None) -> None:
        if figures is None:
            figures, limits = await self.figures(slug)
        else:
            limits = (await self._known_of(slug)).limits
        for told in self.on_standing:
            told(slug, figures, limits)

    def _doubt(self, slug: str) -> None:
        self._doubtful.add(slug)
        self._news.set()

    async def _all_forgotten(self) -> bool:
        with contextlib.suppress(StorageAway):
            for slug in list(self._doubtful):
                await self._store.forget(slug)
                self._doubtful.discard(slug)
                await self._tell(slug)
        return not self._doubtful

    def _session(self, key: str) -> str:
        return f"{self._gateway_id} {key}" if key else ""

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
