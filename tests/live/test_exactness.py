"""Whatever happens to those who keep the books, each call that a model served to its end stands in them once, with its figures.

`make exact` does more of the same: EXACT_RUNS turns, EXACT_KILLS kills; EXACT_SEED, which is printed, repeats what was done. It
also waits until nothing is set aside any more: up to three minutes, for turns that never began.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from sidecar.quota.runs import LIVE_MS
from tests.live.spending import Crowd, Misfortune, Town, town
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import Call, EchoModel

USERS = 10
RUNS = int(os.environ.get("EXACT_RUNS", "32"))
KILLS = int(os.environ.get("EXACT_KILLS", "3"))
SEED = os.environ.get("EXACT_SEED") or str(random.SystemRandom().randrange(10**9))
WHOLE = RUNS >= 300
PATIENCE_S = LIVE_MS / 1000 + 60
"""What a killed sidecar had set aside for a turn that never began is free again after `LIVE_MS`."""

pytestmark = [pytest.mark.live, pytest.mark.timeout(600 + 3 * RUNS)]

Figures = tuple[int, int, int]
"""Tokens of the prompt that were not cached, cached ones, tokens of the answer."""


@pytest_asyncio.fixture(scope="module")
async def place(identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with EchoModel() as model:
        model.calls = deque()
        async with town(tmp_path_factory.mktemp("town"), model, identity_provider) as standing:
            yield standing


def figures(call: Call) -> Figures:
    cached = min(call.directives.cached, call.prompt)
    return call.prompt - cached, cached, call.completion


def calls_of(place: Town, agent: str, *outcomes: str) -> list[Call]:
    return [call for call in place.model.calls if call.turn.agent == agent and call.outcome in outcomes]


async def rows(place: Town) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(place.postgres.database_url)
    try:
        return await connection.fetch(
            "select profile_name, log.* from token_usage_logs log join user_openclaw_environments using (user_id)"
        )
    finally:
        await connection.close()


def billed(found: list[asyncpg.Record], agent: str, source: str = "message") -> Counter[Figures]:
    names = ("tokens_input", "tokens_cache_read", "tokens_output")
    return Counter(
        tuple(row[name] for name in names) for row in found if (row["profile_name"], row["source"]) == (agent, source)
    )


@dataclass(frozen=True, slots=True)
class Bill:
    """Of one user: what the model wrote to its end, and what the ledger has of it."""

    calls: Sequence[Call]
    unsure: Sequence[Call]
    """Of these what a gateway that went down may have no word of."""

    billed: Counter[Figures]
    estimates: int

    def wrong(self) -> str:
        """Empty where it is right."""
        sure = Counter(figures(call) for call in self.calls if call not in self.unsure)
        served = Counter(map(figures, self.calls))
        missing, extra = sure - self.billed, self.billed - served
        told = [
            f"{call.ended:.2f} {call.turn.session} {figures(call)} {call.turn.person[-80:]!r}" for call in self.calls
        ]
        told += [f"billed {dict(self.billed)}, estimates {self.estimates}"]
        if missing or extra:
            return f"not billed {missing}, billed though not served {extra}; {told}"
        of_jobs = Counter(figures(call) for call in self.unsure if ":cron:" in call.turn.session)
        lost = (served - self.billed - of_jobs).total()  # a job's run that dies with its gateway leaves nothing
        return "" if lost <= self.estimates else f"{lost} calls were lost with their gateway; {told}"


def bill(place: Town, agent: str, found: list[asyncpg.Record], lost: Sequence[tuple[float, float]]) -> Bill:
    calls = calls_of(place, agent, "served")
    unsure = [call for call in calls if any(begin <= call.ended <= end for begin, end in lost)]
    return Bill(calls, unsure, billed(found, agent), billed(found, agent, "estimate").total())


async def test_every_token_is_billed_once(place: Town) -> None:
    print(f"\nEXACT_SEED={SEED}")
    chance = random.Random(SEED)
    logins = [f"person{number}" for number in range(USERS)]
    agents = [f"u-{login}" for login in logins]
    crowd = Crowd(place, logins, RUNS, chance)
    misfortune = Misfortune(crowd, KILLS, random.Random(chance.random()))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(crowd.work())
        tasks.create_task(misfortune.strike())
    print(f"{crowd.taken} turns: {dict(crowd.done)}\n{dict(misfortune.done)}, gateway down {misfortune.lost}")
    await quiet(place)
    found = await rows(place)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while any(bill(place, agent, found, misfortune.lost).wrong() for agent in agents):
                await asyncio.sleep(0.5)
                found = await rows(place)
    for agent in agents:
        assert bill(place, agent, found, misfortune.lost).wrong() == ""
    tell_estimates(place, found, agents)
    for login in logins:
        await the_quota_says_so(place, login)


async def the_quota_says_so(place: Town, login: str) -> None:
    """What is counted is what the ledger has, to the token; and nothing is set aside any more."""
    headers = {"Authorization": f"Bearer {await place.identity_provider.token_for(login, lifetime=3600)}"}
    standing: dict[str, Any] = {}
    total = 0
    async with aiohttp.ClientSession(headers=headers) as session:
        for sidecar in place.sidecars:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    while not standing or (standing["used"], standing["reserved"] if WHOLE else 0) != (total, 0):
                        await asyncio.sleep(0.5)
                        async with session.get(f"{sidecar.http_url}/api/openclaw/quota") as answer:
                            standing = (await answer.json())["quotas"]["daily_tokens"]
                        mine = [row for row in await rows(place) if row["profile_name"] == f"u-{login}"]
                        total = sum(row["tokens_total"] for row in mine)
            assert (standing["used"], standing["reserved"] if WHOLE else 0) == (total, 0), login


def tell_estimates(place: Town, found: list[asyncpg.Record], agents: list[str]) -> None:
    """How far off what nobody has figures of is, and what nobody sees."""
    for agent in agents:
        broken = [call for call in calls_of(place, agent, "aborted", "failed") if not call.directives.fail_status]
        guessed = billed(found, agent, "estimate")
        if broken or guessed:
            print(f"{agent}: broken off {[figures(call) for call in broken]}, estimated {list(guessed.elements())}")
    broken = [call for call in place.model.calls if call.outcome != "served" and not call.directives.fail_status]
    taken = sum(sum(figures(call)) for call in broken if call.turn.agent)
    guessed_all = [row["tokens_total"] for row in found if row["source"] == "estimate"]
    print(
        f"{len(broken)} calls were broken off after {taken:,} tokens; {len(guessed_all)} estimates say {sum(guessed_all):,}"
    )
    unseen = [call for call in place.model.calls if not call.turn.agent]
    print(
        f"{len(unseen)} calls stand in no transcript (compaction); they took {sum(sum(figures(call)) for call in unseen):,}"
    )


async def quiet(place: Town) -> None:
    """No call for five seconds."""
    seen = -1
    async with asyncio.timeout(PATIENCE_S):
        while seen != (seen := len(place.model.calls)) or any(call.outcome == "running" for call in place.model.calls):
            await asyncio.sleep(5)
