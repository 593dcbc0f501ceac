"""Which entries of a JWKS are used, and for which algorithms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from sidecar.identity.keys import MAX_KEYS, VerificationKey, parse_keys
from tests.identity.issuer import make_key

RSA, EC, ED = make_key(), make_key("ec", "ES256"), make_key("ed", "EdDSA")
ALL_RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def parsed(*entries: Any) -> tuple[VerificationKey, ...]:
    return parse_keys(json.dumps({"keys": entries}).encode())


@pytest.mark.parametrize(
    ("entry", "fitting"),
    [
        (RSA.jwk, ALL_RSA),
        (make_key("ps", "PS512").jwk, ALL_RSA),
        (EC.jwk, {"ES256"}),
        (make_key("ec", "ES384").jwk, {"ES384"}),
        (make_key("ec", "ES512").jwk, {"ES512"}),
        (ED.jwk, {"EdDSA", "Ed25519"}),
        ({**RSA.jwk, "alg": "RS256"}, {"RS256"}),
        ({**RSA.jwk, "alg": "PS384"}, {"PS384"}),
        ({**ED.jwk, "alg": "EdDSA"}, {"EdDSA", "Ed25519"}),
        ({**ED.jwk, "alg": "Ed25519"}, {"EdDSA", "Ed25519"}),
        ({name: value for name, value in RSA.jwk.items() if name not in {"use", "kid"}}, ALL_RSA),
        ({**RSA.jwk, "key_ops": ["verify"], "x5c": ["MIIB"], "x5t": "eA", "nobody": "knows"}, ALL_RSA),
    ],
)
def test_usable(entry: dict[str, Any], fitting: set[str]) -> None:
    (key,) = parsed(entry)
    assert key.algorithms == fitting
    assert key.key_id == entry.get("kid")


def secp256k1() -> dict[str, Any]:
    return ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True)


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "k1"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "RS256"},
        {**RSA.jwk, "kty": "oct", "k": "c2VjcmV0"},
        {**RSA.jwk, "kty": "rsa"},
        {**RSA.jwk, "kty": None},
        {**RSA.jwk, "kty": ["RSA"]},
        {**RSA.jwk, "use": "enc"},
        {**RSA.jwk, "use": None},
        {**RSA.jwk, "key_ops": ["encrypt", "wrapKey"]},
        {**RSA.jwk, "key_ops": []},
        {**RSA.jwk, "key_ops": "verify"},
        {**RSA.jwk, "alg": "HS256"},
        {**RSA.jwk, "alg": "none"},
        {**RSA.jwk, "alg": "RSA-OAEP"},
        {**RSA.jwk, "alg": "ES256"},
        {**RSA.jwk, "alg": "EdDSA"},
        {**RSA.jwk, "alg": 7},
        {**RSA.jwk, "alg": ["RS256"]},
        {**RSA.jwk, "kid": 7},
        {**RSA.jwk, "crv": "P-256"},
        {**RSA.jwk, "crv": 7},
        {**RSA.jwk, "d": "AA"},
        {**RSA.jwk, "n": ""},
        {**RSA.jwk, "n": 7},
        {**RSA.jwk, "n": "AAAA"},
        {**RSA.jwk, "e": "AQ"},
        {**RSA.jwk, "e": "Ag"},
        {**RSA.jwk, "e": None},
        {"kty": "RSA"},
        RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048), as_dict=True),
        RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True),
        {**RSA.jwk, "n": "_" * 1400},
        {**EC.jwk, "crv": "P-384"},
        {**EC.jwk, "crv": "secp256k1"},
        {**EC.jwk, "crv": "P-256K"},
        {**EC.jwk, "x": EC.jwk["y"]},
        {**EC.jwk, "y": "AA"},
        {**EC.jwk, "alg": "ES384"},
        secp256k1(),
        {**ED.jwk, "crv": "Ed448"},
        {**ED.jwk, "crv": "X25519"},
        {**ED.jwk, "x": "AA"},
        {**ED.jwk, "alg": "RS256"},
        OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True),
        *({}, [], "key", 7, None, True),
    ],
)
def test_passed_over(entry: Any) -> None:
    """And the good key beside it is used."""
    assert [key.key_id for key in parsed(entry, {**RSA.jwk, "kid": "good"})] == ["good"]


def test_at_most_64() -> None:
    assert len(parsed(*({**ED.jwk, "kid": f"k{number}"} for number in range(100)))) == MAX_KEYS == 64


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "keys": []}', b"\xff", b"null"]
)
def test_no_jwks(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_keys(document)


@pytest.mark.parametrize(
    "key", [RSA, EC, ED, make_key("ec", "ES384"), make_key("ec", "ES512"), make_key("ps", "PS256")]
)
def test_a_key_verifies_its_own_and_nothing_else(key: Any) -> None:
    (public,) = parsed(key.jwk)
    signature = key.signature(b"text")
    assert public.verifies(key.algorithm, b"text", signature)
    assert not public.verifies(key.algorithm, b"other", signature)
    assert not public.verifies(key.algorithm, b"text", signature[:-1])
    assert not public.verifies(key.algorithm, b"text", b"")
    for other in {"HS256", "none", "RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA", "made-up"} - {key.algorithm}:
        assert not public.verifies(other, b"text", signature)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


members = st.sampled_from(["kty", "crv", "n", "e", "x", "y", "alg", "use", "key_ops", "kid"])


@given(st.sampled_from([RSA.jwk, EC.jwk, ED.jwk]), st.dictionaries(members, json_values, max_size=3))
def test_a_broken_entry_never_breaks_the_others(entry: dict[str, Any], changes: dict[str, Any]) -> None:
    assert parsed({**entry, **changes}, {**EC.jwk, "kid": "good"})[-1].key_id == "good"
