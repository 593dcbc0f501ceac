"""A sidecar with tight limits in front of a stub gateway: for what a client can do to a sidecar."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.stack.identity_provider import IdentityProvider
from tests.stack.raw import RawClient
from tests.stack.sidecar import Sidecar, SidecarOptions
from tests.stack.stub_gateway import StubConnection, StubGateway

OTHER_ORIGIN = "https://chat.example.com"
PER_USER, STRANGERS, IN_ALL = 3, 4, 12
USERS = ("ann", "ben", "cleo", "dan", "eve")
"""Whoever visits: `PER_USER` sockets of the first four are a full house."""


@dataclass(frozen=True, slots=True)
class Narrow:
    """What runs."""

    stub: StubGateway
    sidecar: Sidecar
    identity_provider: IdentityProvider

    async def token(self, user: str) -> str:
        return await self.identity_provider.token_for(user, lifetime=3600)

    @contextlib.asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[tuple[RawClient, StubConnection]]:
        """A client past hello, and its other end."""
        async with RawClient.connect(self.sidecar.url, {"token": await self.token(user)}) as client:
            yield client, self.stub.of(f"u-{user}")[-1]


@pytest_asyncio.fixture(scope="session")
async def stub() -> AsyncIterator[StubGateway]:
    async with StubGateway() as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def narrow(
    stub: StubGateway, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Narrow]:
    """Shared: leave no client behind."""
    folder = tmp_path_factory.mktemp("narrow")
    limits = {
        "max_connections": IN_ALL,
        "max_connections_per_user": PER_USER,
        "max_unauthenticated_per_address": STRANGERS,
        "slow_client_seconds": 1,
        "trusted_proxies": ["127.0.0.1/32"],
        "allowed_origins": [OTHER_ORIGIN],
    }
    options = SidecarOptions(
        folder,
        stub.gateway(folder),
        identity_provider.issuer,
        settings={"server": limits, "quota": {"concurrent_runs": 0}},
    )
    async with Sidecar(options) as sidecar:
        narrow = Narrow(stub, sidecar, identity_provider)
        for some in (USERS[:STRANGERS], USERS[STRANGERS:]):
            await asyncio.gather(*(_first_visit(narrow, user) for user in some))
        yield narrow


async def _first_visit(narrow: Narrow, user: str) -> None:
    """A new user waits for the gateway's configuration to be written, at most once in two seconds."""
    async with narrow.client(user):
        pass


@pytest_asyncio.fixture(scope="session")
async def roomy(
    stub: StubGateway, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Narrow]:
    """The same with the limits as they are by default, and a gateway that was patched to take workspaces."""
    folder = tmp_path_factory.mktemp("roomy")
    options = SidecarOptions(
        folder, stub.gateway(folder), identity_provider.issuer, gateway_settings={"accepts_workspace": True}
    )
    async with Sidecar(options) as sidecar:
        yield Narrow(stub, sidecar, identity_provider)
