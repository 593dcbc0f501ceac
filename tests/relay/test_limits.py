"""What one client can cost: clients that do not read, ask without end, vanish, or close by halves. The gateway is a stub."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import pytest

from sidecar.protocol.websocket import Opcode, encode
from sidecar.relay.scope import MAX_PENDING
from tests.relay.conftest import Narrow
from tests.stack.proc import eventually, holdings, resident_bytes
from tests.stack.raw import RawClient, connect_params, is_response
from tests.stack.stub_gateway import Frame, StubConnection
from tests.wire.peers import MASK, RawPeer

MIB = 1024 * 1024
KERNEL = 16 * MIB
"""What the kernel may keep for the sockets of one connection, on both legs."""


@pytest.fixture(autouse=True)
async def _nothing_is_left(narrow: Narrow) -> AsyncIterator[None]:
    before = holdings(narrow.sidecar.pid)
    yield
    await eventually(lambda: holdings(narrow.sidecar.pid).sockets <= before.sockets)


async def greeted(peer: RawPeer, narrow: Narrow, user: str) -> StubConnection:
    """Past hello, on a client made of bytes; its other end."""
    request = {
        "type": "req",
        "id": "c",
        "method": "connect",
        "params": connect_params({"token": await narrow.token(user)}),
    }
    peer.send(1, json.dumps(request).encode())
    while (json.loads((await peer.frame())[1])).get("id") != "c":
        pass
    return narrow.stub.of(f"u-{user}")[-1]


def closed_line(narrow: Narrow, user: str) -> Frame:
    """The latest `socket_closed` of the sidecar's log for this user."""
    lines = [line for line in narrow.sidecar.log.splitlines() if '"socket_closed"' in line and f'|{user}"' in line]
    found: Frame = json.loads(lines[-1])
    return found


def delta(user: str, text: str) -> Frame:
    return {
        "runId": "r",
        "sessionKey": f"agent:u-{user}:main",
        "agentId": f"u-{user}",
        "state": "delta",
        "deltaText": text,
    }


async def test_a_client_that_does_not_read_is_cut_and_its_gateway_waits_meanwhile(narrow: Narrow) -> None:
    memory = resident_bytes(narrow.sidecar.pid)
    async with RawPeer.connect(narrow.sidecar.url) as peer:
        upstream = await greeted(peer, narrow, "ann")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def flood() -> None:
            for _ in range(4000):
                await upstream.event("chat", delta("ann", "x" * 65536))

        narrow.stub.go_on(flood)
        await upstream.closed.wait()
        assert upstream.sent_bytes < KERNEL + 4 * MIB, "the gateway was told to wait"
        assert resident_bytes(narrow.sidecar.pid) < memory + 32 * MIB
        await eventually(lambda: closed_line(narrow, "ann")["reason"] == "slow")
        assert closed_line(narrow, "ann")["code"] == 1013


async def test_a_client_that_reads_late_but_reads_loses_nothing(roomy: Narrow) -> None:
    async with RawPeer.connect(roomy.sidecar.url) as peer:
        upstream = await greeted(peer, roomy, "ann")

        async def flood() -> None:
            for number in range(400):
                await upstream.event("chat", delta("ann", f"{number} " + "x" * 65536))

        roomy.stub.go_on(flood)
        for number in range(400):
            frame = json.loads((await peer.frame())[1])
            assert frame["seq"] == number + 1
            assert frame["payload"]["deltaText"].startswith(f"{number} ")
            if number % 50 == 0:
                await asyncio.sleep(0.1)


async def test_requests_without_an_answer_are_few(narrow: Narrow) -> None:
    async with narrow.stub.handling("chat.history", _never), narrow.client("ann") as (client, upstream):
        ids = [await client.send("chat.history", {"sessionKey": "main"}) for _ in range(MAX_PENDING + 50)]
        refused = [
            (await client.wait_for(is_response(request_id)))["error"]["message"] for request_id in ids[MAX_PENDING:]
        ]
        assert all(str(MAX_PENDING) in message for message in refused)
        await eventually(lambda: histories(upstream) >= MAX_PENDING)
        assert histories(upstream) == MAX_PENDING
        waiting = [request for request in upstream.requests if request["method"] == "chat.history"]
        await upstream.answer(waiting[0], {"messages": []})
        await client.wait_for(is_response(ids[0]))
        last = await client.send("models.list")
        assert (await client.wait_for(is_response(last)))["ok"]


async def test_an_id_is_used_once_at_a_time(narrow: Narrow) -> None:
    async with narrow.stub.handling("chat.history", _never), narrow.client("ann") as (client, upstream):
        request = {"type": "req", "id": "same", "method": "chat.history", "params": {"sessionKey": "main"}}
        await client.send_text(json.dumps(request))
        await client.send_text(json.dumps(request))
        refused = await client.wait_for(is_response("same"))
        assert refused["error"]["details"]["code"] == "TOO_MANY_REQUESTS"
        await eventually(lambda: histories(upstream) >= 1)
        assert histories(upstream) == 1


def histories(upstream: StubConnection) -> int:
    return sum(request["method"] == "chat.history" for request in upstream.requests)


async def test_a_client_that_reads_nothing_and_asks_on_is_not_read_from_either(roomy: Narrow) -> None:
    memory = resident_bytes(roomy.sidecar.pid)
    async with RawPeer.connect(roomy.sidecar.url) as peer:
        await greeted(peer, roomy, "gus")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        request = {"type": "req", "id": "i" * 256, "method": "config.get", "params": {}}
        batch = encode(Opcode.TEXT, json.dumps(request).encode(), MASK) * 250
        sent = await sent_until_it_waits(peer, batch, batches=1500)
        assert sent < 1500, "the sidecar stopped reading"
        assert resident_bytes(roomy.sidecar.pid) < memory + 24 * MIB


async def test_a_client_that_sends_more_than_its_gateway_takes_waits(narrow: Narrow) -> None:
    memory = resident_bytes(narrow.sidecar.pid)
    gate = asyncio.Event()

    async def takes_its_time(_: StubConnection, request: Frame) -> Frame:
        await gate.wait()
        return {"runId": request["params"]["idempotencyKey"], "status": "started"}

    async with narrow.stub.handling("chat.send", takes_its_time), RawPeer.connect(narrow.sidecar.url) as peer:
        await greeted(peer, narrow, "cleo")
        params = {"sessionKey": "main", "message": "x" * 256 * 1024}
        frames = (
            encode(
                1,
                json.dumps({"type": "req", "id": str(number), "method": "chat.send", "params": params}).encode(),
                MASK,
            )
            for number in itertools.count()
        )
        sent = await sent_until_it_waits(peer, *itertools.islice(frames, 200))
        assert sent < 200, "the sidecar stopped reading"
        assert resident_bytes(narrow.sidecar.pid) < memory + 48 * MIB
        gate.set()
        answered: set[str] = set()
        while len(answered) < sent:
            answered.add(json.loads((await asyncio.wait_for(peer.frame(), 20))[1])["id"])


async def sent_until_it_waits(peer: RawPeer, *frames: bytes, batches: int = 1) -> int:
    """Write all, `batches` times, but stop once the other side has taken nothing for three seconds; how many it took."""
    count = 0
    for frame in frames * batches:
        peer.writer.write(frame)
        try:
            await asyncio.wait_for(peer.writer.drain(), 3)
        except TimeoutError:
            break
        count += 1
    return count


@pytest.mark.parametrize("way", ["half-closed", "reset"])
async def test_a_client_that_goes_without_a_word_takes_its_gateway_connection_with_it(narrow: Narrow, way: str) -> None:
    async with RawPeer.connect(narrow.sidecar.url) as peer:
        upstream = await greeted(peer, narrow, "dan")
        if way == "half-closed":
            peer.writer.write_eof()
        else:
            peer.writer.transport.abort()
        await asyncio.wait_for(upstream.closed.wait(), 20)
    await eventually(lambda: closed_line(narrow, "dan")["reason"] == "client")


async def test_a_client_that_goes_during_its_handshake_leaves_nothing(narrow: Narrow) -> None:
    token = await narrow.token("dan")
    closed = narrow.sidecar.log.count('"socket_closed"')
    for _ in range(5):
        async with RawPeer.connect(narrow.sidecar.url) as peer:
            request = {"type": "req", "id": "c", "method": "connect", "params": connect_params({"token": token})}
            peer.send(1, json.dumps(request).encode())
            await peer.writer.drain()
    await eventually(lambda: narrow.sidecar.log.count('"socket_closed"') == closed + 5)
    await eventually(lambda: not narrow.stub.of("u-dan"))


async def test_a_gateway_that_breaks_the_protocol_ends_the_connection(narrow: Narrow) -> None:
    async with narrow.client("dan") as (client, upstream):
        await upstream.socket.send_bytes(b"binary")
        assert await client.wait_closed() in {1011, 1012}


async def test_answers_and_events_that_nobody_asked_for_are_dropped(narrow: Narrow) -> None:
    async with narrow.client("dan") as (client, upstream):
        await upstream.answer({"id": "never asked"}, {"secret": "one"})
        await upstream.event("config.changed", {"path": "secret two"})
        await upstream.event("chat", delta("eve", "secret three"))
        await upstream.event("chat", delta("dan", "mine"))
        seen = await client.wait_for(lambda frame: frame.get("event") == "chat")
        assert seen["payload"]["deltaText"] == "mine"
        assert seen["seq"] == 1
        assert "secret" not in "".join(client.received)


async def _never(_: StubConnection, __: Frame) -> None:
    return None


async def with_chat(client: RawClient) -> None:
    """One `chat.send` as a client of a patched gateway writes it."""
    foreign = {"workspaceDir": "/data/openclaw-users/u-eve/workspace", "authProfileId": "user-eve-anthropic"}
    await client.request("chat.send", {"sessionKey": "main", "message": "hi", **foreign})


async def test_workspace_and_profile_of_a_client_are_taken_out(narrow: Narrow) -> None:
    async with narrow.client("eve") as (client, upstream):
        await with_chat(client)
        sent = upstream.requests[-1]["params"]
        assert set(sent) == {"sessionKey", "message", "idempotencyKey"}
