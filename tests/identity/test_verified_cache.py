"""What was verified is remembered: for the whole token only, not past its end, not past its keys."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.errors import TokenRefused
from sidecar.identity.options import IssuerOptions
from sidecar.identity.refusals import SIGN_IN
from sidecar.identity.verifier import Verifier
from tests.identity.conftest import MakeVerifier
from tests.identity.issuer import NOW, Clock, KeyServer, b64, claims, make_key, token

RSA = make_key()


async def test_the_same_token_gives_the_same_principal(verifier: Verifier) -> None:
    made = token(RSA)
    assert await verifier.verify(made) is await verifier.verify(made)
    assert await verifier.verify(made) is not await verifier.verify(token(RSA, claims(jti="2")))


async def test_the_key_is_the_whole_token(verifier: Verifier) -> None:
    made = token(RSA)
    await verifier.verify(made)
    head, body, signature = made.split(".")
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    for changed in (
        f"{head}.{body}.{flipped}",
        f"{head}.{body}.{b64(b'x' * 256)}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{signature}=",
    ):
        with pytest.raises(TokenRefused):
            await verifier.verify(changed)
    assert (await verifier.verify(made)).subject == "alice"


async def test_never_past_its_end(verifier: Verifier, clock: Clock) -> None:
    made = token(RSA, claims(exp=NOW + 10))
    principal = await verifier.verify(made)
    clock.now = NOW + 9.999
    assert await verifier.verify(made) is principal
    for later in (10, 10.001, 29, 31, 1000):
        clock.now = NOW + later
        with pytest.raises(TokenRefused) as refusal:
            await verifier.verify(made)
        assert refusal.value.reason == "expired"
        assert refusal.value.to_wire()["details"]["code"] == SIGN_IN


async def test_other_keys_that_still_hold_the_old_one(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    """Verified again, and found good."""
    made = token(RSA)
    before = await verifier.verify(made)
    server.keys.append(make_key("k2").jwk)
    clock.now += 1200
    after = await verifier.verify(made)
    assert after == before
    assert after is not before


async def test_it_is_bounded_and_keeps_what_is_used(make_verifier: MakeVerifier, issuer: IssuerOptions) -> None:
    async with make_verifier(issuer, max_cached=3) as verifier:
        tokens = [token(RSA, claims(sub=f"user{number}")) for number in range(6)]
        first = await verifier.verify(tokens[0])
        for made in tokens[1:]:
            await verifier.verify(made)
            assert await verifier.verify(tokens[0]) is first
        assert len(verifier._verified) == 3


async def test_refusals_are_not_remembered(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    new = make_key("k2")
    made = token(new)
    with pytest.raises(TokenRefused):
        await verifier.verify(made)
    server.keys.append(new.jwk)
    clock.now += 30
    assert (await verifier.verify(made)).subject == "alice"


async def test_at_once(verifier: Verifier) -> None:
    tokens = [token(RSA, claims(sub=f"user{number % 7}")) for number in range(70)]
    principals = await asyncio.gather(*map(verifier.verify, tokens))
    assert [principal.subject for principal in principals] == [f"user{number % 7}" for number in range(70)]
