"""An issuer's keys over time: discovery, rotation, floods. A real server counts what it is asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web

from sidecar.errors import IdentityAway, TokenRefused
from sidecar.identity.options import IssuerOptions
from sidecar.identity.verifier import Verifier
from tests.identity.conftest import MakeVerifier
from tests.identity.issuer import (
    Clock,
    Facts,
    KeyServer,
    answers,
    claims,
    key_server,
    make_key,
    refreshed,
    settled,
    token,
)

RSA = make_key()
NEW = make_key("k2")


async def reason_of(verifier: Verifier, attack: str) -> str:
    with pytest.raises(TokenRefused) as refusal:
        await verifier.verify(attack)
    return refusal.value.reason


# Discovery


@pytest.fixture
def discovered(issuer: IssuerOptions, server: KeyServer) -> IssuerOptions:
    return replace(issuer, issuer=server.url, jwks_url="")


async def test_discovery(make_verifier: MakeVerifier, discovered: IssuerOptions, server: KeyServer) -> None:
    async with make_verifier(discovered) as verifier:
        for subject in ("alice", "bob"):
            made = token(RSA, claims(iss=server.url, sub=subject))
            assert (await verifier.verify(made)).subject == subject
    assert server.requests == {"/.well-known/openid-configuration": 1, "/jwks": 1}


async def test_discovery_below_a_path(
    make_verifier: MakeVerifier, discovered: IssuerOptions, server: KeyServer
) -> None:
    issuer = f"{server.url}/realms/one/"
    server.discovery = {"issuer": issuer}
    async with make_verifier(replace(discovered, issuer=issuer)) as verifier:
        assert (await verifier.verify(token(RSA, claims(iss=issuer)))).subject == "alice"
    assert server.requests["/realms/one/.well-known/openid-configuration"] == 1


@pytest.mark.parametrize("other", ["https://evil.example.com", "{}/", "{}:", None, 7])
async def test_a_discovery_document_of_another_issuer(
    make_verifier: MakeVerifier, discovered: IssuerOptions, server: KeyServer, other: object
) -> None:
    server.discovery = {"issuer": other.format(server.url) if isinstance(other, str) else other}
    async with make_verifier(discovered) as verifier:
        with pytest.raises(IdentityAway):
            await verifier.verify(token(RSA, claims(iss=server.url)))
        assert "names another issuer" in verifier.status()[0].why
    assert server.jwks_requests == 0


@pytest.mark.parametrize(
    "url",
    [
        *("http://keys.example.com/jwks", "file:///etc/passwd", "ftp://127.0.0.1/"),
        *("https://u:p@keys.example.com/", "http://[", "", 7, None),
    ],
)
async def test_a_jwks_uri_that_must_not_be_followed(
    make_verifier: MakeVerifier, discovered: IssuerOptions, server: KeyServer, url: object
) -> None:
    server.discovery = {"jwks_uri": url}
    async with make_verifier(discovered) as verifier:
        with pytest.raises(IdentityAway):
            await verifier.verify(token(RSA, claims(iss=server.url)))
        assert "jwks_uri" in verifier.status()[0].why


async def test_an_issuer_cannot_point_at_our_own_host(issuer: IssuerOptions, clock: Clock, facts: Facts) -> None:
    asked: list[str] = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return b'{"issuer": "https://login.example.com/", "jwks_uri": "https://127.0.0.1:8443/admin"}'

    verifier = Verifier([replace(issuer, jwks_url="")], fetch, clock, facts)
    await verifier.warm()
    assert asked == ["https://login.example.com/.well-known/openid-configuration"]
    assert "jwks_uri" in verifier.status()[0].why


async def test_the_keys_move(
    make_verifier: MakeVerifier, discovered: IssuerOptions, server: KeyServer, clock: Clock, facts: Facts
) -> None:
    """An address from discovery that fails is looked up again."""
    async with make_verifier(discovered) as verifier:
        await verifier.warm()
        async with key_server() as elsewhere:
            elsewhere.keys = [NEW.jwk]
            server.discovery = {"jwks_uri": elsewhere.jwks_url}
            server.misbehave = answers(404)
            clock.now += 2000
            assert (await verifier.verify(token(RSA, claims(iss=server.url)))).subject == "alice"
            clock.now += 2
            assert (await verifier.verify(token(NEW, claims(iss=server.url)))).subject == "alice"
    assert [fact.outcome for fact in facts.fetches] == ["ok", "failed", "ok"]


# Rotation


async def test_rotation(verifier: Verifier, server: KeyServer, clock: Clock, facts: Facts) -> None:
    """The new key is taken at its first use; the old one works as long as it is published, and not after."""
    assert (await verifier.verify(token(RSA))).subject == "alice"
    server.keys = [RSA.jwk, NEW.jwk]
    assert (await verifier.verify(token(NEW))).subject == "alice"
    assert (await verifier.verify(token(RSA))).subject == "alice"
    server.keys = [NEW.jwk]
    clock.now += 601
    assert (await verifier.verify(token(NEW))).subject == "alice"
    await refreshed(facts, 3)
    assert await reason_of(verifier, token(RSA)) == "unknown-key"
    assert await reason_of(verifier, token(RSA, claims(sub="bob"))) == "unknown-key"
    assert (await verifier.verify(token(NEW))).subject == "alice"


async def test_a_withdrawn_key_ends_cached_tokens(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    good = token(RSA)
    await verifier.verify(good)
    server.keys = [NEW.jwk]
    clock.now += 1200
    assert await reason_of(verifier, good) == "unknown-key"


async def test_all_keys_withdrawn(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    good = token(RSA)
    await verifier.verify(good)
    server.keys = []
    clock.now += 1200
    with pytest.raises(IdentityAway):
        await verifier.verify(good)
    assert not verifier.ready()
    assert "no key" in verifier.status()[0].why


async def test_withdrawn_keys_that_come_back(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    """Seen at somebody else's unknown key; asked for again soon, not after the usual age."""
    good = token(RSA)
    await verifier.verify(good)
    server.keys = []
    for one in (token(NEW), good):
        with pytest.raises(IdentityAway):
            await verifier.verify(one)
    server.keys = [RSA.jwk]
    clock.now += 1
    assert (await verifier.verify(good)).subject == "alice"


@pytest.mark.parametrize("named", [True, False])
async def test_rotation_without_a_new_name(
    make_verifier: MakeVerifier, issuer: IssuerOptions, server: KeyServer, named: bool
) -> None:
    """Some issuers name no key, or every key alike."""
    old, new = (make_key("same" if named else None, bits=2048 + step) for step in (0, 8))
    server.keys = [old.jwk]
    async with make_verifier(issuer) as verifier:
        assert (await verifier.verify(token(old))).subject == "alice"
        server.keys = [new.jwk]
        assert (await verifier.verify(token(new))).subject == "alice"
        assert await reason_of(verifier, token(old)) == "signature"
    assert server.jwks_requests == 2


async def test_keys_come_once_for_many_tokens(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    for subject in range(50):
        await verifier.verify(token(RSA, claims(sub=f"user{subject}")))
        clock.now += 10
    assert server.jwks_requests == 1


async def test_old_keys_serve_while_they_are_refreshed(
    verifier: Verifier, server: KeyServer, clock: Clock, facts: Facts
) -> None:
    await verifier.warm()
    release = asyncio.Event()

    async def late(_request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.json_response({"keys": [NEW.jwk]})

    server.misbehave = late
    clock.now += 700
    for _ in range(5):
        assert (await verifier.verify(token(RSA))).subject == "alice"
    assert len(facts.fetches) == 1
    release.set()
    await refreshed(facts, 2)
    assert await reason_of(verifier, token(RSA)) == "unknown-key"


async def test_all_who_wait_for_a_new_key_get_it(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    """The fetch that they joined was too early; one of them asks again, for all."""
    await verifier.warm()
    release = asyncio.Event()

    async def early(_request: web.Request) -> web.StreamResponse:
        await release.wait()
        server.misbehave = None
        return web.json_response({"keys": [RSA.jwk]})

    server.misbehave = early
    server.keys = [RSA.jwk, NEW.jwk]
    clock.now += 700
    made = [token(NEW, claims(sub=f"user{number}")) for number in range(10)]
    waiting = [asyncio.create_task(verifier.verify(one)) for one in made]
    await settled()
    release.set()
    assert {(await one).subject for one in waiting} == {f"user{number}" for number in range(10)}
    assert server.jwks_requests == 3


# Floods


async def test_a_flood_of_unknown_key_ids_costs_one_fetch(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    await verifier.warm()
    made = [token(RSA, header={"kid": f"unknown-{number}"}) for number in range(1000)]
    assert {await reason_of(verifier, one) for one in made[:500]} == {"unknown-key"}
    refusals = await asyncio.gather(*map(verifier.verify, made[500:]), return_exceptions=True)
    assert {type(refusal) for refusal in refusals} == {TokenRefused}
    assert server.jwks_requests == 2
    clock.now += 29
    await reason_of(verifier, made[0])
    assert server.jwks_requests == 2
    clock.now += 2
    await asyncio.gather(*map(verifier.verify, made), return_exceptions=True)
    assert server.jwks_requests == 3


async def test_a_flood_of_wrong_signatures_costs_one_fetch(verifier: Verifier, server: KeyServer) -> None:
    await verifier.warm()
    for subject in range(100):
        forged = token(NEW, claims(sub=f"user{subject}"), {"kid": RSA.kid})
        assert await reason_of(verifier, forged) == "signature"
    assert server.jwks_requests == 2


async def test_a_flood_of_other_refusals_costs_none(verifier: Verifier, server: KeyServer) -> None:
    await verifier.warm()
    for number in range(50):
        await reason_of(verifier, token(RSA, claims(exp=number)))
        await reason_of(verifier, token(RSA, claims(iss=f"https://{number}.example.com")))
        await reason_of(verifier, token(RSA, header={"jku": f"{server.url}/{number}"}))
    assert server.requests == {"/jwks": 1}


async def test_a_rotation_amid_a_flood(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    await verifier.warm()
    await reason_of(verifier, token(RSA, header={"kid": "flood"}))
    server.keys = [NEW.jwk]
    assert await reason_of(verifier, token(NEW)) == "unknown-key"
    clock.now += 30
    assert (await verifier.verify(token(NEW))).subject == "alice"


async def test_a_hundred_at_once_share_one_fetch(verifier: Verifier, server: KeyServer) -> None:
    release = asyncio.Event()

    async def held(_request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.json_response({"keys": server.keys})

    server.misbehave = held
    made = [token(RSA, claims(sub=f"user{number}")) for number in range(100)]
    waiting = [asyncio.create_task(verifier.verify(one)) for one in made]
    await settled()
    waiting[0].cancel()
    release.set()
    principals = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(principals[0], asyncio.CancelledError)
    assert {getattr(one, "subject", "") for one in principals[1:]} == {f"user{number}" for number in range(1, 100)}
    assert server.jwks_requests == 1
