"""A verifier in front of a real JWKS server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest

from sidecar.identity.fetch import HttpFetch
from sidecar.identity.options import IssuerOptions
from sidecar.identity.verifier import Verifier
from tests.identity.issuer import AUDIENCE, ISSUER, Clock, Facts, KeyServer, key_server, make_key


class MakeVerifier(Protocol):
    def __call__(self, *issuers: IssuerOptions, **options: Any) -> AbstractAsyncContextManager[Verifier]: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def facts() -> Facts:
    return Facts()


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with key_server() as running:
        running.keys = [make_key().jwk]
        yield running


@pytest.fixture
def issuer(server: KeyServer) -> IssuerOptions:
    return IssuerOptions("example", ISSUER, (AUDIENCE,), jwks_url=server.jwks_url)


@pytest.fixture
def make_verifier(clock: Clock, facts: Facts) -> MakeVerifier:
    @asynccontextmanager
    async def make(*issuers: IssuerOptions, **options: Any) -> AsyncIterator[Verifier]:
        fetch = HttpFetch(timeout_seconds=options.pop("timeout_seconds", 5.0))
        verifier = Verifier(issuers, fetch, clock, facts, **options)
        try:
            yield verifier
        finally:
            await verifier.aclose()
            await fetch.aclose()

    return make


@pytest.fixture
async def verifier(make_verifier: MakeVerifier, issuer: IssuerOptions) -> AsyncIterator[Verifier]:
    async with make_verifier(issuer) as running:
        yield running
