"""What a client gets of a gateway's events is what a reader of whole frames would give it, whatever was remembered before."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sidecar.policy
from sidecar.domain.namespace import Namespace
from sidecar.domain.principal import Principal
from sidecar.gateways.greeting import Upstream
from sidecar.gateways.handles import Handles
from sidecar.policy.table import read_table
from sidecar.protocol.handshake import MAX_ADMIN_FRAME_BYTES, ClientHello
from sidecar.protocol.websocket import FrameReader, Message, Opcode, encode
from sidecar.quota.runs import Runs
from sidecar.relay.connection import MAX_ACTS, Connection
from sidecar.relay.heads import LIMIT
from sidecar.relay.scope import Scope
from sidecar.telemetry.facts import EventDropped, Fact, FramesRelayed
from sidecar.wire.dial import Dialled
from sidecar.wire.wire import Inbox, Wire

TABLE = read_table((Path(sidecar.policy.__file__).parent / "gateway-2026.9.toml").read_bytes())
OWN, FOREIGN = "u-bob", "u-alice"
MAX_SIZE = 1 << 20
RUN = "0123456789abcdef" * 3
"""As long as the ids that we make, which are searched for in whole frames."""

agents = st.sampled_from([OWN, OWN, FOREIGN, "u-bobby", "u-bo"])
texts = st.sampled_from(
    ["", "word", 'say "agentId":"u-bob"', '},"sessionKey":"agent:u-bob:main","agentId":"u-bob","seq":1', "é\\"]
)
nested: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"agentId": OWN},
        {"sessionKey": f"agent:{OWN}:main", "agentId": OWN, "seq": 1},
        {"x": {}, "sessionKey": f"agent:{OWN}:main", "agentId": OWN, "seq": 1},
        {"x": {"x": {}, "sessionKey": f"agent:{OWN}:main", "agentId": OWN, "seq": 1}},
    ]
)


@st.composite
def payloads(draw: st.DrawFn) -> dict[str, Any]:
    """The shapes of `chat` and `agent`, with a scope before the data, behind it, half of one, or none."""
    key, agent = draw(agents), draw(agents)
    scope = draw(
        st.sampled_from(
            [
                {"sessionKey": f"agent:{key}:main", "agentId": agent},
                {"sessionKey": f"agent:{key}:main", "agentId": key},
                {"sessionKey": f"agent:{key}:main"},
                {"agentId": agent},
                {"agentId": key, "sessionKey": f"agent:{key}:main"},
                {},
            ]
        )
    )
    data = {"text": draw(texts), **draw(nested)}
    behind = {"seq": draw(st.integers(1, 2000)), "ts": 1, "isHeartbeat": False}
    return draw(
        st.sampled_from(
            [
                {"runId": RUN, **scope, "seq": 7, "state": "delta", "message": data},
                {"runId": RUN, "stream": "assistant", "data": data, **scope, **behind},
                {"runId": RUN, "stream": "assistant", "data": data, **scope, **behind, "more": data},
                {"runId": RUN, **scope, "stream": "lifecycle", "data": data, **behind},
            ]
        )
    )


events = st.tuples(st.sampled_from(["chat", "agent", "agent", "node.pair.requested"]), payloads(), st.booleans())


def written(number: int, name: str, payload: dict[str, Any], behind_proxy: bool) -> bytes:
    frame = {"type": "event", "event": name, "payload": payload, "seq": number}
    return json.dumps(frame | ({"recipientProfileId": "p"} if behind_proxy else {}), separators=(",", ":")).encode()


def is_own(name: str, payload: dict[str, Any]) -> bool:
    key, agent = payload.get("sessionKey"), payload.get("agentId")
    named = [agent == OWN] * (agent is not None) + [key is not None and key.split(":")[1] == OWN] * (key is not None)
    return name in {"chat", "agent"} and bool(named) and all(named)


AsAdmin = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


class Legs:
    """A connection between two socket pairs. Raises nothing; everything is closed at the end."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.failures: list[Exception] = []
        self._peers: list[socket.socket] = []
        self._transports: list[asyncio.Transport] = []

    async def relayed(self, reads: Sequence[bytes], aliases: dict[str, str]) -> list[bytes]:
        """What the client gets of these reads of the gateway."""
        inbox = Inbox()
        gateway, _ = await self._wire(inbox, client=True)
        client, peer = await self._wire(Inbox(), client=False)
        scope = a_scope(Dialled(gateway, inbox))
        scope.aliases.update(aliases)
        connection = Connection(scope, client, self.facts.append, slow_client_seconds=30)
        gateway.receiver = connection.down
        for data in reads:
            gateway.data_received(data)
        last = b"the last one"
        client.send(last)
        received = await messages_until(peer, last)
        await self._close()
        return received

    async def ended_by(self, request: bytes, as_admin: AsAdmin) -> tuple[int, str]:
        """How the connection ends on which the client asks this, and nobody ends it."""
        inbox = Inbox()
        gateway, _ = await self._wire(inbox, client=True)
        client, _ = await self._wire(Inbox(), client=False)
        scope = a_scope(Dialled(gateway, inbox))
        scope.as_admin = as_admin
        scope.principal = replace(scope.principal, roles=frozenset({"user"}))
        connection = Connection(scope, client, self.facts.append, slow_client_seconds=30)
        async with asyncio.timeout(10):
            ended = await connection.run([Message(Opcode.TEXT, request, 0, len(request))])
        await self._close()
        return ended

    async def answers(self, requests: Sequence[bytes], as_admin: AsAdmin) -> list[dict[str, Any]]:
        """What the client is answered to these, in any order."""
        inbox = Inbox()
        gateway, _ = await self._wire(inbox, client=True)
        client, peer = await self._wire(Inbox(), client=False)
        scope = a_scope(Dialled(gateway, inbox))
        scope.as_admin = as_admin
        scope.principal = replace(scope.principal, roles=frozenset({"user"}))
        connection = Connection(scope, client, self.facts.append, slow_client_seconds=30)
        running = asyncio.create_task(connection.run([Message(Opcode.TEXT, one, 0, len(one)) for one in requests]))
        reader, received = FrameReader(masked=False, max_size=MAX_SIZE), list[dict[str, Any]]()
        async with asyncio.timeout(10):
            while len(received) < len(requests):
                data = await asyncio.get_running_loop().sock_recv(peer, 1 << 18)
                received += [json.loads(message.payload) for message in reader.feed(data)]
        connection.end(1000, "done")
        await running
        await self._close()
        return received

    async def _wire(self, inbox: Inbox, *, client: bool) -> tuple[Wire, socket.socket]:
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        wire = Wire(client=client, max_size=MAX_SIZE, receiver=inbox, failed=self.failures.append)
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: wire, sock=ours)
        self._peers.append(peer)
        self._transports.append(transport)
        return wire, peer

    async def _close(self) -> None:
        for transport in self._transports:
            transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for peer in self._peers:
            peer.close()


async def messages_until(peer: socket.socket, last: bytes) -> list[bytes]:
    reader, received = FrameReader(masked=False, max_size=MAX_SIZE), list[bytes]()
    async with asyncio.timeout(10):
        while last not in received:
            data = await asyncio.get_running_loop().sock_recv(peer, 1 << 18)
            assert data
            received += [message.payload for message in reader.feed(data)]
    return received[:-1]


async def nothing_as_admin(method: str, params: Mapping[str, Any]) -> Any:
    pytest.fail(f"{method} as admin, with {params}")


def a_scope(link: Dialled) -> Scope:
    hello = ClientHello("cli", "cli", {}, 3, 4, (), (), "", "", {}, "")
    runs: Runs = object.__new__(Runs)  # nothing here starts or ends a run
    return Scope(
        connection_id="c",
        principal=Principal("example|bob", "example", "bob", "", 0.0),
        namespace=Namespace("example|bob", OWN, OWN),
        gateway_id="main",
        hello=hello,
        table=TABLE,
        upstream=Upstream(link, {}),
        runs=runs,
        handles=object.__new__(Handles),  # nothing here learns whose an object is, or asks
        as_admin=nothing_as_admin,
        still_open=lambda: None,
    )


def reads_of(frames: Sequence[bytes], at_once: int) -> Iterator[bytes]:
    for at in range(0, len(frames), at_once):
        yield b"".join(encode(Opcode.TEXT, frame) for frame in frames[at : at + at_once])


def expected(seen: Sequence[tuple[str, dict[str, Any], bool]], renamed: str) -> list[bytes]:
    own = [(name, {**payload, "runId": renamed}, proxied) for name, payload, proxied in seen if is_own(name, payload)]
    return [written(number, *one) for number, one in enumerate(own, 1)]


async def check(seen: Sequence[tuple[str, dict[str, Any], bool]], at_once: int, aliases: dict[str, str]) -> None:
    legs = Legs()
    frames = [written(number, *one) for number, one in enumerate(seen, 1)]
    received = await legs.relayed(list(reads_of(frames, at_once)), aliases)
    assert legs.failures == []
    assert received == expected(seen, aliases.get(RUN, RUN))
    relayed = sum(fact.frames for fact in legs.facts if isinstance(fact, FramesRelayed))
    dropped = sum(fact.count for fact in legs.facts if isinstance(fact, EventDropped))
    assert (relayed, relayed + dropped) == (len(received), len(seen))


@given(st.lists(events, max_size=40), st.integers(1, 10), st.sampled_from([{}, {RUN: "theirs"}]))
async def test_own_events_pass_in_order_and_nothing_else(
    seen: list[tuple[str, dict[str, Any], bool]], at_once: int, aliases: dict[str, str]
) -> None:
    await check(seen, at_once, aliases)


async def test_more_sessions_than_are_remembered() -> None:
    sessions = [{"sessionKey": f"agent:{OWN}:s{number}", "agentId": OWN} for number in range(LIMIT + 20)]
    foreign = [{"sessionKey": f"agent:{FOREIGN}:s{number}", "agentId": FOREIGN} for number in range(LIMIT + 20)]
    rest = {"state": "delta", "message": {}}
    seen = [("chat", {"runId": RUN, **scope, **rest}, True) for scope in [*sessions, *foreign, *sessions]]
    await check(seen, 7, {})


def one_event(name: str, agent: str) -> tuple[str, dict[str, Any], bool]:
    scope = {"sessionKey": f"agent:{agent}:main", "agentId": agent, "seq": 1}
    if name == "chat":
        return name, {"runId": RUN, **scope, "state": "delta", "message": {}}, True
    return (
        name,
        {"runId": RUN, "stream": "assistant", "data": {"text": ""}, **scope, "ts": 1, "isHeartbeat": False},
        True,
    )


@pytest.mark.parametrize("at_once", [1, 5, 1000])
@pytest.mark.parametrize("name", ["chat", "agent"])
async def test_what_is_remembered_of_one_is_not_taken_for_another(name: str, at_once: int) -> None:
    """Each in runs, so that it is judged once and then looked up; numbers grow over 10 and 100, and are lowered below them."""
    runs = [one_event(name, agent) for agent in (OWN, FOREIGN, OWN, "u-alicia") for _ in range(4)]
    other = [one_event("agent" if name == "chat" else "chat", agent) for agent in (FOREIGN, OWN) for _ in range(4)]
    await check([*runs, *other] * 8, at_once, {})


async def test_a_defect_in_what_is_done_as_admin_ends_the_connection() -> None:
    """Its request would be waited for without end."""
    done = list[str]()

    async def broken(method: str, params: Mapping[str, Any]) -> Any:
        done.append(method)
        raise LookupError(params["key"])

    assert await Legs().ended_by(asked(1, "sessions.delete", key="notes"), broken) == (1011, "LookupError")
    assert done == ["sessions.delete"]


def asked(number: int, method: str, **params: str) -> bytes:
    return json.dumps({"type": "req", "id": str(number), "method": method, "params": params}).encode()


async def test_what_one_client_has_done_as_admin_at_once_is_bounded_and_all_of_it_is_done() -> None:
    """The gateway connection that does it is shared by all users."""
    going_on, most = 0, 0

    async def slow(method: str, params: Mapping[str, Any]) -> Any:
        nonlocal going_on, most
        going_on += 1
        most = max(most, going_on)
        await asyncio.sleep(0.01)
        going_on -= 1
        return {"ok": True, "key": params["key"], "deleted": True}

    answers = await Legs().answers(
        [asked(number, "sessions.delete", key=f"notes{number}") for number in range(20)], slow
    )
    assert {answer["id"] for answer in answers if answer["ok"]} == {str(number) for number in range(20)}
    assert most == MAX_ACTS


async def test_what_would_close_the_connection_of_all_is_refused() -> None:
    """The gateway closes a connection on which a frame is too large; the sidecar's own stands for everybody."""
    done = list[str]()

    async def act(method: str, params: Mapping[str, Any]) -> Any:
        done.append(method)
        return {"ok": True, "key": params["key"], "deleted": True}

    large = asked(1, "agents.files.set", name="MEMORY.md", content="x" * MAX_ADMIN_FRAME_BYTES)
    answers = await Legs().answers([large, asked(2, "sessions.delete", key="notes")], act)
    refused, passed = sorted(answers, key=lambda answer: str(answer["id"]))
    assert refused["error"]["details"]["code"] == "FRAME_TOO_LARGE"
    assert passed["ok"] is True
    assert done == ["sessions.delete"]
