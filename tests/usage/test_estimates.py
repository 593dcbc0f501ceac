"""What is billed where nobody has figures, by what a real ledger knows."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sidecar.domain.usage import ModelCall, Tokens
from sidecar.protocol.usage import Unfinished
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database
from sidecar.usage.estimates import Estimates
from tests.storage.test_ledger import NOON, call
from tests.storage.test_postgres import environment

KEY = "agent:u-alice:main"
LATER = NOON + 60


@pytest.fixture
async def estimates(database: Database) -> Estimates:
    await database.put_environment(environment("alice"))
    ledger = Ledger(database)
    await ledger.append([call(tokens=Tokens(100, 20, 300, 4), cost_usd=Decimal("0.0424"))])
    return Estimates("main", ledger)


async def of(estimates: Estimates, said: Unfinished, key: str = KEY) -> ModelCall | None:
    return await estimates.of("u-alice", key, said, LATER)


def stopped(message_id: str, chars: int, **more: object) -> Unfinished:
    return Unfinished(message_id, "run-2", chars, LATER, **more)  # type: ignore[arg-type]


async def test_the_prompt_of_the_last_call_and_what_was_said(estimates: Estimates) -> None:
    found = await of(estimates, stopped("m2", 41))
    assert found is not None
    assert found.tokens == Tokens(120, 11, 300, 4)
    assert found.cost_usd == Decimal("0.0424") * 435 / 424
    assert (found.call_id, found.run_id, found.provider, found.metadata) == (
        "m2",
        "run-2",
        "echo",
        {"reason": "stopped"},
    )
    assert await of(estimates, stopped("m2", 41)) == found, "a second sight is the same"


async def test_two_messages_of_one_stop_are_one_call(estimates: Estimates) -> None:
    """2026.8.2: the words, then that the call is off; whichever is read first."""
    assert await of(estimates, stopped("words", 40)) is not None
    assert await of(estimates, stopped("off", 0)) is None
    other = Unfinished("off", "run-3", 0, LATER)
    assert await of(estimates, other) is not None
    rest = await of(estimates, Unfinished("words", "run-3", 40, LATER))
    assert rest is not None
    assert rest.tokens == Tokens(output=10)


async def test_what_was_refused_is_for_free_and_what_broke_off_is_not(estimates: Estimates) -> None:
    free, broken = [await of(estimates, stopped(f"m{chars}", chars, error="error")) for chars in (0, 8)]
    assert free is not None
    assert (free.tokens, free.cost_usd) == (Tokens(), Decimal(0))
    assert free.metadata == {"reason": "failed", "error": "error"}
    assert broken is not None
    assert broken.tokens == Tokens(120, 2, 300, 4)


async def test_who_was_stopped_at_their_tools_owes_nothing(estimates: Estimates) -> None:
    estimates.saw(call("m2", run_id="run-2", metadata={"stop_reason": "toolUse"}))
    assert await of(estimates, stopped("m3", 0)) is None
    waited = await of(estimates, Unfinished("after:m3", "run-2", 0, LATER))
    assert waited is not None, "but for whom a call waited, whose tools had answered"
    counted = await of(estimates, stopped("m4", 0, uncounted=True))
    assert counted is not None
    assert counted.metadata == {"reason": "uncounted"}


async def test_a_session_that_never_had_a_call(estimates: Estimates) -> None:
    found = await of(estimates, stopped("m2", 4), key="agent:u-alice:new")
    assert found is not None
    assert found.tokens == Tokens(100, 1, 300, 4)


async def test_nobody_ever_had_one(database: Database) -> None:
    await database.put_environment(environment("alice"))
    found = await of(Estimates("main", Ledger(database), 15_000), stopped("m2", 4))
    assert found is not None
    assert (found.tokens, found.cost_usd, found.provider) == (Tokens(input=15_000, output=1), Decimal(0), "")


async def test_somebody_else_had_one(database: Database) -> None:
    """How long a prompt is at least is known by then; whose model it was is nobody else's business."""
    await database.put_environment(environment("alice"))
    estimates = Estimates("main", Ledger(database), 15_000)
    for tokens, rest in ((Tokens(100, 9), "main"), (Tokens(90, 5), "main"), (Tokens(9), "subagent:1")):
        estimates.saw(call("b", tokens=tokens, session_key=f"agent:u-bob:{rest}"))
    found = await of(estimates, stopped("m2", 4))
    assert found is not None
    assert (found.tokens, found.provider, found.model) == (Tokens(input=90, output=1), "", "")
