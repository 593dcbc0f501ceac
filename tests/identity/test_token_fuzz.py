"""No change to a valid token leaves it valid, and nothing but a refusal comes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sidecar.errors import TokenRefused
from sidecar.identity.fetch import HttpFetch
from sidecar.identity.options import IssuerOptions
from sidecar.identity.verifier import Verifier
from tests.identity.issuer import AUDIENCE, ISSUER, Clock, Facts, KeyServer, b64, claims, key_server, make_key, token

KEYS = [make_key(), make_key("ec", "ES256"), make_key("ed", "EdDSA")]
TOKENS = [token(key) for key in KEYS]
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[KeyServer]:
    async with key_server() as running:
        running.keys = [key.jwk for key in KEYS]
        yield running


@pytest.fixture(scope="module")
async def fuzzed(server: KeyServer) -> AsyncIterator[Verifier]:
    fetch = HttpFetch()
    issuer = IssuerOptions("example", ISSUER, (AUDIENCE,), jwks_url=server.jwks_url)
    verifier = Verifier([issuer], fetch, Clock(), Facts())
    for good in TOKENS:
        await verifier.verify(good)
    yield verifier
    await verifier.aclose()
    await fetch.aclose()
    assert server.jwks_requests <= 2


async def never_verifies(verifier: Verifier, mutated: str) -> None:
    assume(mutated not in TOKENS)
    with pytest.raises(TokenRefused):
        await verifier.verify(mutated)


fuzz = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
characters = st.sampled_from(BASE64 + ".= \n") | st.characters()


@fuzz
@given(st.sampled_from(TOKENS), st.data())
async def test_changed_characters(fuzzed: Verifier, good: str, data: st.DataObject) -> None:
    mutated = list(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 1))] = data.draw(st.lists(characters, max_size=2))
    await never_verifies(fuzzed, "".join(mutated))


@fuzz
@given(st.sampled_from(TOKENS), st.integers(0, 900), st.integers(0, 900))
async def test_cut(fuzzed: Verifier, good: str, start: int, end: int) -> None:
    await never_verifies(fuzzed, good[start:end])
    await never_verifies(fuzzed, good[:start] + good[end:])


@fuzz
@given(st.lists(st.sampled_from([part for good in TOKENS for part in good.split(".")]), max_size=5))
async def test_parts_of_several_tokens(fuzzed: Verifier, parts: list[str]) -> None:
    await never_verifies(fuzzed, ".".join(parts))


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=10)
    | st.sampled_from(["RS256", "none", "k1", "ec", "ed"])
)


@fuzz
@given(
    st.sampled_from(TOKENS),
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "jwk", "jku", "crit", "x"]), values, max_size=3),
    st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "roles", "x"]), values, max_size=3),
)
async def test_changed_content(fuzzed: Verifier, good: str, header: dict[str, object], body: dict[str, object]) -> None:
    head, _, signature = good.split(".")
    index = TOKENS.index(good)
    old = {"alg": KEYS[index].algorithm, "typ": "at+jwt", "kid": KEYS[index].kid}
    changed = b64(json.dumps({**old, **header}).encode()), b64(json.dumps({**claims(), **body}).encode())
    await never_verifies(fuzzed, f"{changed[0]}.{changed[1]}.{signature}")
    await never_verifies(fuzzed, f"{head}.{changed[1]}.{signature}")


@fuzz
@given(
    st.text(max_size=200)
    | st.binary(max_size=200).map(b64)
    | st.lists(st.binary(max_size=40).map(b64), max_size=4).map(".".join)
)
async def test_anything(fuzzed: Verifier, anything: str) -> None:
    await never_verifies(fuzzed, anything)


async def test_the_tokens_are_still_good(fuzzed: Verifier) -> None:
    for good in TOKENS:
        assert (await fuzzed.verify(good)).subject == "alice"
