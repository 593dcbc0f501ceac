"""Run ids are gateway-wide, and clients choose them: nobody gets at a run, or in the way of one, by knowing its id."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.live.conftest import House
from tests.stack.raw import Frame, RawClient, RequestError, is_end_of, is_response, text_of

pytestmark = pytest.mark.live

PATIENCE_S = 60.0
SLOW = "[[long 30]][[slow 30 100]]"
ANSWER = " ".join(f"w{number}" for number in range(30))


@contextlib.asynccontextmanager
async def two(house: House) -> AsyncIterator[tuple[RawClient, RawClient]]:
    async with house.client("anna") as alice, house.client("benno") as bob:
        yield alice, bob


async def begin(client: RawClient, run: str) -> str:
    """A slow run under the id `run`, in a session of its own; its key."""
    key = f"session-{uuid.uuid4().hex}"
    answer = await client.request("chat.send", {"sessionKey": key, "message": SLOW, "idempotencyKey": run})
    assert answer == {"runId": run, "status": "started"}
    await client.wait_for(lambda frame: frame.get("event") == "chat" and frame["payload"].get("runId") == run)
    return key


async def goes_on(client: RawClient, run: str) -> None:
    """The run ends by itself, whole, and no event of it is missing."""
    end = await client.wait_for(is_end_of(run), timeout=PATIENCE_S)
    assert end["payload"]["state"] == "final"
    assert text_of(end["payload"]["message"]) == ANSWER
    assert client.has_no_gap()


def of_run(client: RawClient, run: str) -> list[Frame]:
    return [frame for frame in client.events if (frame.get("payload") or {}).get("runId") == run]


async def test_bob_may_use_the_word_of_alices_running_run(house: House) -> None:
    run = str(uuid.uuid4())
    async with two(house) as (alice, bob):
        await begin(alice, run)
        assert await bob.chat("main", "a run of his own", idempotencyKey=run) == "a run of his own"
        assert of_run(bob, run), "under his word"
        assert all(frame["payload"]["sessionKey"] == "agent:u-benno:main" for frame in of_run(bob, run))
        waited = await bob.request("agent.wait", {"runId": run, "timeoutMs": 10_000})
        assert waited["runId"] == run
        assert "w1" not in str(waited)
        await goes_on(alice, run)
        assert "a run of his own" not in "".join(alice.received)
        assert ANSWER[:20] not in "".join(bob.received)


async def test_bob_may_use_it_with_agent_too_and_gets_both_answers(house: House) -> None:
    run = str(uuid.uuid4())
    async with two(house) as (alice, bob):
        await begin(alice, run)
        request_id = await bob.send("agent", {"message": "by agent", "idempotencyKey": run})
        first = await bob.wait_for(is_response(request_id))
        assert (first["payload"]["status"], first["payload"]["runId"]) == ("accepted", run)
        last = await bob.wait_for(
            lambda frame: is_response(request_id)(frame) and frame["payload"]["status"] != "accepted",
            timeout=PATIENCE_S,
        )
        assert (last["payload"]["status"], last["payload"]["runId"]) == ("ok", run)
        assert last["payload"]["result"]["payloads"][0]["text"] == "by agent"
        await goes_on(alice, run)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("agent.wait", {"timeoutMs": 1000}),
        ("chat.abort", {"sessionKey": "main"}),
        ("chat.abort", {}),
    ],
)
async def test_a_foreign_run_can_be_neither_waited_for_nor_aborted(
    house: House, method: str, params: dict[str, object]
) -> None:
    run = str(uuid.uuid4())
    async with two(house) as (alice, bob):
        await begin(alice, run)
        refusals = []
        for named in (run, str(uuid.uuid4())):
            with pytest.raises(RequestError) as refused:
                await bob.request(method, {"runId": named, **params})
            refusals.append(refused.value.error)
        assert refusals[0] == refusals[1], "whether it exists cannot be told"
        assert refusals[0]["details"]["code"] == "FOREIGN_KEY"
        with pytest.raises(RequestError):
            await bob.request("chat.abort", {"sessionKey": "agent:u-anna:main", "runId": run})
        await goes_on(alice, run)


async def test_an_id_that_ended_is_still_its_users(house: House) -> None:
    run = str(uuid.uuid4())
    async with two(house) as (alice, bob):
        await alice.chat("main", "first", idempotencyKey=run)
        assert await bob.chat("main", "second", idempotencyKey=run) == "second"
        assert (await alice.request("agent.wait", {"runId": run, "timeoutMs": 10_000}))["runId"] == run


async def test_a_mapped_run_is_aborted_by_its_own_word(house: House) -> None:
    run = str(uuid.uuid4())
    async with two(house) as (alice, bob):
        await begin(alice, run)
        key = await begin(bob, run)
        aborted = await bob.request("chat.abort", {"sessionKey": key, "runId": run})
        assert aborted["runIds"] == [run]
        end = await bob.wait_for(is_end_of(run), timeout=PATIENCE_S)
        assert end["payload"]["state"] == "aborted"
        await goes_on(alice, run)


async def test_a_run_without_an_id_gets_one(house: House) -> None:
    async with house.client("anna") as alice:
        started = [
            await alice.request(method, params)
            for method, params in (
                ("chat.send", {"sessionKey": f"s-{uuid.uuid4().hex}", "message": "no id"}),
                ("agent", {"message": "no id either", "sessionKey": f"s-{uuid.uuid4().hex}"}),
            )
        ]
        runs = [one["runId"] for one in started]
        assert len(set(runs)) == 2
        for run in runs:
            await alice.wait_for(is_end_of(run), timeout=PATIENCE_S)


async def test_a_gateway_that_is_not_patched_never_sees_what_patched_ones_take(house: House) -> None:
    async with house.client("anna") as alice:
        foreign = {"workspaceDir": "/data/openclaw-users/u-benno/workspace", "authProfileId": "user-bob-anthropic"}
        assert await alice.chat("main", "taken out", **foreign) == "taken out"  # type: ignore[arg-type]


async def test_two_sockets_of_one_user_may_ask_for_the_same_run(house: House) -> None:
    run, key = str(uuid.uuid4()), f"s-{uuid.uuid4().hex}"
    async with house.client("anna") as one, house.client("anna") as other:
        asked = {"sessionKey": key, "message": SLOW, "idempotencyKey": run}
        first, second = await asyncio.gather(one.request("chat.send", asked), other.request("chat.send", asked))
        assert first["runId"] == second["runId"] == run
        for client in (one, other):
            await goes_on(client, run)


async def test_nobody_gets_at_what_an_operators_own_agent_does(house: House) -> None:
    run = str(uuid.uuid4())
    async with RawClient.admin(house.gateway) as operator, house.client("benno") as bob:
        await operator.request("sessions.subscribe", {})
        await begin(operator, run)
        for method, params in (("agent.wait", {"timeoutMs": 100}), ("chat.abort", {"sessionKey": "main"})):
            with pytest.raises(RequestError, match="not yours"):
                await bob.request(method, {"runId": run, **params})
        assert await bob.chat("main", "a run of his own", idempotencyKey=run) == "a run of his own"
        await goes_on(operator, run)
        known = await operator.request("agent.wait", {"runId": run, "timeoutMs": 10_000})
        assert known["status"] == "ok"
        assert "w1" not in str(await bob.request("agent.wait", {"runId": run, "timeoutMs": 10_000}))
        assert "w1" not in "".join(bob.received)
