"""What an issuer that is away, slow or wrong means for those who come."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from sidecar.errors import ConfigurationError, IdentityAway
from sidecar.identity.options import IssuerOptions
from sidecar.identity.verifier import Verifier
from tests.identity.conftest import MakeVerifier
from tests.identity.issuer import Clock, Facts, KeyServer, answers, claims, key_server, make_key, refreshed, token

RSA = make_key()
NEW = make_key("k2")


@pytest.fixture
async def impatient(make_verifier: MakeVerifier, issuer: IssuerOptions) -> AsyncIterator[Verifier]:
    async with make_verifier(issuer, timeout_seconds=0.5) as running:
        yield running


async def slow(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(2)
    return web.Response()


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(20):
        await response.write(b" ")
        await asyncio.sleep(0.1)
    return response


async def broken_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"keys": [')
    if request.transport is not None:
        request.transport.abort()
    return response


HUGE = b'{"keys": [' + b" " * 300_000 + b"]}"
OUTAGES = {
    "500": (answers(500), "status 500"),
    "404": (answers(404), "status 404"),
    "204": (answers(204), "status 204"),
    "slow": (slow, "did not answer"),
    "dripping": (dripping, "did not answer"),
    "broken off": (broken_off, "cannot be reached"),
    "huge": (answers(body=HUGE), "more than 256 KiB"),
    "bomb": (answers(body=gzip.compress(HUGE * 40), headers={"Content-Encoding": "gzip"}), "more than 256 KiB"),
    "not JSON": (answers(body=b"<html>Sign in</html>"), "cannot be read"),
    "nested": (answers(body=b'{"keys": ' + b"[" * 20_000), "cannot be read"),
    "empty": (answers(), "cannot be read"),
    "no keys": (answers(body=b"{}"), "cannot be read"),
    "keys no list": (answers(body=b'{"keys": {"kty": "RSA"}}'), "cannot be read"),
    "no usable key": (answers(body=b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}, 1, null, []]}'), "no key"),
    "redirect": (answers(302, headers={"Location": "/elsewhere"}), "redirect"),
    "redirect away": (answers(307, headers={"Location": "https://evil.example.com/jwks"}), "redirect"),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_no_keys_to_begin_with(
    impatient: Verifier, server: KeyServer, clock: Clock, facts: Facts, outage: str
) -> None:
    """Nobody gets in; readiness says why; the issuer is left alone for a while; when it is back, so are we."""
    server.misbehave, why = OUTAGES[outage]
    await impatient.warm()
    assert not impatient.ready()
    status = impatient.status()[0]
    assert (status.usable, status.keys, status.age_seconds) == (False, 0, None)
    assert why in status.why
    for _ in range(20):
        with pytest.raises(IdentityAway) as away:
            await impatient.verify(token(RSA))
        assert away.value.retryable
        assert "127.0.0.1" not in away.value.message
    assert server.requests["/jwks"] == 1
    assert facts.fetches[0].outcome == "failed"
    assert server.requests["/elsewhere"] == 0
    server.misbehave = None
    clock.now += 1
    assert (await impatient.verify(token(RSA))).subject == "alice"
    assert impatient.ready()
    assert impatient.status()[0].why == ""


async def test_attempts_grow_apart(verifier: Verifier, server: KeyServer, clock: Clock) -> None:
    server.misbehave = answers(500)
    for _ in range(300):
        with pytest.raises(IdentityAway):
            await verifier.verify(token(RSA))
        clock.now += 1
    assert server.jwks_requests == len([0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181, 211, 241, 271])


@pytest.mark.parametrize("outage", sorted(OUTAGES.keys() - {"no usable key"}))
async def test_known_keys_outlast_an_outage(impatient: Verifier, server: KeyServer, clock: Clock, outage: str) -> None:
    """Stale-if-error: for a day; new key ids meanwhile are nobody's fault who asks."""
    await impatient.warm()
    server.misbehave, why = OUTAGES[outage]
    clock.now += 5000
    good = token(RSA, claims(exp=clock.now + 200_000))
    assert (await impatient.verify(good)).subject == "alice"
    with pytest.raises(IdentityAway):
        await impatient.verify(token(NEW, claims(exp=clock.now + 60)))
    assert impatient.ready()
    assert why in impatient.status()[0].why
    assert impatient.status()[0].age_seconds == 5000
    clock.now += 86_400
    for _ in range(2):
        with pytest.raises(IdentityAway):
            await impatient.verify(good)
    assert not impatient.ready()


async def test_nobody_listens(make_verifier: MakeVerifier, issuer: IssuerOptions, clock: Clock) -> None:
    async with key_server() as gone:
        port = int(gone.url.rpartition(":")[2])
    async with make_verifier(replace(issuer, jwks_url=gone.jwks_url)) as verifier:
        with pytest.raises(IdentityAway):
            await verifier.verify(token(RSA))
        assert "cannot be reached" in verifier.status()[0].why
        async with key_server(port) as back:
            back.keys = [RSA.jwk]
            clock.now += 1
            assert (await verifier.verify(token(RSA))).subject == "alice"


async def test_asking_for_readiness_finds_an_issuer_that_came_back(
    verifier: Verifier, server: KeyServer, clock: Clock, facts: Facts
) -> None:
    """Without users: a load balancer sends none to who is not ready."""
    server.misbehave = answers(503)
    await verifier.warm()
    server.misbehave = None
    assert not verifier.ready()
    clock.now += 1
    assert not verifier.ready()
    await refreshed(facts, 2)
    assert verifier.ready()


async def test_one_issuer_away_does_not_lock_out_the_others(
    make_verifier: MakeVerifier, issuer: IssuerOptions, server: KeyServer
) -> None:
    away = replace(
        issuer,
        name="away",
        issuer="https://away.example.com/",
        jwks_url=f"{server.url}/.well-known/openid-configuration",
    )
    async with make_verifier(away, issuer) as verifier:
        await verifier.warm()
        assert (await verifier.verify(token(RSA))).subject == "alice"
        with pytest.raises(IdentityAway):
            await verifier.verify(token(RSA, claims(iss=away.issuer)))
        assert verifier.ready()
        assert [(one.name, one.usable) for one in verifier.status()] == [("away", False), ("example", True)]


async def test_a_clock_that_was_set_back(verifier: Verifier, server: KeyServer, clock: Clock, facts: Facts) -> None:
    await verifier.warm()
    clock.now -= 1_000_000
    made = token(RSA, claims(iat=clock.now))
    assert (await verifier.verify(made)).subject == "alice"
    await refreshed(facts, 2)
    assert (await verifier.verify(made)).subject == "alice"
    assert server.jwks_requests == 2


async def test_closing_amid_a_fetch(make_verifier: MakeVerifier, issuer: IssuerOptions, server: KeyServer) -> None:
    asked = asyncio.Event()

    async def never(_request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    server.misbehave = never
    async with make_verifier(issuer, timeout_seconds=1000) as verifier:
        waiting = asyncio.create_task(verifier.verify(token(RSA)))
        await asyncio.wait_for(asked.wait(), 5)
    with pytest.raises(IdentityAway):
        await waiting
    assert "jwks-example" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_defect_of_the_fetch_is_not_hidden(issuer: IssuerOptions, clock: Clock, facts: Facts) -> None:
    async def defective(_url: str) -> bytes:
        raise RuntimeError("a defect")

    verifier = Verifier([issuer], defective, clock, facts)
    with pytest.raises(RuntimeError, match="a defect"):
        await verifier.verify(token(RSA))
    await verifier.aclose()


def test_wrong_options_are_found_before_anything_is_asked(issuer: IssuerOptions, clock: Clock, facts: Facts) -> None:
    async def fetch(_url: str) -> bytes:
        raise AssertionError("asked")

    wrong = replace(issuer, name="Example", algorithms=("HS256", "none"))
    with pytest.raises(ConfigurationError) as refusal:
        Verifier([wrong], fetch, clock, facts)
    assert [problem.setting for problem in refusal.value.problems] == [
        "identity.issuers[0].name",
        "identity.issuers[0].algorithms",
        "identity.issuers[0].algorithms",
    ]
