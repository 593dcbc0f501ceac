"""Accounts in a real Redis: what fits is admitted and nothing more, each call counts once, and a lost figure is read again."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from sidecar.domain.quota import NOTHING, Amount, Figures, Limits, Outcome
from sidecar.storage.accounts import COOL_MS, AccountStore, Settlement
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.redis import RedisOptions, RedisStore
from tests.storage.asks import DAY, MONTH, ask, limits

ALICE, BOB = "u-alice", "u-bob"
fresh = count(1)


def tokens(number: float) -> Amount:
    return Amount(Decimal(str(number)))


def usd(number: str) -> Amount:
    return Amount(cost_usd=Decimal(number))


def settlement(
    call: str, amount: Amount, *, slug: str = ALICE, now_ms: int = 1000, day: str = DAY, session: str = ""
) -> Settlement:
    return Settlement(slug, call, session, amount, now_ms, day, day[:7])


@pytest.fixture
async def accounts(store: RedisStore) -> AccountStore:
    """Where the ledger has said that nobody has used anything."""
    keeper = AccountStore(store)
    for slug in (ALICE, BOB):
        await known(keeper, slug)
    return keeper


async def known(accounts: AccountStore, slug: str, used: Amount = NOTHING, calls: int = 0, day: str = DAY) -> None:
    assert await accounts.begin_building(slug)
    assert await accounts.built(slug, Figures(day, day[:7], used, NOTHING, calls, 0), [], 1000)


async def used(accounts: AccountStore, slug: str = ALICE, now_ms: int = 1000) -> Figures:
    found = await accounts.look(slug, now_ms, DAY, MONTH)
    assert found is not None
    return found


# --- one limit at a time --------------------------------------------------------------------------------------------------


async def test_runs(accounts: AccountStore) -> None:
    two = limits(concurrent_runs=2)
    for number in (1, 2):
        admission = await accounts.admit(ask(ALICE, f"r{number}", two))
        assert (admission.outcome, admission.figures.runs) == (Outcome.ADMITTED, number)
    refused = await accounts.admit(ask(ALICE, "r3", two))
    assert (refused.outcome, refused.figures.runs) == (Outcome.RUNS, 2)
    assert (await accounts.admit(ask(ALICE, "r1", two))).outcome is Outcome.REPEATED
    assert (await accounts.admit(ask(BOB, "r3", two))).admitted
    assert not (await accounts.admit(ask(ALICE, "r1", two, place="other"))).admitted, "another gateway's is another run"
    await accounts.release(ALICE, "main", "r1", 1000)
    await accounts.release(ALICE, "main", "never", 1000)
    assert (await accounts.admit(ask(ALICE, "r3", two))).figures.runs == 2


async def test_tokens(accounts: AccountStore) -> None:
    allowed = limits(daily_tokens=100)
    for number in (1, 2, 3):
        admission = await accounts.admit(ask(ALICE, f"r{number}", allowed, estimate=tokens(30)))
        assert (admission.outcome, admission.figures.reserved, admission.estimate) == (
            Outcome.ADMITTED, tokens(30 * number), tokens(30),
        )  # fmt: skip
    refused = await accounts.admit(ask(ALICE, "r4", allowed, estimate=tokens(30)))
    assert (refused.outcome, refused.figures.reserved, refused.figures.used) == (Outcome.TOKENS, tokens(90), NOTHING)
    assert (await accounts.admit(ask(ALICE, "r5", allowed, estimate=tokens(10)))).admitted, "exactly full"


async def test_at_the_limit_nothing_starts_whatever_it_is_thought_to_take(store: RedisStore) -> None:
    accounts = AccountStore(store)
    await known(accounts, ALICE, Amount(Decimal(100), Decimal(1)))
    for allowed, outcome in ((limits(daily_tokens=100), Outcome.TOKENS), (limits(monthly_cost=1), Outcome.COST)):
        assert (await accounts.admit(ask(ALICE, "r", allowed))).outcome is outcome


async def test_a_call_that_took_nothing_says_nothing_of_the_next(accounts: AccountStore) -> None:
    """A model that fails at once is no way to start turns that reserve nothing."""
    await accounts.settle(settlement("failed", NOTHING, session="s"))
    assert (await accounts.admit(ask(ALICE, "r", session="s", estimate=tokens(30)))).estimate == tokens(30)
    await accounts.settle(settlement("done", tokens(40), session="s"))
    await accounts.settle(settlement("failed again", NOTHING, session="s"))
    assert (await accounts.admit(ask(ALICE, "r2", session="s", estimate=tokens(30)))).estimate == tokens(40)


async def test_what_a_run_reserves_stays_reserved_while_it_is_renewed(
    accounts: AccountStore, store: RedisStore
) -> None:
    """Longer than it was first given, by the clock of Redis itself."""
    allowed, life = limits(daily_tokens=100), 300
    assert (await accounts.admit(ask(ALICE, "long", allowed, estimate=tokens(90), ttl_ms=life, now_ms=now()))).admitted
    for _ in range(5):
        await asyncio.sleep(0.1)
        assert await store.renew_runs(ALICE, "main", ["long"], 20_000, now()) == 1
    refused = await accounts.admit(ask(ALICE, "other", allowed, estimate=tokens(90), now_ms=now()))
    assert (refused.outcome, refused.figures.reserved) == (Outcome.TOKENS, tokens(90))


def now() -> int:
    return int(time.time() * 1000)


async def test_money_to_the_billionth(accounts: AccountStore) -> None:
    allowed = limits(monthly_cost="0.000000003")
    for number in range(3):
        assert (await accounts.admit(ask(ALICE, f"r{number}", allowed, estimate=usd("0.000000001")))).admitted
    assert (await accounts.admit(ask(ALICE, "r", allowed, estimate=usd("0.000000001")))).outcome is Outcome.COST


async def test_turns_of_a_day_and_of_a_minute(accounts: AccountStore) -> None:
    allowed = limits(api_calls=2, messages_per_minute=1)
    assert (await accounts.admit(ask(ALICE, "r1", allowed))).admitted
    hurried = await accounts.admit(ask(ALICE, "r2", allowed, now_ms=21_000))
    assert (hurried.outcome, hurried.wait_ms) == (Outcome.RATE, 40_000)
    assert (await accounts.admit(ask(ALICE, "r1", allowed, now_ms=21_000))).repeated
    assert (await accounts.admit(ask(ALICE, "r2", allowed, now_ms=61_001))).admitted
    third = await accounts.admit(ask(ALICE, "r3", allowed, now_ms=130_000))
    assert (third.outcome, third.figures.calls) == (Outcome.CALLS, 2)
    assert (await accounts.admit(ask(ALICE, "r3", allowed, now_ms=130_000, day="2026-11-28"))).admitted


async def test_a_refused_turn_leaves_nothing_behind(accounts: AccountStore, redis_client: Redis) -> None:
    before = await everything(redis_client)
    for allowed in (limits(daily_tokens=1), limits(monthly_cost="0.01")):
        refused = await accounts.admit(ask(ALICE, "r1", allowed, estimate=Amount(Decimal(2), Decimal(1))))
        assert not refused.admitted
    assert await everything(redis_client) == before


async def everything(client: Redis) -> dict[str, object]:
    """All that is kept, but for how long."""
    readers: dict[object, Any] = {
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "string": client.get,
    }
    return {str(key): await readers[await client.type(key)](key) for key in sorted(map(str, await client.keys("*")))}


# --- reservations ---------------------------------------------------------------------------------------------------------


async def test_what_a_run_reserved_cools_down_after_its_end(accounts: AccountStore) -> None:
    """Its last model call may be settled a moment later."""
    await accounts.admit(ask(ALICE, "r1", estimate=tokens(30)))
    await accounts.release(ALICE, "main", "r1", 2000)
    at_once = await used(accounts, now_ms=2000)
    assert (at_once.runs, at_once.reserved) == (0, tokens(30))
    assert (await used(accounts, now_ms=2000 + COOL_MS)).reserved == NOTHING


async def test_a_run_of_which_nobody_tells_gives_back_what_it_held(accounts: AccountStore) -> None:
    await accounts.admit(ask(ALICE, "r1", estimate=tokens(30), ttl_ms=500))
    assert (await used(accounts, now_ms=1499)).reserved == tokens(30)
    late = await used(accounts, now_ms=1500)
    assert (late.runs, late.reserved) == (0, NOTHING)


async def test_what_runs_already_is_counted_whatever_the_limits(accounts: AccountStore) -> None:
    assert not (await accounts.adopt(ask(ALICE, "job", limits(concurrent_runs=1), estimate=tokens(30)))).repeated
    assert (await accounts.adopt(ask(ALICE, "job", estimate=tokens(30)))).repeated
    assert (await used(accounts)).reserved == tokens(30)
    assert (await used(accounts)).calls == 0
    assert not (await accounts.admit(ask(ALICE, "r1", limits(concurrent_runs=1)))).admitted


async def test_a_turn_reserves_what_the_last_call_of_its_session_took(accounts: AccountStore) -> None:
    await accounts.settle(settlement("c1", tokens(700), session="main"))
    await accounts.settle(settlement("c2", tokens(500), session="main"))
    await accounts.settle(settlement("c3", tokens(80), session="other"))
    for run, session, expected in (("a", "main", 500), ("b", "other", 80), ("c", "new", 100), ("d", "", 100)):
        admission = await accounts.admit(ask(ALICE, run, session=session, estimate=tokens(100)))
        assert admission.estimate == tokens(expected)
    admission = await accounts.admit(ask(ALICE, "e", session="new", estimate=tokens(10)))
    assert admission.estimate == tokens(80), "never less than a call is known to take"


# --- settlement -----------------------------------------------------------------------------------------------------------


async def test_a_call_counts_once(accounts: AccountStore) -> None:
    call = settlement("c1", Amount(Decimal("12.5"), Decimal("0.25")))
    new, figures = await accounts.settle(call)
    assert new
    assert figures is not None
    assert figures.used == call.amount
    assert await accounts.settle(call) == (False, figures)
    assert (await used(accounts)).used == call.amount
    assert (await used(accounts, BOB)).used == NOTHING


async def test_days_and_months_begin_anew_and_late_calls_count_where_they_belong(accounts: AccountStore) -> None:
    await accounts.settle(settlement("c1", Amount(Decimal(5), Decimal(1)), day="2026-11-27"))
    await accounts.settle(settlement("c2", Amount(Decimal(7), Decimal(1)), day="2026-11-28"))
    _, figures = await accounts.settle(settlement("late", Amount(Decimal(9), Decimal(1)), day="2026-11-27"))
    assert figures is not None
    assert (figures.day, figures.used) == ("2026-11-28", Amount(Decimal(7), Decimal(3)))
    _, figures = await accounts.settle(settlement("c3", Amount(Decimal(1), Decimal(1)), day="2026-12-01"))
    assert figures is not None
    assert (figures.day, figures.month, figures.used) == ("2026-12-01", "2026-12", Amount(Decimal(1), Decimal(1)))
    behind = await accounts.look(ALICE, 1000, "2026-11-30", "2026-11")
    assert behind == figures, "a clock that is behind opens no window again"


# --- what Redis does not know ---------------------------------------------------------------------------------------------


async def test_of_whom_nothing_is_known_nothing_starts(store: RedisStore) -> None:
    accounts = AccountStore(store)
    assert (await accounts.admit(ask(ALICE, "r1"))).outcome is Outcome.UNKNOWN
    assert await accounts.look(ALICE, 1000, DAY, MONTH) is None
    assert await accounts.settle(settlement("c1", tokens(5))) == (False, None)
    await known(accounts, ALICE, tokens(40), calls=3)
    assert (await used(accounts)).used == tokens(40)
    assert (await accounts.admit(ask(ALICE, "r1"))).figures.calls == 4
    assert (await accounts.settle(settlement("c1", tokens(5))))[0], "it was not among what the ledger had"


async def test_what_is_settled_while_the_ledger_is_read_counts_once(store: RedisStore) -> None:
    accounts = AccountStore(store)
    assert await accounts.begin_building(ALICE)
    for call in ("found", "missed"):
        assert await accounts.settle(settlement(call, tokens(10))) == (False, None)
    assert await accounts.built(ALICE, Figures(DAY, MONTH, tokens(10), NOTHING, 0, 0), ["found"], 1000)
    assert (await used(accounts)).used == tokens(20)
    for call in ("found", "missed"):
        assert not (await accounts.settle(settlement(call, tokens(10))))[0]
    assert not await accounts.begin_building(ALICE), "the figures are known"
    assert await accounts.built(ALICE, Figures(DAY, MONTH, tokens(99), NOTHING, 0, 0), [], 1000), "by somebody else"
    assert (await used(accounts)).used == tokens(20)


async def test_a_reading_that_took_too_long_begins_again(store: RedisStore, redis_client: Redis) -> None:
    accounts = AccountStore(store)
    await accounts.begin_building(ALICE)
    await accounts.settle(settlement("c1", tokens(10)))
    for key in await redis_client.keys("*:building"):
        await redis_client.delete(key)
    assert not await accounts.built(ALICE, Figures(DAY, MONTH, NOTHING, NOTHING, 0, 0), [], 1000)
    assert await accounts.begin_building(ALICE)
    assert await accounts.built(ALICE, Figures(DAY, MONTH, tokens(10), NOTHING, 0, 0), ["c1"], 1000)
    assert (await used(accounts)).used == tokens(10)


async def test_what_is_forgotten_is_read_again_and_what_runs_stays(accounts: AccountStore) -> None:
    await accounts.admit(ask(ALICE, "r1", estimate=tokens(30)))
    await accounts.settle(settlement("c1", tokens(10)))
    await accounts.forget(ALICE)
    assert (await accounts.admit(ask(ALICE, "r2"))).outcome is Outcome.UNKNOWN
    await known(accounts, ALICE, tokens(25))
    figures = await used(accounts)
    assert (figures.used, figures.reserved, figures.runs) == (tokens(25), tokens(30), 1)


async def test_figures_of_another_life_of_the_server_are_not_believed(
    accounts: AccountStore, redis_client: Redis
) -> None:
    """An old snapshot came back, or a replica that had not everything took over."""
    await accounts.settle(settlement("c1", tokens(10)))
    [key] = [key for key in await redis_client.keys("*:used") if (await redis_client.hget(key, "tokens")) == "10000"]
    await redis_client.hset(key, "life", "0" * 40)
    assert (await accounts.admit(ask(ALICE, "r1"))).outcome is Outcome.UNKNOWN
    assert not await redis_client.exists(key)


async def test_keys_share_a_slot_and_name_nobody(accounts: AccountStore, redis_client: Redis) -> None:
    await accounts.admit(ask(ALICE, "secret-run", limits(messages_per_minute=5), session="agent:u-alice:main"))
    await accounts.settle(settlement("secret-call", tokens(5), session="agent:u-alice:main"))
    found = await everything(redis_client)
    tags = {key[key.index("{") : key.index("}")] for key in found}
    assert len(tags) == 2, "one of each user"
    assert not any(word in repr(found) for word in ("alice", "secret-run", "secret-call"))
    assert all([await redis_client.pttl(key) > 0 for key in found])


# --- races and the whole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_fifty_at_once_through_two_replicas(engines: EmbeddedEngines, accounts: AccountStore, seed: int) -> None:
    """Used and reserved never pass the limit, at any admission, and what fits is admitted."""
    chance = random.Random(seed)
    estimate, limit = chance.randint(1, 40), chance.randint(40, 400)
    allowed = limits(daily_tokens=limit, api_calls=chance.choice([0, 7]))
    async with RedisStore(RedisOptions(engines.redis_url)) as other:
        keepers = [accounts, AccountStore(other)]
        asks = [ask(ALICE, f"r{number}", allowed, estimate=tokens(estimate)) for number in range(50)] * 2
        chance.shuffle(asks)
        admissions = await asyncio.gather(*(chance.choice(keepers).admit(one) for one in asks))
    fits = min(limit // estimate, 50, int(allowed.values.get("api_calls", 0)) or 50)  # type: ignore[call-overload]
    new = [admission for admission in admissions if admission.outcome is Outcome.ADMITTED]
    assert len(new) == fits == (await used(accounts)).calls
    assert all(admission.figures.reserved.tokens <= limit for admission in admissions)


@dataclass
class Model:
    """The same in plain Python."""

    used: dict[str, int] = field(default_factory=dict)
    """By day."""

    calls: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    live: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Run → end of life, what it reserves."""

    cooling: list[tuple[int, int]] = field(default_factory=list)

    def held(self, now: int) -> int:
        self.live = {run: (end, amount) for run, (end, amount) in self.live.items() if end > now}
        self.cooling = [(end, amount) for end, amount in self.cooling if end > now]
        return sum(amount for _, amount in [*self.live.values(), *self.cooling])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "adopt", "release", "settle", "forget"]),
        st.integers(0, 5),
        st.integers(0, 40),
        st.integers(0, 1500),
    ),
    max_size=40,
)


@given(steps=STEPS, limit=st.integers(0, 120), runs=st.integers(0, 3), turns=st.integers(0, 4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_behaves_like_the_model(
    engines: EmbeddedEngines, steps: list[tuple[str, int, int, int]], limit: int, runs: int, turns: int
) -> None:
    """Time moves as the steps say, over a midnight; `forget` loses Redis and reads the ledger, which is the model's own."""

    async def play() -> None:
        slug, model, now = f"u-{next(fresh)}", Model(), 1_000
        allowed = limits(daily_tokens=limit, concurrent_runs=runs, api_calls=turns)
        async with RedisStore(RedisOptions(engines.redis_url)) as store:
            accounts = AccountStore(store)
            await known(accounts, slug, day="2026-11-27")
            for verb, number, amount, pause in steps:
                now += pause
                day = "2026-11-27" if now < 20_000 else "2026-11-28"
                run, reserved = f"r{number}", model.held(now)
                one = ask(slug, run, allowed, estimate=tokens(amount), ttl_ms=3000, now_ms=now, day=day)
                if verb == "admit":
                    got = await accounts.admit(one)
                    assert got.outcome is expected(model, run, amount, reserved, day, allowed)
                    if got.outcome is Outcome.ADMITTED:
                        model.calls[day] = model.calls.get(day, 0) + 1
                        model.cooling = [item for item in model.cooling if item not in cooled.get(run, [])]
                        model.live[run] = (now + 3000, amount)
                    elif got.repeated:
                        model.live[run] = (max(now + 3000, model.live[run][0]), model.live[run][1])
                elif verb == "adopt":
                    assert (await accounts.adopt(one)).repeated == (run in model.live)
                    model.cooling = [item for item in model.cooling if item not in cooled.get(run, [])]
                    model.live[run] = (now + 3000, model.live.get(run, (0, amount))[1])
                elif verb == "release":
                    await accounts.release(slug, "main", run, now)
                    if run in model.live:
                        cooled[run] = [(now + COOL_MS, model.live.pop(run)[1])]
                        model.cooling += cooled[run]
                elif verb == "settle":
                    call = f"c{number}"
                    new, _ = await accounts.settle(settlement(call, tokens(amount), slug=slug, now_ms=now, day=day))
                    assert new == (call not in model.seen)
                    if new:
                        model.used[day] = model.used.get(day, 0) + amount
                    model.seen.add(call)
                else:
                    await accounts.forget(slug)
                    assert await accounts.begin_building(slug)
                    figures = Figures(day, MONTH, tokens(model.used.get(day, 0)), NOTHING, model.calls.get(day, 0), 0)
                    assert await accounts.built(slug, figures, model.seen, now)
                figures_now = await accounts.look(slug, now, day, MONTH)
                assert figures_now is not None
                assert figures_now.used.tokens == model.used.get(day, 0)
                assert figures_now.reserved.tokens == model.held(now)
                assert (figures_now.calls, figures_now.runs) == (model.calls.get(day, 0), len(model.live))

    cooled: dict[str, list[tuple[int, int]]] = {}
    with asyncio.Runner() as runner:
        runner.run(play())


def expected(model: Model, run: str, amount: int, reserved: int, day: str, allowed: Limits) -> Outcome:
    limit = {kind.value: int(value) for kind, value in allowed.values.items()}
    if run in model.live:
        return Outcome.REPEATED
    if 0 < limit["concurrent_runs"] <= len(model.live):
        return Outcome.RUNS
    if 0 < limit["api_calls"] <= model.calls.get(day, 0):
        return Outcome.CALLS
    if 0 < limit["daily_tokens"] < model.used.get(day, 0) + reserved + max(amount, 0.001):
        return Outcome.TOKENS
    return Outcome.ADMITTED
