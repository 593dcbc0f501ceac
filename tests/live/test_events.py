"""A client gets of its user's sessions what a gateway of its own would send it: the same events, in the same order, no others.

Beside each client stands the same user directly at the gateway, with the same subscriptions and without the capability
`session-scoped-events`. What is known to differ is said at `COMPARED`, and by the tests that show it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from sidecar.protocol.session_events import SESSION_SCOPED
from tests.live.conftest import House
from tests.live.direct import direct
from tests.policy.people import TABLE
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import Frame, RawClient, RequestError, is_end_of, text_of
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

ORIGIN = "http://127.0.0.1:8080"
USER, SLUG = "viewer", "u-viewer"
MAIN = f"agent:{SLUG}:main"
COMPARED = {
    *("chat", "agent", "chat.side_result", "session.message", "session.tool", "session.operation", "session.observer"),
    "sessions.changed",
} & set(TABLE.events)
"""Events of sessions. Pieces of a text may come in other cuts, since a gateway joins what one connection was slow to take."""

PATIENCE_S = 60.0
QUIET_S = 1.5
FAR = "2030-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Stage:
    """One gateway, its admin, and the same user in front of the sidecar and directly at the gateway."""

    house: House
    version: str
    admin: RawClient
    driver: RawClient
    """A client through the sidecar, which does what the others see."""

    pairs: dict[str, tuple[RawClient, RawClient]]
    """Subscriptions → (directly at the gateway, through the sidecar)."""


async def subscribe(client: RawClient, kind: str) -> None:
    if "sessions" in kind:
        await client.request("sessions.subscribe")
    if "main" in kind:
        await client.request("sessions.messages.subscribe", {"key": MAIN})


KINDS = ("nothing", "sessions", "main", "sessions, main", "capable, main")


@pytest_asyncio.fixture(scope="module", params=["2026.9.6", pytest.param("2026.8.2", marks=pytest.mark.deep)])
async def stage(
    request: pytest.FixtureRequest,
    model: EchoModel,
    identity_provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("events")
    gateway_options = GatewayOptions(folder / "gateway", model.url, version=request.param, allowed_origins=[ORIGIN])
    tools = ["read", "write", "edit", "apply_patch", "sessions_spawn"]
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(Gateway(gateway_options))
        options = SidecarOptions(
            folder / "sidecar",
            gateway,
            identity_provider.issuer,
            settings={
                "server": {"public_url": ORIGIN},
                "environments": {"root": str(gateway.workspaces), "tools_allow": tools},
            },
        )
        house = House(gateway, model, identity_provider, await stack.enter_async_context(Sidecar(options)))
        driver = await stack.enter_async_context(house.client(USER))
        await driver.chat("main", "the agent is there now", timeout=PATIENCE_S)
        admin = await stack.enter_async_context(RawClient.admin(gateway))
        pairs = {}
        for kind in KINDS:
            caps = [SESSION_SCOPED] if "capable" in kind else []
            pair = (
                await stack.enter_async_context(direct(gateway, SLUG, caps)),
                await stack.enter_async_context(house.client(USER, caps=caps)),
            )
            for client in pair:
                await subscribe(client, kind)
            pairs[kind] = pair
        yield Stage(house, request.param, admin, driver, pairs)


def of_user(frames: Iterable[Frame]) -> list[Frame]:
    """The events of the user's sessions; others' come to who is directly at the gateway too."""
    return [
        frame
        for frame in frames
        if frame.get("event") in COMPARED and f'"agent:{SLUG}:' in json.dumps(frame.get("payload"))
    ]


def is_piece(frame: Frame) -> bool:
    payload = frame["payload"]
    return payload.get("state") == "delta" or payload.get("stream") in {"assistant", "thinking"}


def told(frame: Frame) -> str:
    """All that an event says but its number, and what is the recipient's own."""
    return f"{frame['event']} {json.dumps(frame['payload'], sort_keys=True)}"


def short(frame: Frame) -> dict[str, Any]:
    payload = frame["payload"]
    words = {name: payload.get(name) for name in ("sessionKey", "runId", "phase", "reason", "state", "stream")}
    return {"event": frame["event"], **{name: word for name, word in words.items() if word is not None}}


def last_pieces(frames: Iterable[Frame]) -> dict[str, str]:
    """Run → what was shown of its answer at the end."""
    return {
        frame["payload"]["runId"]: text_of(frame["payload"].get("message") or {})
        for frame in frames
        if frame["event"] == "chat" and is_piece(frame)
    }


def in_order(client: RawClient) -> None:
    assert client.has_no_gap()


async def quiet(*clients: RawClient) -> None:
    """Until nothing of the user's sessions came for `QUIET_S`."""
    async with asyncio.timeout(PATIENCE_S):
        before = -1
        while (now := sum(len(of_user(client.frames)) for client in clients)) != before:
            before = now
            await asyncio.sleep(QUIET_S)


async def seen(stage: Stage, act: Callable[[], Awaitable[None]]) -> dict[str, tuple[list[Frame], list[Frame]]]:
    """What each pair saw of the user's sessions while `act` was done and its effects lasted."""
    clients = [client for pair in stage.pairs.values() for client in pair]
    await quiet(*clients)
    marks = [len(client.frames) for client in clients]
    await act()
    await quiet(*clients)
    views = iter([of_user(client.frames[mark:]) for client, mark in zip(clients, marks, strict=True)])
    return {kind: (next(views), next(views)) for kind in stage.pairs}


async def check(stage: Stage, act: Callable[[], Awaitable[None]]) -> dict[str, list[Frame]]:
    """Each pair saw the same. What the clients through the sidecar saw."""
    views = await seen(stage, act)
    for kind, (expected, got) in views.items():
        whole = [[frame for frame in frames if not is_piece(frame)] for frames in (expected, got)]
        assert [short(frame) for frame in whole[1]] == [short(frame) for frame in whole[0]], kind
        assert [told(frame) for frame in whole[1]] == [told(frame) for frame in whole[0]], kind
        assert last_pieces(got) == last_pieces(expected), kind
        in_order(stage.pairs[kind][1])
    return {kind: got for kind, (_, got) in views.items()}


def ends(frames: Iterable[Frame], key: str) -> list[str]:
    """The states in which runs of the session ended."""
    return [
        frame["payload"]["state"]
        for frame in frames
        if frame["event"] == "chat"
        and frame["payload"]["sessionKey"] == key
        and frame["payload"]["state"] in {"final", "aborted", "error"}
    ]


def names(frames: Iterable[Frame]) -> set[str]:
    return {frame["event"] for frame in frames}


async def test_a_chat_in_the_main_session(stage: Stage) -> None:
    async def act() -> None:
        await stage.driver.chat("main", "[[long 20]][[slow 20 50]]", timeout=PATIENCE_S)

    got = await check(stage, act)
    assert all(ends(frames, MAIN) == ["final"] for frames in got.values())
    assert names(got["nothing"]) == {"chat", "agent"}
    assert "session.message" in names(got["main"])
    assert {"session.message", "sessions.changed"} <= names(got["sessions"])


async def test_a_command_a_tool_and_an_abort(stage: Stage) -> None:
    async def act() -> None:
        await stage.driver.chat("main", "/help", timeout=PATIENCE_S)
        await stage.driver.chat("main", '[[tool write {"path":"notes.txt","content":"hi"}]]', timeout=PATIENCE_S)
        sent = {"sessionKey": "main", "message": "[[long 200]][[slow 200 100]]", "idempotencyKey": str(uuid.uuid4())}
        run = (await stage.driver.request("chat.send", sent))["runId"]
        await stage.driver.wait_for(
            lambda frame: frame.get("event") == "chat" and frame["payload"].get("runId") == run and is_piece(frame),
            timeout=PATIENCE_S,
        )
        await stage.driver.request("chat.abort", {"sessionKey": "main", "runId": run})
        await stage.driver.wait_for(is_end_of(run), timeout=PATIENCE_S)

    got = await check(stage, act)
    assert all(ends(frames, MAIN) == ["final", "final", "aborted"] for frames in got.values())


async def test_a_turn_by_agent(stage: Stage) -> None:
    async def act() -> None:
        run = f"agent-{uuid.uuid4()}"
        await stage.driver.send("agent", {"message": "by agent", "sessionKey": "main", "idempotencyKey": run})
        await stage.driver.wait_for(is_end_of(run), timeout=PATIENCE_S)

    got = await check(stage, act)
    assert all(ends(frames, MAIN) == ["final"] for frames in got.values())


async def test_another_clients_new_session(stage: Stage) -> None:
    key = f"new-{uuid.uuid4().hex}"

    async def act() -> None:
        await stage.driver.chat(key, "hello", timeout=PATIENCE_S)

    got = await check(stage, act)
    of_key = f"agent:{SLUG}:{key}"
    for kind in ("nothing", "sessions", "main", "sessions, main"):
        assert ends(got[kind], of_key) == ["final"], kind
    assert ends(got["capable, main"], of_key) == [], "who asks for the capability subscribes by itself"


async def test_a_session_that_is_made_before_it_is_used(stage: Stage) -> None:
    key = f"made-{uuid.uuid4().hex}"

    async def act() -> None:
        await stage.driver.request("sessions.create", {"key": key, "label": key[:16]})
        await stage.driver.chat(key, "hello", timeout=PATIENCE_S)

    got = await check(stage, act)
    assert ends(got["nothing"], f"agent:{SLUG}:{key}") == ["final"]


async def test_a_sub_agent(stage: Stage) -> None:
    spawn = {"task": "say [[reply child-answer]]", "label": "kid"}
    if stage.version == "2026.8.2":
        message = f"[[tool sessions_spawn {json.dumps(spawn)}]]"
    else:
        message = f"[[tool tool_call {json.dumps({'id': 'sessions_spawn', 'args': spawn})}]]"

    async def act() -> None:
        answer = await stage.driver.chat("main", message, timeout=PATIENCE_S)
        assert "accepted" in answer, answer
        await stage.driver.wait_for(
            lambda frame: (
                frame.get("event") == "chat"
                and ":subagent:" in frame["payload"]["sessionKey"]
                and frame["payload"]["state"] == "final"
            ),
            timeout=PATIENCE_S,
        )

    got = await check(stage, act)
    children = {frame["payload"]["sessionKey"] for frame in got["nothing"]} - {MAIN}
    assert len(children) == 1
    assert ends(got["nothing"], children.pop()) == ["final"]


async def test_a_job(stage: Stage) -> None:
    job = {
        "name": "watched",
        "agentId": SLUG,
        "enabled": True,
        "schedule": {"kind": "at", "at": FAR},
        "sessionTarget": "isolated",
        "wakeMode": "now",
        "payload": {"kind": "agentTurn", "message": "[[reply job-answer]]"},
        "delivery": {"mode": "none"},
    }

    async def act() -> None:
        added = await stage.admin.request("cron.add", job)
        job_id = added.get("id") or added["job"]["id"]
        await stage.admin.request("cron.run", {"id": job_id, "mode": "force"})
        await stage.driver.wait_for(
            lambda frame: (
                frame.get("event") == "chat"
                and f":cron:{job_id}:" in frame["payload"]["sessionKey"]
                and frame["payload"]["state"] == "final"
            ),
            timeout=PATIENCE_S,
        )

    got = await check(stage, act)
    first = next(frame for frame in got["nothing"] if frame["payload"].get("stream") == "lifecycle")
    assert first["payload"]["data"]["phase"] == "start", "not even the run's begin is missed"


async def test_a_heartbeat(stage: Stage) -> None:
    """A gateway keeps it to who subscribed to the session's messages; our own subscription must not show it to others."""

    async def act() -> None:
        since = len(stage.pairs["sessions"][0].frames)
        await stage.admin.request("wake", {"mode": "now", "text": "wake up", "agentId": SLUG, "sessionKey": MAIN})
        await stage.pairs["sessions"][0].wait_for(
            lambda frame: frame.get("event") == "sessions.changed" and frame["payload"].get("phase") == "end",
            timeout=PATIENCE_S,
            since=since,
        )

    got = await check(stage, act)
    assert names(got["main"]) >= {"agent", "chat"}
    assert not names(got["nothing"])
    assert "chat" not in names(got["sessions"])


async def test_beside_a_heartbeat_a_chat_is_shown(stage: Stage) -> None:
    async def act() -> None:
        chat = asyncio.create_task(stage.driver.chat("beside", "[[long 20]][[slow 20 100]]", timeout=PATIENCE_S))
        await stage.admin.request("wake", {"mode": "now", "text": "wake up", "agentId": SLUG, "sessionKey": MAIN})
        await chat

    got = await check(stage, act)
    assert ends(got["nothing"], f"agent:{SLUG}:beside") == ["final"]


async def test_subscriptions_that_change(stage: Stage) -> None:
    """The same requests on both sides of a pair, while the session is in use; ours stays when the client's own ends.

    That to all sessions has no end for users: the gateway asks for admin (2026.9.6, 2026.8.2).
    """
    async with direct(stage.house.gateway, SLUG) as beside, stage.house.client(USER) as through:
        changing = replace(stage, pairs={"changing": (beside, through)})
        for method, params, messages in (
            ("sessions.messages.subscribe", {"key": MAIN}, True),
            ("sessions.messages.unsubscribe", {"key": MAIN}, False),
            ("sessions.subscribe", {}, True),
        ):
            answers = [await client.request(method, params) for client in (beside, through)]
            assert answers[0] == answers[1]

            async def act() -> None:
                await stage.driver.chat("main", "hello", timeout=PATIENCE_S)

            got = await check(changing, act)
            assert ("session.message" in names(got["changing"])) is messages
            assert set(ends(got["changing"], MAIN)) == {"final"}, "whatever the sub-agent of before has to tell"
        refusals = []
        for client in (beside, through):
            with pytest.raises(RequestError) as refused:
                await client.request("sessions.unsubscribe")
            refusals.append(refused.value.code)
        assert refusals[0] == refusals[1]


async def test_what_another_replicas_client_begins_is_seen_from_early_on(stage: Stage) -> None:
    """Known to differ: nobody here names the new session first, so its very first events may be missed, never its end."""
    key = f"agent:{SLUG}:elsewhere-{uuid.uuid4().hex}"

    async def act() -> None:
        async with direct(stage.house.gateway, SLUG) as elsewhere:
            await elsewhere.chat(key, "[[long 20]][[slow 20 50]]", timeout=PATIENCE_S)

    views = await seen(stage, act)
    expected, got = views["nothing"]
    whole = [[short(frame) for frame in frames if not is_piece(frame)] for frames in (expected, got)]
    missed = len(whole[0]) - len(whole[1])
    print(f"\n{missed} of {len(whole[0])} events were missed: {whole[0][:missed]}")
    assert whole[1] == whole[0][missed:]
    assert last_pieces(got) == last_pieces(expected)
    assert ends(got, key) == ["final"]


async def test_others_events_do_not_even_come(stage: Stage) -> None:
    before = await figures(stage.house.sidecar)
    async with stage.house.client("someone-else") as other:
        marks = {kind: len(pair[1].frames) for kind, pair in stage.pairs.items()}
        await other.chat("main", "[[long 30]][[slow 30 20]] not for others", timeout=PATIENCE_S)
        for kind, (_, through) in stage.pairs.items():
            assert "someone-else" not in json.dumps(through.frames[marks[kind] :]), kind
    after = await figures(stage.house.sidecar)
    for event in ("chat", "agent"):
        name = f'events_dropped_total{{event="{event}",reason="foreign"}}'
        assert after.get(name, 0) == before.get(name, 0), event


async def figures(sidecar: Sidecar) -> dict[str, float]:
    """Name and labels of the sidecar's metrics → value."""
    lines = [line for line in (await sidecar.metrics()).splitlines() if line.startswith("openclaw_sidecar_")]
    return {line.rpartition(" ")[0].removeprefix("openclaw_sidecar_"): float(line.rpartition(" ")[2]) for line in lines}


PEOPLE = 20
STREAM = "[[long 80]][[slow 80 100]]"
"""Eight seconds and more, as answers take: what we hear ourselves to count its calls is about eleven frames a turn in any case."""


@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "caps", [pytest.param([], id="usual clients"), pytest.param([SESSION_SCOPED], id="capable clients")]
)
async def test_the_gateway_sends_each_event_once(house: House, caps: list[str]) -> None:
    """Twenty people are answered at once: events that the sidecar gets, on all its connections, for each that it delivers."""
    async with contextlib.AsyncExitStack() as stack:
        crowd = [f"crowd{number}" for number in range(PEOPLE)]
        clients = [await stack.enter_async_context(house.client(user, caps=caps)) for user in crowd]
        if caps:
            for client in clients:
                await client.request("sessions.messages.subscribe", {"key": "main"})
        await asyncio.gather(*(client.chat("main", "hello", timeout=PATIENCE_S * 2) for client in clients))
        await asyncio.sleep(2)
        before = await figures(house.sidecar)
        delivered_before = sum(len(client.events) for client in clients)
        await asyncio.gather(*(client.chat("main", STREAM, timeout=PATIENCE_S * 3) for client in clients))
        await asyncio.sleep(2)
        after = await figures(house.sidecar)
        delivered = sum(len(client.events) for client in clients) - delivered_before
    grown = {name: after[name] - before.get(name, 0) for name in after}
    passed, kept_back = grown['frames_relayed_total{direction="down"}'], grown["frames_kept_back_total"]
    heard = grown['frames_heard_total{gateway="main"}']
    ratio = (passed + kept_back + heard) / delivered
    print(
        f"\n{passed:.0f} frames passed, {kept_back:.0f} kept back, {heard:.0f} heard by ourselves, {delivered} events: {ratio:.3f}"
    )
    assert delivered > PEOPLE * 30
    assert ratio <= 1.2
