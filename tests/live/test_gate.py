"""Knocking at the gate of a running sidecar: where a token may stand, which pages may knock, what must come first, and
that nothing of a stranger, and nothing that anybody forges, reaches the gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from sidecar.identity.refusals import SENTENCES
from sidecar.protocol.handshake import SCOPES
from tests.live.gate import Gate, made
from tests.stack.raw import MAX_FRAME, RawClient, RequestError, connect_params

pytestmark = pytest.mark.live

CAP = 32
"""Sockets of one address that nobody has signed in on; the default."""


@pytest_asyncio.fixture(scope="module", autouse=True)
async def idler(gate: Gate) -> AsyncIterator[RawClient]:
    """Connects before all the others, says nothing, and has 15 seconds."""
    async with RawClient.open(gate.sidecar.url) as client:
        yield client


# Carriers


async def test_every_carrier_carries(gate: Gate) -> None:
    token = await gate.token("dora")
    bearer = {"Authorization": f"Bearer {token}"}
    for headers, protocols, auth in (
        (bearer, (), None),
        (None, ("openclaw", f"bearer.{token}"), None),
        (None, (f"bearer.{token}", "openclaw"), None),
        (None, (), {"token": token}),
        (None, (), {"password": token}),
        (bearer, ("openclaw", f"bearer.{token}"), {"token": token, "password": token}),
    ):
        async with RawClient.open(gate.sidecar.url, headers, protocols=protocols) as client:
            hello = await client.greet(connect_params(auth))
            assert hello["snapshot"]["sessionDefaults"]["defaultAgentId"] == "u-dora"
            assert client._socket.protocol == ("openclaw" if protocols else None)
            assert token not in "".join(client.received)


async def test_two_tokens_are_one_too_many(gate: Gate) -> None:
    one, other = await gate.token("dora"), await gate.token("emil")
    for auth, headers in (
        ({"token": one, "password": other}, None),
        ({"token": other}, {"Authorization": f"Bearer {one}"}),
        ({"password": other}, {"Sec-WebSocket-Protocol": f"openclaw, bearer.{one}"}),
    ):
        refusal = await gate.refused(auth, headers)
        assert refusal.error["message"] == SENTENCES["ambiguous"]
    both = {"Authorization": f"Bearer {one}", "Sec-WebSocket-Protocol": f"openclaw, bearer.{other}"}
    status, error = await gate.refused_upgrade(both)
    assert (status, error["message"]) == (401, SENTENCES["ambiguous"])


async def test_a_token_in_the_address_is_refused(gate: Gate) -> None:
    token = await gate.token("dora")
    for query in (f"?token={token}", f"?access_token={token}", f"?Auth-Token={token}", f"?x={token}"):
        status, error = await gate.refused_upgrade({"Authorization": f"Bearer {token}"}, query)
        assert (status, error["message"]) == (401, SENTENCES["query"])
        assert token not in str(error)


async def test_a_token_that_no_plain_protocol_stands_beside(gate: Gate) -> None:
    headers = {"Sec-WebSocket-Protocol": f"bearer.{await gate.token('dora')}"}
    status, error = await gate.refused_upgrade(headers)
    assert (status, error["message"]) == (401, SENTENCES["carrier"])


async def test_no_token_at_all(gate: Gate) -> None:
    for auth in (None, {}, {"token": ""}):
        refusal = await gate.refused(auth)
        assert refusal.error["message"] == SENTENCES["missing"]
        assert refusal.detail_code == "AUTH_IDENTITY_HEADER_REQUIRED", "on which the Control UI says to sign in"


# Pages and sockets


async def test_foreign_pages_are_refused(gate: Gate) -> None:
    bearer = {"Authorization": f"Bearer {await gate.token('dora')}"}
    own = gate.sidecar.http_url
    for origin in ("https://evil.example.com", "null", own.replace("127.0.0.1", "localhost"), own + ".evil", own + "/"):
        status, error = await gate.refused_upgrade({**bearer, "Origin": origin})
        assert (status, error["details"]["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    async with RawClient.open(gate.sidecar.url, {**bearer, "Origin": own}) as client:
        await client.greet(connect_params())


async def test_what_is_no_websocket(gate: Gate) -> None:
    for headers in ({"Upgrade": "h2c"}, {"Sec-WebSocket-Version": "8"}, {"Sec-WebSocket-Key": ""}):
        status, _ = await gate.refused_upgrade(headers)
        assert status == 426


async def test_strangers_are_counted(gate: Gate) -> None:
    accepted = gate.tap.accepted
    token = await gate.token("dora")
    async with contextlib.AsyncExitStack() as strangers:
        refused = None
        for _ in range(CAP + 1):
            # Nobody here is a trusted proxy: whoever says to come from elsewhere is counted where they come from.
            forged = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
            try:
                await strangers.enter_async_context(RawClient.open(gate.sidecar.url, forged))
            except aiohttp.WSServerHandshakeError as too_many:
                refused = too_many.status
                break
        assert refused == 429
        status, error = await gate.refused_upgrade({"Authorization": f"Bearer {token}"})
        assert (status, error["details"]["code"], error["retryable"]) == (429, "TOO_MANY_CONNECTIONS", True)
        assert gate.tap.accepted == accepted
    async with gate.client("dora") as dora:
        assert (await dora.chat("main", "there is room again")).endswith("room again")


# What must come first


async def test_connect_comes_first(gate: Gate) -> None:
    accepted = gate.tap.accepted
    bearer = {"Authorization": f"Bearer {await gate.token('dora')}"}
    for method in ("chat.send", "health", "connect.challenge", "config.get"):
        async with RawClient.open(gate.sidecar.url, bearer) as client:
            with pytest.raises(RequestError, match="the first request is connect"):
                await client.request(method)
            assert await client.wait_closed() == 1008
    for text in ("", "{", "[]", "null", '"connect"', '{"type":"res","id":"1","ok":true}', '{"type":"req","id":7}'):
        async with RawClient.open(gate.sidecar.url, bearer) as client:
            await client.send_text(text)
            assert await client.wait_closed() == 1008
    assert gate.tap.accepted == accepted


async def test_frames_before_hello_are_small_and_text(gate: Gate) -> None:
    accepted = gate.tap.accepted
    token = await gate.token("dora")
    async with RawClient.open(gate.sidecar.url) as client:
        await client.send_text("x" * (64 * 1024 + 1))
        assert await client.wait_closed() == 1009
    async with RawClient.open(gate.sidecar.url) as client:
        await client._socket.send_bytes(b"{}")
        assert await client.wait_closed() == 1003
    assert gate.tap.accepted == accepted
    async with RawClient.open(gate.sidecar.url) as client:
        await client.greet(connect_params({"token": token}, **{"x-padding": "x" * 60_000}))
        word = "x" * 200_000
        assert (await client.chat("main", word)).endswith(word)
        assert MAX_FRAME > len(word) > 64 * 1024


async def test_ambiguous_frames_after_hello_end_the_socket(gate: Gate) -> None:
    for text in (
        '{"type":"req","id":"1","method":"chat.history","method":"config.get","params":{}}',
        '{"type":"req","id":"1","method":"chat.history","params":{"sessionKey":"main","sessionKey":"agent:main:main"}}',
        '{"type":"req","id":"1","method":"chat.history","params":{"session\\u004bey":"agent:main:main"}}',
    ):
        async with gate.client("dora") as client:
            said = len(gate.tap.sent)
            await client.send_text(text)
            assert await client.wait_closed() == 1008
            assert not [sent for sent in gate.tap.sent[said:] if "chat.history" in sent or "config.get" in sent]
    async with gate.client("dora") as client:
        await client._socket.send_bytes(b"{}")
        assert await client.wait_closed() == 1003


# What is forged


async def test_nothing_forged_goes_upstream(gate: Gate) -> None:
    token = await gate.token("dora")
    forged = {
        "X-Forwarded-User": "admin",
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Host": "evil.example.com",
        "X-OpenClaw-Scopes": "operator.admin",
        "X-OpenClaw-Session-Key": "agent:main:main",
        "Cookie": "forged=cookie",
        "User-Agent": "forged-agent",
    }
    params = connect_params(
        {"token": token},
        scopes=["operator.admin", "operator.read", "operator.pairing"],
        device={"id": "forged-device", "publicKey": "x", "signature": "x", "signedAt": 1, "nonce": "x"},
        sessionKey="user:dora:opened",
        workspaceDir="/forged",
        caps=["session-scoped-events"],
    )
    start = len(gate.tap.sent)
    async with RawClient.open(gate.sidecar.url, forged) as client:
        hello = await client.greet(params)
        assert hello["auth"]["scopes"] == list(SCOPES)
        assert hello["snapshot"]["sessionDefaults"]["mainSessionKey"] == "agent:u-dora:opened"
    sent = "\n".join(gate.tap.sent[start:])
    assert "x-forwarded-user: u-dora\r\n" in sent.lower()
    assert '"session-scoped-events"' in sent
    for word in ("admin", "forged", "203.0.113.7", "evil.example.com", "operator.pairing", "agent:main:main"):
        assert word not in sent


async def test_a_user_cannot_be_another_by_name(gate: Gate) -> None:
    """The `sub` of another issuer, however it is spelt, is never the readable user."""

    async def come_as(subject: str) -> str:
        credential = gate.shown(made(gate.hand, sub=subject))
        async with RawClient.connect(gate.sidecar.url, {"token": credential}) as client:
            for key in {"user:example|dora", "agent:u-dora:main"} - {f"user:{subject}"}:
                with pytest.raises(RequestError) as refusal:
                    await client.request("chat.history", {"sessionKey": key})
                assert refusal.value.detail_code == "FOREIGN_KEY"
            return str(client.hello["snapshot"]["sessionDefaults"]["defaultAgentId"])

    subjects = ("dora", "DORA", "example|dora", "u-dora", "dora\u200b", "../u-dora", "main", "admin")
    agents = await asyncio.gather(*map(come_as, subjects))
    assert len({"u-dora", "main", "admin", "u-main", "u-admin", *agents}) == 5 + len(subjects)


async def test_who_says_nothing_is_put_out(idler: RawClient) -> None:
    assert await idler.wait_closed() == 1000
    assert [frame["event"] for frame in idler.frames] == ["connect.challenge"]
