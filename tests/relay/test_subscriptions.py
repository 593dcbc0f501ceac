"""What a connection is subscribed to, and that a client gets what it would get of a gateway of its own: no less, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from sidecar.policy.unasked import hidden_run
from sidecar.protocol.session_events import SESSION_SCOPED
from sidecar.quota.runs import Runs, Word
from sidecar.relay import audience as audience_module
from sidecar.relay.audience import RECENT, Audience
from sidecar.relay.subscriptions import MOST, MOST_HIDDEN, MOST_THEIRS
from sidecar.telemetry.facts import EventDropped, FramesKeptBack, FramesRelayed
from tests.relay.person import Person, visiting
from tests.relay.test_gateway_leg import OWN, a_scope

MAIN, NOTES = f"agent:{OWN}:main", f"agent:{OWN}:notes"
SUBSCRIBE, UNSUBSCRIBE = "sessions.messages.subscribe", "sessions.messages.unsubscribe"


def a_ledger() -> Runs:
    """Nothing here asks Redis; what ended waits to be told."""
    store: Any = None
    return Runs("main", store, store, b"secret", time.time)


@contextlib.asynccontextmanager
async def visit(
    audience: Audience | None, *caps: str, runs: Runs | None = None, settled: bool = True
) -> AsyncIterator[Person]:
    """`settled`: its main session's subscription is in force."""
    async with visiting(a_scope, audience, runs or a_ledger(), caps) as person:
        if settled and audience is not None and SESSION_SCOPED not in caps:
            await person.subscribed(MAIN)
        yield person


def of(key: str, **payload: Any) -> dict[str, Any]:
    return {"runId": "r", "sessionKey": key, "agentId": OWN, **payload}


def chat(key: str = MAIN, **payload: Any) -> tuple[str, dict[str, Any]]:
    return "chat", of(key, state="delta", message={}) | payload


def in_order(event: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """As the gateway writes it: what goes before the `agentId`, then `seq` and `state`."""
    name, payload = event
    first = ("runId", "sessionKey", "agentId", "seq", "state")
    return name, {field: payload[field] for field in (*first, *payload) if field in payload}


def agent(key: str = MAIN, **payload: Any) -> tuple[str, dict[str, Any]]:
    scope = {"sessionKey": key, "agentId": OWN, "seq": 1, "ts": 1}
    return "agent", {"runId": "r", "stream": "assistant", "data": {"text": "x"}, **scope, **payload}


def begin(run: str, key: str = MAIN, **payload: Any) -> tuple[str, dict[str, Any]]:
    scope = {"sessionKey": key, "agentId": OWN}
    return "agent", {"runId": run, **scope, "stream": "lifecycle", "data": {"phase": "start"}, "seq": 1, **payload}


def message(key: str = MAIN) -> tuple[str, dict[str, Any]]:
    return "session.message", {"sessionKey": key, "agentId": OWN, "message": {"role": "user", "content": "hello"}}


def change(key: str = MAIN, **payload: Any) -> tuple[str, dict[str, Any]]:
    return "sessions.changed", {"sessionKey": key, "agentId": OWN, **payload}


def ours(person: Person) -> list[Any]:
    return [frame for frame in person.gateway.frames if frame["id"].startswith("~sidecar:")]


async def until_settled(person: Person, method: str = "chat.history") -> None:
    """What was sent before is read: an answered request of the client's own passes behind it."""
    request_id = f"settled-{len(person.client.frames)}-{time.monotonic_ns()}"
    await person.ask(method, {"sessionKey": MAIN}, request_id)
    request = await person.gateway.wait_for(lambda frame: frame["id"] == request_id)
    await person.answer(request, {"sessionKey": MAIN, "messages": []})
    await person.client.wait_for(lambda frame: frame.get("id") == request_id)


# --- whom it listens to -------------------------------------------------------------------------------------------------


async def test_the_first_client_listens_to_its_main_session_and_asks_for_the_latest_others() -> None:
    async with visit(Audience()) as person:
        listed = await person.reached("sessions.list")
        assert listed["params"] == {"agentId": OWN, "limit": RECENT}
        rows = [{"key": NOTES}, {"key": "agent:u-alice:main"}, {"key": 7}, "row", {"key": MAIN}]
        await person.answer(listed, {"sessions": rows})
        await person.subscribed(NOTES)
        await until_settled(person)
        assert [one["params"]["key"] for one in person.asked(SUBSCRIBE)] == [MAIN, NOTES]
        assert [frame for frame in person.client.frames if str(frame.get("id")).startswith("~")] == []


@pytest.mark.parametrize("answer", [None, {}, {"sessions": {}}, {"sessions": [{"key": None}]}])
async def test_a_list_that_names_nothing_is_survived(answer: Any) -> None:
    async with visit(Audience()) as person:
        await person.answer(await person.reached("sessions.list"), answer)
        await until_settled(person)
        assert len(person.asked(SUBSCRIBE)) == 1


async def test_of_many_sessions_only_the_latest_are_listened_to_from_the_start() -> None:
    """Many people may come at once, each of whom has hundreds."""
    async with visit(Audience()) as person:
        rows = [{"key": f"agent:{OWN}:s{number}"} for number in range(10 * RECENT)]
        await person.answer(await person.reached("sessions.list"), {"sessions": rows})
        await person.reached(SUBSCRIBE, f"agent:{OWN}:s0")
        await until_settled(person)
        assert len(ours(person)) == 2 + RECENT
        assert {one["params"]["key"] for one in person.asked(SUBSCRIBE)} == {
            MAIN,
            *(row["key"] for row in rows[:RECENT]),
        }


async def test_a_second_client_listens_to_what_the_first_one_knows_and_asks_for_no_list() -> None:
    audience = Audience()
    async with visit(audience) as first:
        audience.hear(OWN, [NOTES])
        await first.subscribed(NOTES)
        async with visit(audience) as second:
            await second.subscribed(NOTES)
            await until_settled(second)
            assert {one["params"]["key"] for one in second.asked(SUBSCRIBE)} == {MAIN, NOTES}
            assert second.asked("sessions.list") == []


async def test_a_client_that_knows_the_capability_subscribes_for_itself() -> None:
    audience = Audience()
    async with visit(audience, SESSION_SCOPED) as person:
        audience.hear(OWN, [NOTES])
        await person.ask(UNSUBSCRIBE, {"key": MAIN})
        assert (await person.reached(UNSUBSCRIBE))["id"] == "1"
        assert ours(person) == []
        assert await person.gets(message(), chat(), change(phase="message"), begin("h", isHeartbeat=True)) == [
            0,
            1,
            2,
            3,
        ]


async def test_on_an_older_gateway_nothing_is_subscribed_and_nothing_held_back() -> None:
    async with visit(None) as person:
        await person.ask("chat.history", {"sessionKey": NOTES})
        await person.reached("chat.history")
        assert ours(person) == []
        assert await person.gets(message(), chat(), change(phase="message")) == [0, 1, 2]


async def test_a_run_begins_once_everybody_listens_to_its_session() -> None:
    audience, runs = Audience(), a_ledger()
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(visit(audience, runs=runs)) for _ in range(3)]
        capped = await stack.enter_async_context(visit(audience, SESSION_SCOPED, runs=runs))
        await capped.ask("sessions.create", {"key": "notes"})
        for person in people:
            request = await person.reached(SUBSCRIBE, NOTES)
            await asyncio.sleep(0.05)
            assert capped.asked("sessions.create") == []
            await person.answer(request, {"subscribed": True, "key": NOTES})
        await capped.reached("sessions.create")
        assert capped.asked(SUBSCRIBE) == []
        await capped.ask("sessions.create", {"key": "notes"}, "2")
        await capped.gateway.wait_for(lambda frame: frame["id"] == "2")
        assert all(len(person.asked(SUBSCRIBE, NOTES)) == 1 for person in people)


async def test_the_first_request_waits_for_the_main_session_too() -> None:
    async with visit(Audience(), settled=False) as person:
        await person.ask("sessions.create", {"key": "main"})
        await person.reached(SUBSCRIBE, MAIN)
        await asyncio.sleep(0.05)
        assert person.asked("sessions.create") == []
        await person.subscribed(MAIN)
        await person.reached("sessions.create")


async def test_a_gateway_that_does_not_answer_holds_nothing_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience_module, "WAIT_SECONDS", 0.1)
    async with visit(Audience()) as person:
        await person.ask("sessions.create", {"key": "notes"})
        await person.reached("sessions.create")
        assert len(person.asked(SUBSCRIBE, NOTES)) == 1


async def test_a_refused_subscription_is_asked_for_again() -> None:
    async with visit(Audience(), settled=False) as person:
        await person.refuse(await person.reached(SUBSCRIBE, MAIN))
        await person.ask("sessions.create", {"key": "main"})
        await person.subscribed(MAIN, times=2)
        await person.reached("sessions.create")


async def test_who_only_reads_makes_nobody_listen() -> None:
    async with visit(Audience()) as person:
        for number in range(3):
            await person.ask("chat.history", {"sessionKey": f"old-{number}"}, f"r{number}")
        await person.reached("chat.history", times=3)
        assert [one["params"]["key"] for one in person.asked(SUBSCRIBE)] == [MAIN]


async def test_of_many_sessions_the_one_not_heard_of_for_longest_is_given_up() -> None:
    audience = Audience()
    async with visit(audience) as person:
        for number in range(MOST):
            audience.hear(OWN, [f"agent:{OWN}:s{number}", MAIN])
        given_up = await person.reached(UNSUBSCRIBE)
        assert given_up["params"]["key"] == f"agent:{OWN}:s0"
        await until_settled(person)
        assert len(person.asked(UNSUBSCRIBE)) == 1
        assert len(person.connection.listening._ours) == MOST


async def test_who_waited_for_one_that_left_goes_on() -> None:
    audience = Audience()
    async with visit(audience, SESSION_SCOPED) as capped:
        async with visit(audience) as leaver:
            await capped.ask("sessions.create", {"key": "notes"})
            await leaver.reached(SUBSCRIBE, NOTES)
        await capped.reached("sessions.create")


# --- what the client gets -----------------------------------------------------------------------------------------------


async def test_what_only_subscribers_get_is_held_back() -> None:
    async with visit(Audience()) as person:
        unasked = [message(), change(phase="message"), ("session.typing", of(MAIN))]
        assert await person.gets(*unasked, chat(), agent(), change(reason="activity-summary"), *unasked) == [3, 4, 5]
        dropped = [fact for fact in person.facts if isinstance(fact, EventDropped)]
        assert {(fact.event, fact.reason) for fact in dropped if fact.event != "unlisted"} == {
            ("session.message", "unasked"),
            ("sessions.changed", "unasked"),
        }


async def test_with_its_own_subscription_a_client_gets_that_sessions_messages() -> None:
    async with visit(Audience()) as person:
        assert await person.gets(message(), message(NOTES)) == []
        await person.ask(SUBSCRIBE, {"key": "main"})
        await person.subscribed(MAIN, times=2)
        await person.client.wait_for(lambda frame: frame.get("id") == "1")
        assert await person.gets(message(), message(NOTES), change(phase="message")) == [0, 2]


async def test_with_all_sessions_a_client_gets_all_messages() -> None:
    async with visit(Audience()) as person:
        assert await person.gets(message()) == []
        for number, (method, got) in enumerate([("sessions.subscribe", [0, 1, 2]), ("sessions.unsubscribe", [])]):
            await person.ask(method, {}, f"r{number}")
            await person.answer(await person.reached(method), {"subscribed": bool(got)})
            await person.client.wait_for(lambda frame, number=number: frame.get("id") == f"r{number}")  # type: ignore[misc]
            assert await person.gets(message(), message(NOTES), change(phase="message")) == got


async def test_a_refused_subscription_changes_nothing() -> None:
    async with visit(Audience()) as person:
        for request_id, method in (("a", SUBSCRIBE), ("b", "sessions.subscribe")):
            await person.ask(method, {"key": "notes"} if method == SUBSCRIBE else {}, request_id)
            await person.refuse(await person.gateway.wait_for(lambda frame, one=request_id: frame["id"] == one))  # type: ignore[misc]
            await person.client.wait_for(lambda frame, one=request_id: frame.get("id") == one)  # type: ignore[misc]
        assert await person.gets(message(NOTES)) == []
        await person.subscribed(NOTES, times=2)


async def test_the_end_of_a_clients_own_subscription_leaves_ours() -> None:
    async with visit(Audience()) as person:
        await person.ask(SUBSCRIBE, {"key": "notes"}, "a")
        await person.subscribed(NOTES)
        await person.client.wait_for(lambda frame: frame.get("id") == "a")
        assert await person.gets(message(NOTES), chat(NOTES)) == [0, 1]
        await person.ask(UNSUBSCRIBE, {"key": "notes"}, "b")
        await person.subscribed(NOTES, times=2)
        answer = await person.client.wait_for(lambda frame: frame.get("id") == "b")
        assert answer == {"type": "res", "id": "b", "ok": True, "payload": {"subscribed": False, "key": NOTES}}
        assert person.asked(UNSUBSCRIBE) == []
        assert await person.gets(message(NOTES), chat(NOTES)) == [1]


async def test_a_refused_end_is_told_as_it_is() -> None:
    async with visit(Audience()) as person:
        await person.ask(UNSUBSCRIBE, {"key": "notes"}, "b")
        await person.refuse(await person.reached(SUBSCRIBE, NOTES))
        answer = await person.client.wait_for(lambda frame: frame.get("id") == "b")
        assert (answer["ok"], answer["error"]["code"]) == (False, "INVALID_REQUEST")


async def test_our_wish_never_takes_the_approvals_out_of_a_clients_own_subscription() -> None:
    """Who subscribes last says whether approvals come (2026.9.6)."""
    audience = Audience()
    async with visit(audience) as person:
        await person.ask(SUBSCRIBE, {"key": "notes"}, "a")
        await person.reached(SUBSCRIBE, NOTES)
        audience.hear(OWN, [NOTES])
        await person.subscribed(NOTES)
        await person.client.wait_for(lambda frame: frame.get("id") == "a")
        audience.hear(OWN, [NOTES])
        await until_settled(person)
        assert [one["id"] for one in person.asked(SUBSCRIBE, NOTES)] == ["a"]


async def test_a_client_subscribes_to_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.relay.subscriptions.MOST_THEIRS", 2)
    assert MOST_THEIRS > MOST
    async with visit(Audience()) as person:
        for number in range(3):
            await person.ask(SUBSCRIBE, {"key": f"s{number}"}, f"r{number}")
        refused = await person.client.wait_for(lambda frame: frame.get("id") == "r2")
        assert refused["error"]["details"]["code"] == "TOO_MANY_REQUESTS"


# --- runs that a gateway keeps to subscribers -----------------------------------------------------------------------------


def heartbeat(run: str, *, session: bool) -> list[tuple[str, dict[str, Any]]]:
    """As 2026.9.6 sends one to who subscribed: the row of the session comes with the first event, or with none."""
    row: dict[str, Any] = {"session": {"key": MAIN}} if session else {}
    return [
        begin(run, isHeartbeat=True, **row),
        agent(runId=run, isHeartbeat=True),
        agent(runId=run, stream="lifecycle", data={"phase": "end"}, isHeartbeat=True),
        chat(runId=run, state="final"),
    ]


@pytest.mark.parametrize("session", [True, False])
async def test_heartbeats_are_for_who_subscribed(session: bool) -> None:
    async with visit(Audience()) as person:
        assert await person.gets(agent(), chat(), *heartbeat("h", session=session), agent(), chat()) == [0, 1, 0, 1]
        await person.ask(SUBSCRIBE, {"key": "main"}, "a")
        await person.subscribed(MAIN, times=2)
        await person.client.wait_for(lambda frame: frame.get("id") == "a")
        assert await person.gets(*heartbeat("h2", session=session)) == [0, 1, 2, 3]


async def test_a_hidden_run_that_does_not_say_so_with_every_event_is_hidden_whole() -> None:
    """What a channel begins: only its first event carries the session's row. The run beside it in the same session is shown."""
    async with visit(Audience()) as person:
        hidden = [
            begin("h", session={"key": MAIN}),
            agent(runId="h"),
            chat(runId="h"),
            agent(runId="h", data={"text": "y"}),
            chat(runId="h", state="final"),
        ]
        shown = [agent(runId="v"), chat(runId="v"), begin("v"), agent(runId="v", data={"text": "y"})]
        mixed = [one for pair in zip(hidden, shown, strict=False) for one in pair] + hidden[4:]
        assert await person.gets(*shown[:2], *mixed) == [0, 1, 0, 1, 7, 9]
        assert await person.gets(*shown) == [0, 1, 2, 3]


async def test_tools_events_carry_the_session_too_and_are_shown() -> None:
    async with visit(Audience()) as person:
        tool = agent(stream="tool", data={"phase": "start"}, session={"key": MAIN})
        assert hidden_run(tool[1]) is None
        assert await person.gets(tool, agent(), chat()) == [0, 1, 2]


async def test_of_hidden_runs_only_so_many_are_remembered() -> None:
    async with visit(Audience()) as person:
        for number in range(MOST_HIDDEN + 5):
            assert await person.gets(begin(f"h{number}", isHeartbeat=True)) == []
        assert len(person.connection.listening._hidden) == MOST_HIDDEN


# --- runs and figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caps", [(), (SESSION_SCOPED,)])
@pytest.mark.parametrize("state", ["final", "aborted", "error"])
async def test_a_run_that_begins_and_ends_in_one_event_is_over(state: str, caps: tuple[str, ...]) -> None:
    runs = a_ledger()
    async with visit(Audience(), *caps, runs=runs) as person:
        await person.gets(chat(runId="command", state=state), chat(runId="other"))
    assert list(runs._heard) == [(Word.ENDED, OWN, "command")]


@pytest.mark.parametrize("caps", [(), (SESSION_SCOPED,)])
@pytest.mark.parametrize("state", ["final", "aborted", "error"])
async def test_a_run_is_over_with_the_last_event_of_its_answer(state: str, caps: tuple[str, ...]) -> None:
    """The first events of each kind are judged, the rest pass as they did."""
    runs = a_ledger()
    async with visit(Audience(), *caps, runs=runs) as person:
        for run in ("r1", "r2", "r3"):
            seen = [begin(run), chat(runId=run, seq=1), chat(runId=run, seq=2), chat(runId=run, seq=3, state=state)]
            assert len(await person.gets(*map(in_order, seen))) == len(seen)
            assert list(runs._heard) == [(Word.ENDED, OWN, run)]
            runs._heard.clear()


async def test_every_frame_that_came_is_counted_and_every_one_that_went() -> None:
    async with visit(Audience()) as person:
        await person.answer(await person.reached("sessions.list"), {"sessions": []})
        await person.gets(message(), chat(), agent(), message(), ("chat", {"sessionKey": "agent:u-alice:main"}))
        await until_settled(person)
        relayed = [fact for fact in person.facts if isinstance(fact, FramesRelayed) and fact.direction == "down"]
        kept_back = [fact.frames for fact in person.facts if isinstance(fact, FramesKeptBack)]
        assert sum(fact.frames for fact in relayed) == 4, "chat, agent, the tick behind them, and the answer at the end"
        assert sum(kept_back) == 2 + 3, "two answers to us; two messages and somebody else's chat"
