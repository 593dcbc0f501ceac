"""Bad tokens at the gate of a running sidecar: each is refused with the right sentence, and costs the gateway nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.identity.refusals import SENTENCES
from tests.identity.issuer import b64, joined, key_server
from tests.live.gate import EC, RSA, STRANGE, Gate, eventually, good_claims, made
from tests.stack.raw import RawClient, RequestError, connect_params

pytestmark = pytest.mark.live


def unsigned(gate: Gate) -> str:
    return made(gate.hand, header={"alg": "none"}, sub="alice").rpartition(".")[0] + "."


def none_with_a_signature(gate: Gate) -> str:
    return joined(RSA, b'{"alg":"none","typ":"at+jwt"}', json.dumps(good_claims(gate.hand)).encode())


def hmac_with_the_public_key(gate: Gate) -> str:
    header = b64(json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": RSA.kid}).encode())
    signed = f"{header}.{b64(json.dumps(good_claims(gate.hand)).encode())}"
    return f"{signed}.{b64(hmac.new(RSA.pem, signed.encode(), hashlib.sha256).digest())}"


def changed_after_signing(gate: Gate) -> str:
    header, _, signature = made(gate.hand).split(".")
    return f"{header}.{b64(json.dumps(good_claims(gate.hand, sub='alice')).encode())}.{signature}"


Make = Callable[[Gate], str]
ATTACKS: tuple[tuple[str, Make, str], ...] = (
    ("none", unsigned, "algorithm"),
    ("none, signed", none_with_a_signature, "algorithm"),
    ("HS256 with the public key", hmac_with_the_public_key, "algorithm"),
    ("changed after signing", changed_after_signing, "signature"),
    ("another iss", lambda g: made(g.hand, iss="https://evil.example.com/"), "issuer"),
    ("iss with a slash more", lambda g: made(g.hand, iss=g.hand.url + "/"), "issuer"),
    ("another aud", lambda g: made(g.hand, aud="another"), "audience"),
    ("no aud", lambda g: made(g.hand, aud=...), "audience"),
    ("no exp", lambda g: made(g.hand, exp=...), "expiry"),
    ("exp in milliseconds", lambda g: made(g.hand, exp=int(time.time() + 60) * 1000), "expiry"),
    ("expired", lambda g: made(g.hand, exp=int(time.time()) - 1), "expired"),
    ("not yet valid", lambda g: made(g.hand, nbf=int(time.time()) + 600), "not-yet-valid"),
    ("issued in the future", lambda g: made(g.hand, iat=int(time.time()) + 600), "not-yet-valid"),
    ("no sub", lambda g: made(g.hand, sub=...), "subject"),
    ("empty sub", lambda g: made(g.hand, sub=" "), "subject"),
    ("sub with a line break", lambda g: made(g.hand, sub="alice\nbob"), "subject"),
    ("oversized", lambda g: made(g.hand, padding="x" * 16_384), "oversized"),
    ("crit", lambda g: made(g.hand, header={"crit": ["exp"]}), "header"),
    ("a key that nobody publishes", lambda g: made(g.hand, STRANGE), "unknown-key"),
    ("that key, under a known name", lambda g: made(g.hand, STRANGE, {"kid": RSA.kid}), "signature"),
    ("that key, brought along", lambda g: made(g.hand, STRANGE, {"jwk": STRANGE.jwk}), "header"),
    ("that key, fetched from us", lambda g: made(g.hand, STRANGE, {"jku": f"{g.flooded.url}/stolen"}), "header"),
    ("a certificate, fetched from us", lambda g: made(g.hand, STRANGE, {"x5u": f"{g.flooded.url}/stolen"}), "header"),
    ("RS256 under the name of an EC key", lambda g: made(g.hand, RSA, {"kid": EC.kid}), "algorithm"),
    ("ES256 under the name of an RSA key", lambda g: made(g.hand, EC, {"kid": RSA.kid}), "algorithm"),
    ("no kid, several keys, none fits", lambda g: made(g.hand, STRANGE, {"kid": ...}), "signature"),
    ("an ID token", lambda g: made(g.hand, header={"typ": "JWT"}, nonce="n", scope=...), "type"),
    ("not a token", lambda g: "gt_0123456789abcdef", "malformed"),
    ("the gateway's own password", lambda g: g.gateway.password, "malformed"),
)


@pytest.mark.parametrize(("make", "reason"), [attack[1:] for attack in ATTACKS], ids=[attack[0] for attack in ATTACKS])
async def test_bad_tokens(gate: Gate, make: Make, reason: str) -> None:
    attack = gate.shown(make(gate))
    refusal = await gate.refused({"token": attack})
    assert refusal.error["message"] == SENTENCES[reason]
    assert not refusal.error.get("retryable")
    assert refusal.detail_code == ("AUTH_IDENTITY_HEADER_REQUIRED" if reason == "expired" else "AUTH_TOKEN_MISMATCH")
    assert attack not in str(refusal.error)
    assert gate.flooded.requests["/stolen"] == 0


async def test_the_control_comes_in(gate: Gate) -> None:
    """Tokens like the bad ones, with nothing wrong; the same `sub` of three issuers is three users."""

    async def come_with(credential: str) -> str:
        async with RawClient.connect(gate.sidecar.url, {"token": gate.shown(credential)}) as client:
            assert (await client.chat(uuid.uuid4().hex, "let in")).endswith("let in")
            return str(client.hello["snapshot"]["sessionDefaults"]["defaultAgentId"])

    good = (made(gate.hand), made(gate.hand, EC), made(gate.flooded), await gate.token("mallory"))
    first, second, *others = await asyncio.gather(*map(come_with, good))
    assert first == second
    assert len({first, *others}) == 3


async def test_an_id_token_is_no_access_token(gate: Gate) -> None:
    refusal = await gate.refused({"token": gate.shown(await gate.provider.id_token_for("alice"))})
    assert refusal.error["message"] == SENTENCES["type"]


async def test_a_flood_of_key_ids_asks_the_issuer_once(gate: Gate) -> None:
    good = gate.shown(made(gate.flooded))
    async with RawClient.connect(gate.sidecar.url, {"token": good}):
        asked = gate.flooded.jwks_requests
    bad = [gate.shown(made(gate.flooded, STRANGE, {"kid": f"guess-{number}"})) for number in range(48)]

    async def guess(attack: str) -> str:
        async with RawClient.open(gate.sidecar.url) as client:
            with pytest.raises(RequestError) as refusal:
                await client.greet(connect_params({"token": attack}))
            return str(refusal.value.error["message"])

    sentences = {await task for start in range(0, 48, 16) for task in map(guess, bad[start : start + 16])}
    assert sentences == {SENTENCES["unknown-key"]}
    assert gate.flooded.jwks_requests == asked + 1
    async with RawClient.connect(gate.sidecar.url, {"token": good}):
        assert gate.flooded.jwks_requests == asked + 1


async def test_an_issuer_that_is_away_comes_and_goes(gate: Gate) -> None:
    async with key_server(gate.fading_port) as fading:
        url = fading.url
        fading.keys = [RSA.jwk]
        good, newer = gate.shown(made(fading)), gate.shown(made(fading, STRANGE))
    away = await gate.refused({"token": good}, close_code=1013)
    assert (away.code, away.detail_code) == ("UNAVAILABLE", "IDENTITY_UNAVAILABLE")
    assert away.error["retryable"] is True
    assert url not in str(away.error)
    async with key_server(gate.fading_port) as fading:
        fading.keys = [RSA.jwk]
        await comes_in_at_last(gate, good)
    async with RawClient.connect(gate.sidecar.url, {"token": good}) as client:
        assert (await client.chat("main", "by the kept keys")).endswith("by the kept keys")
        unknowable = await gate.refused({"token": newer}, close_code=1013)
        assert unknowable.detail_code == "IDENTITY_UNAVAILABLE", "it may be a new key: nobody can say"
        assert (await client.chat("main", "still in")).endswith("still in")


async def comes_in_at_last(gate: Gate, credential: str) -> None:
    """The issuer is left alone for some seconds after each failure."""
    for _ in range(100):
        with contextlib.suppress(RequestError):
            async with RawClient.connect(gate.sidecar.url, {"token": credential}):
                return
        await asyncio.sleep(0.2)
    pytest.fail("the issuer is there, and nobody comes in")


async def test_keys_rotate_while_alice_stays(gate: Gate) -> None:
    old = await gate.token("alice")
    async with RawClient.connect(gate.sidecar.url, {"token": old}) as alice:
        await gate.provider.rotate_keys()
        new = await gate.token("bob")
        assert header_of(new)["kid"] != header_of(old)["kid"]
        async with RawClient.connect(gate.sidecar.url, {"token": new}) as bob:
            said = await asyncio.gather(alice.chat("main", "old key"), bob.chat("main", "new key"))
        assert [line.removeprefix("echo: ") for line in said] == ["old key", "new key"]
        assert (await alice.chat("main", "still here")).endswith("still here")
        async with RawClient.connect(gate.sidecar.url, {"token": old}):
            pass  # the old key is still published


def header_of(credential: str) -> dict[str, Any]:
    head = credential.partition(".")[0]
    header: dict[str, Any] = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    return header


async def test_a_token_that_ends_takes_its_sockets_with_it(gate: Gate) -> None:
    async with gate.client("carol"):
        pass  # her agent is there now
    await eventually(lambda: gate.tap.open == 1)
    credential = await gate.token("carol", lifetime=8)
    async with RawClient.connect(gate.sidecar.url, {"token": credential}) as carol:
        asked = {"sessionKey": "main", "message": "[[slow 600 50]] [[long 600]]", "idempotencyKey": "carols-run"}
        await carol.request("chat.send", asked)
        await carol.wait_for(lambda frame: frame.get("event") == "chat")
        assert gate.tap.open == 2
        assert await carol.wait_closed() == 1008
    await eventually(lambda: gate.tap.open == 1)
    refusal = await gate.refused({"token": credential})
    assert refusal.error["message"] == SENTENCES["expired"]
    async with gate.client("carol") as carol:
        await carol.request("chat.abort", {"sessionKey": "main"})


async def test_nobody_tells_a_secret(gate: Gate) -> None:
    """After all of the above: no token, nor a part of one that is anybody's own, in a log, a metric or an answer."""
    async with gate.client("dora"):
        pass
    seal = (gate.sidecar.options.folder / "data" / "secret").read_text().strip()
    tokens = [part for token in gate.tokens for part in token.split(".")[1:] or [token] if len(part) > 16]
    assert len(tokens) > 20
    secrets = {seal, gate.gateway.password, *tokens}
    told = {
        "log": gate.sidecar.log,
        "metrics": await gate.sidecar.metrics(),
        "answers": "\n".join(gate.received),
        "readiness": json.dumps(await gate.sidecar.readiness()),
    }
    assert "token_rejected" in told["log"]
    for place, text in told.items():
        assert len(text) > 100
        for secret in secrets:
            assert secret not in text, place
    upstream = "\n".join(gate.tap.sent)
    assert gate.gateway.password in upstream, "what the sidecar says to the gateway is its own"
    for token in {*tokens} - {gate.gateway.password}:
        assert token not in upstream
