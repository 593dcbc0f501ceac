"""Tokens that must not pass: each is signed well except for the one thing that its test is about."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest

from sidecar.errors import TokenRefused
from sidecar.identity.options import IssuerOptions
from sidecar.identity.verifier import Verifier
from sidecar.telemetry.facts import TokenRejected
from tests.identity.conftest import MakeVerifier
from tests.identity.issuer import NOW, Facts, KeyServer, b64, claims, joined, make_key, token

RSA = make_key()
EC = make_key("ec", "ES256")
ED = make_key("ed", "EdDSA")


async def reason_of(verifier: Verifier, attack: str) -> str:
    with pytest.raises(TokenRefused) as refusal:
        await verifier.verify(attack)
    assert len(attack) < 10 or attack not in str(refusal.value)
    assert len(str(refusal.value)) < 200
    return refusal.value.reason


async def test_the_control_passes(verifier: Verifier) -> None:
    principal = await verifier.verify(token(RSA))
    assert principal.user_id == "example|alice"
    assert principal.expires_at == NOW + 3600


@pytest.mark.parametrize("none", ["none", "None", "NONE", "nOnE", "", "null"])
@pytest.mark.parametrize("signed", [True, False])
async def test_unsecured(verifier: Verifier, none: str, signed: bool) -> None:
    made = token(RSA, header={"alg": none}, sign_with="RS256")
    attack = made if signed else made.rpartition(".")[0] + "."
    assert await reason_of(verifier, attack) == "algorithm"


@pytest.mark.parametrize("secret", [RSA.pem, RSA.pem.strip(), json.dumps(RSA.jwk).encode(), RSA.jwk["n"].encode(), b""])
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "hs256"])
async def test_hmac_with_the_public_key(verifier: Verifier, secret: bytes, algorithm: str) -> None:
    header = b64(json.dumps({"alg": algorithm, "typ": "at+jwt", "kid": RSA.kid}).encode())
    signed = f"{header}.{b64(json.dumps(claims()).encode())}"
    digest = getattr(hashlib, f"sha{algorithm[2:]}")
    assert (
        await reason_of(verifier, f"{signed}.{b64(hmac.new(secret, signed.encode(), digest).digest())}") == "algorithm"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://evil.example.com/"}, "issuer"),
        ({"iss": "https://login.example.com"}, "issuer"),
        ({"iss": "HTTPS://login.example.com/"}, "issuer"),
        ({"iss": ["https://login.example.com/"]}, "issuer"),
        ({"iss": {"a": 1}}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": ...}, "issuer"),
        ({"aud": "another"}, "audience"),
        ({"aud": "openclaw "}, "audience"),
        ({"aud": "open"}, "audience"),
        ({"aud": ["a", "b"]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": {"openclaw": 1}}, "audience"),
        ({"aud": [["openclaw"]]}, "audience"),
        ({"aud": ...}, "audience"),
        ({"exp": ...}, "expiry"),
        ({"exp": None}, "expiry"),
        ({"exp": str(NOW + 60)}, "expiry"),
        ({"exp": True}, "expiry"),
        ({"exp": [NOW + 60]}, "expiry"),
        ({"exp": 10**30}, "expiry"),
        ({"exp": 1e300}, "expiry"),
        ({"exp": (NOW + 60) * 1000}, "expiry"),
        ({"exp": -1}, "expiry"),
        ({"exp": NOW}, "expired"),
        ({"exp": NOW - 1}, "expired"),
        ({"exp": 0}, "expired"),
        ({"nbf": NOW + 31}, "not-yet-valid"),
        ({"nbf": "soon"}, "malformed"),
        ({"nbf": None}, "malformed"),
        ({"nbf": True}, "malformed"),
        ({"iat": NOW + 31}, "not-yet-valid"),
        ({"iat": "then"}, "malformed"),
        ({"sub": ...}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": " "}, "subject"),
        ({"sub": 7}, "subject"),
        ({"sub": None}, "subject"),
        ({"sub": ["alice"]}, "subject"),
        ({"sub": "a" * 256}, "subject"),
        ({"sub": "alice\n"}, "subject"),
        ({"sub": "alice\x00"}, "subject"),
        ({"sub": "alice\u0085"}, "subject"),
        ({"sub": "alice\u2028"}, "subject"),
        ({"sub": "\ud800"}, "subject"),
    ],
)
async def test_claims(verifier: Verifier, changes: dict[str, Any], reason: str) -> None:
    assert await reason_of(verifier, token(RSA, claims(**changes))) == reason


@pytest.mark.parametrize(
    "changes", [{"nbf": NOW + 30}, {"iat": NOW + 30.0}, {"iat": ...}, {"exp": NOW + 0.5}, {"sub": "é" * 255}]
)
async def test_what_just_passes(verifier: Verifier, changes: dict[str, Any]) -> None:
    assert (await verifier.verify(token(RSA, claims(**changes)))).issuer == "example"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 5000])
async def test_exp_is_no_number(verifier: Verifier, number: str) -> None:
    payload = json.dumps(claims(exp=0)).replace('"exp": 0', f'"exp": {number}').encode()
    assert number.encode() in payload
    assert await reason_of(verifier, token(RSA, payload)) in {"malformed", "expiry"}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"crit": ["exp"]}, "header"),
        ({"crit": []}, "header"),
        ({"b64": False, "crit": ["b64"]}, "header"),
        ({"b64": False}, "header"),
        ({"cty": "JWT"}, "header"),
        ({"enc": "A256GCM"}, "header"),
        ({"zip": "DEF"}, "header"),
        ({"jwk": RSA.jwk}, "header"),
        ({"x5u": "https://evil.example.com/chain.pem"}, "header"),
        ({"x5c": ["MIIB"]}, "header"),
        ({"typ": "id_token"}, "type"),
        ({"typ": "logout+jwt"}, "type"),
        ({"typ": "secevent+jwt"}, "type"),
        ({"typ": "dpop+jwt"}, "type"),
        ({"typ": 1}, "malformed"),
        ({"alg": ...}, "malformed"),
        ({"alg": ["RS256"]}, "malformed"),
        ({"alg": "rs256"}, "algorithm"),
        ({"alg": "RS256 "}, "algorithm"),
        ({"alg": "ES256K"}, "algorithm"),
        ({"alg": "RSA-OAEP"}, "algorithm"),
        ({"alg": "dir"}, "algorithm"),
        ({"kid": 1}, "malformed"),
        ({"kid": ["k1"]}, "malformed"),
        ({"kid": "k" * 257}, "malformed"),
        ({"kid": "k2"}, "unknown-key"),
        ({"kid": ""}, "unknown-key"),
        ({"kid": "../../../dev/null"}, "unknown-key"),
        ({"kid": "k1' OR '1'='1"}, "unknown-key"),
        ({"kid": "x" * 5000}, "malformed"),
        ({"kid": "x" * 1_000_000}, "oversized"),
    ],
)
async def test_header(verifier: Verifier, header: dict[str, Any], reason: str) -> None:
    assert await reason_of(verifier, token(RSA, header=header, sign_with="RS256")) == reason


async def test_embedded_keys_are_not_followed(verifier: Verifier, server: KeyServer) -> None:
    evil = make_key("evil")
    for header in ({"jwk": evil.jwk}, {"jku": f"{server.url}/evil"}, {"x5u": f"{server.url}/evil"}):
        assert await reason_of(verifier, token(evil, header={**header, "kid": RSA.kid})) == "header"
    assert server.requests["/evil"] == 0


@pytest.mark.parametrize("kind", ["application/at+jwt", "AT+JWT", "JWT", "jwt", ...])
async def test_types_of_access_tokens(verifier: Verifier, kind: Any) -> None:
    assert (await verifier.verify(token(RSA, header={"typ": kind}))).subject == "alice"


async def test_keys_are_not_confused(verifier: Verifier, server: KeyServer) -> None:
    """Every algorithm against every other key type, and RSA with the other padding."""
    server.keys = [RSA.jwk, EC.jwk, ED.jwk]
    for key in (RSA, EC, ED):
        assert (await verifier.verify(token(key))).subject == "alice"
        for algorithm in {"RS256", "ES256", "EdDSA"} - {key.algorithm}:
            other = token(key, header={"alg": algorithm}, sign_with=key.algorithm)
            assert await reason_of(verifier, other) == "algorithm"
    for kid, reason in ((EC.kid, "algorithm"), (ED.kid, "algorithm")):
        assert await reason_of(verifier, token(RSA, header={"kid": kid})) == reason


async def test_allowed_algorithms_bind_even_where_the_key_fits(
    make_verifier: MakeVerifier, issuer: IssuerOptions, server: KeyServer
) -> None:
    server.keys = [RSA.jwk]
    async with make_verifier(replace(issuer, algorithms=("PS256", "RS512"))) as verifier:
        for algorithm in ("PS256", "RS512"):
            made = token(RSA, header={"alg": algorithm}, sign_with=algorithm)
            assert (await verifier.verify(made)).subject == "alice"
        for algorithm in ("RS256", "PS384"):
            attack = token(RSA, header={"alg": algorithm}, sign_with=algorithm)
            assert await reason_of(verifier, attack) == "algorithm"
        assert await reason_of(verifier, token(RSA, header={"alg": "PS256"}, sign_with="RS256")) == "signature"


async def test_the_alg_of_a_published_key_binds(verifier: Verifier, server: KeyServer) -> None:
    server.keys = [{**RSA.jwk, "alg": "RS512"}]
    assert await reason_of(verifier, token(RSA)) == "algorithm"


async def test_another_issuers_key(make_verifier: MakeVerifier, issuer: IssuerOptions, server: KeyServer) -> None:
    """Mallory has an issuer of her own here, and signs as the other one, under both key ids."""
    server.misbehave = None
    mallory = make_key("mallory")
    server.keys = [RSA.jwk]
    own = replace(issuer, name="own", issuer="https://own.example.com/", audience=("own",))
    async with make_verifier(issuer, own) as verifier:
        for kid in (mallory.kid, RSA.kid):
            attack = token(mallory, header={"kid": kid})
            assert await reason_of(verifier, attack) in {"unknown-key", "signature"}
        assert await reason_of(verifier, token(RSA, claims(iss=own.issuer))) == "audience"
        mine = await verifier.verify(token(RSA, claims(iss=own.issuer, aud="own")))
        assert mine.user_id == "own|alice"


async def test_missing_kid(verifier: Verifier, server: KeyServer) -> None:
    """One key that fits: it. Two: no guessing."""
    server.keys = [RSA.jwk, EC.jwk]
    assert (await verifier.verify(token(RSA, header={"kid": ...}))).subject == "alice"
    assert await reason_of(verifier, token(make_key("k9"), header={"kid": ...})) == "signature"
    assert await reason_of(verifier, token(ED, header={"kid": ...})) == "unknown-key"


async def test_missing_kid_with_many_keys(verifier: Verifier, server: KeyServer) -> None:
    server.keys = [RSA.jwk, make_key("k2").jwk]
    assert await reason_of(verifier, token(RSA, header={"kid": ...})) == "unknown-key"
    assert (await verifier.verify(token(RSA))).subject == "alice"


@pytest.mark.parametrize(
    "payload",
    [
        b"[]", b'"alice"', b"null", b"1", b"", b"{", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{} {}",
        b"{'a': 'b'}", json.dumps(claims()).encode("utf-16"), b"[" * 6000, b'{"a":' * 2000,
        json.dumps(claims()).replace('"sub"', '"sub": "bob", "sub"').encode(),
        json.dumps(claims()).replace('"sub"', '"s\\u0075b": "bob", "sub"').encode(),
        json.dumps(claims(x=float("nan"))).encode(), json.dumps(claims(x=[float("-inf")])).encode(),
        json.dumps(claims(x={"y": 1})).replace('"y"', '"y": 2, "y"').encode(),
    ],
)  # fmt: skip
async def test_payload_is_no_unambiguous_object(verifier: Verifier, payload: bytes) -> None:
    assert await reason_of(verifier, token(RSA, payload)) == "malformed"


@pytest.mark.parametrize(
    "header",
    [
        b"[]", b"{", b"\xff",
        b'{"alg": "RS256", "alg": "RS256", "kid": "k1"}', b'{"alg": "none", "alg": "RS256", "kid": "k1"}',
        b'{"alg": "RS256", "kid": "k1", "k\\u0069d": "k1"}', b'{"alg": "RS256", "kid": "k1"}' + b" " * 4096,
    ],
)  # fmt: skip
async def test_header_is_no_unambiguous_object(verifier: Verifier, header: bytes) -> None:
    assert await reason_of(verifier, joined(RSA, header, json.dumps(claims()).encode())) == "malformed"


async def test_shape(verifier: Verifier) -> None:
    good = token(RSA)
    head, body, signature = good.split(".")
    padded = base64.urlsafe_b64encode(b"a").decode()
    for attack in (
        *("", ".", "..", "...", "alice", "\ud800", "\x00" * 5, head, f"{head}.{body}", f"Bearer {good}"),
        *(f"{head}.{body}.", f".{body}.{signature}", f"{head}..{signature}", f"{body}.{head}.{signature}"),
        *(f"{good}.", f".{good}", f"{good}.{signature}", f"{good}.a.b"),
        *(
            f" {good}",
            f"{good} ",
            f"{good}\n",
            f"{good}=",
            f"{good}==",
            f"{good}é",
            f"{head}=.{body}.{signature}",
        ),
        *(f"{head}.{body}!.{signature}", f"{head}.{body}.{signature[:-2]}", f"{head}.{body}.{padded}"),
        *(f"{head}.{body}.A", good.replace("_", "/").replace("-", "+") + "/"),
    ):
        assert await reason_of(verifier, attack) in {"malformed", "signature"}, attack


async def test_unused_bits_of_the_last_character(verifier: Verifier) -> None:
    """256 bytes in base64url leave 4 bits over: 15 other spellings of one signature."""
    good = token(RSA)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(good[-1])
    assert last % 16 == 0
    for spare in range(1, 16):
        assert await reason_of(verifier, good[:-1] + alphabet[last + spare]) == "malformed"


async def test_oversized(verifier: Verifier) -> None:
    assert (await verifier.verify(token(RSA, claims(filler="x" * 11_000)))).subject == "alice"
    assert await reason_of(verifier, token(RSA, claims(filler="x" * 13_000))) == "oversized"
    assert await reason_of(verifier, "x" * 10_000_000) == "oversized"


async def test_a_changed_claim_breaks_the_signature(verifier: Verifier) -> None:
    head, _, signature = token(RSA).split(".")
    body = b64(json.dumps(claims(sub="bob")).encode())
    assert await reason_of(verifier, f"{head}.{body}.{signature}") == "signature"


@pytest.mark.parametrize("kid", [None, "ec"])
async def test_signatures_of_nothing(
    make_verifier: MakeVerifier, issuer: IssuerOptions, server: KeyServer, kid: str | None
) -> None:
    """r = s = 0 passed for every message and key in some libraries (CVE-2022-21449)."""
    server.keys = [EC.jwk]
    async with make_verifier(issuer) as verifier:
        made = token(EC, header={"kid": kid})
        assert (await verifier.verify(made)).subject == "alice"
        for nothing in (b"\x00" * 64, b"\x00" * 63, b"\xff" * 64, b"\x00" * 32 + b"\x01" * 32):
            assert await reason_of(verifier, f"{made.rpartition('.')[0]}.{b64(nothing)}") == "signature"


@pytest.mark.parametrize(
    "changes",
    [
        *({"nonce": "n"}, {"nonce": None}, {"at_hash": "h"}, {"c_hash": "h"}, {"s_hash": "h"}, {"events": {}}),
        *({"typ": "ID"}, {"typ": "Refresh"}, {"typ": "Offline"}, {"typ": "Logout"}),
        *({"token_use": "id"}, {"token_use": "refresh"}),
        *({"typ": "Bearer", "token_use": "id"}, {"typ": "Bearer", "events": {}}),
        *({"azp": "openclaw", "scope": ...}, {"azp": "openclaw", "aud": ["openclaw"], "scope": ...}),
    ],
)
async def test_id_tokens_and_their_like(verifier: Verifier, changes: dict[str, Any]) -> None:
    for kind in ("JWT", ...):
        assert await reason_of(verifier, token(RSA, claims(**changes), {"typ": kind})) == "type"
    assert (await verifier.verify(token(RSA, claims(**changes)))).subject == "alice"


@pytest.mark.parametrize(
    "changes",
    [
        *({}, {"scope": ...}, {"typ": "Bearer", "nonce": "n"}, {"token_use": "access"}, {"typ": 7}),
        *({"azp": "openclaw"}, {"azp": "web", "scope": ...}),
        {"azp": "openclaw", "scope": ..., "client_id": "web"},
        {"azp": "openclaw", "scope": ..., "typ": "Bearer"},
        {"azp": "openclaw", "aud": ["openclaw", "account"], "scope": ...},
    ],
)
async def test_access_tokens_of_the_field(verifier: Verifier, changes: dict[str, Any]) -> None:
    assert (await verifier.verify(token(RSA, claims(**changes), {"typ": "JWT"}))).subject == "alice"


async def test_a_refusal_is_a_fact_without_token_content(verifier: Verifier, facts: Facts) -> None:
    attack = token(RSA, claims(sub="marker-in-the-subject", exp=1, email="marker@example.com"))
    with pytest.raises(TokenRefused) as refusal:
        await verifier.verify(attack, "c-7")
    with pytest.raises(TokenRefused):
        await verifier.verify("marker", "c-8")
    rejected = [fact for fact in facts.seen if isinstance(fact, TokenRejected)]
    assert rejected == [TokenRejected("c-7", "example", "expired"), TokenRejected("c-8", "", "malformed")]
    assert "marker" not in f"{facts.seen} {refusal.value} {refusal.value.to_wire()}"
    assert refusal.value.__context__ is None
