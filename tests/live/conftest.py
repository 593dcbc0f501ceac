"""The whole house, started once per strategy: gateway, model, identity provider, and the sidecar in front."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.live.gate import Gate, standing_gate
from tests.stack.gateway import Gateway
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import RawClient
from tests.stack.sidecar import Sidecar, SidecarOptions


@dataclass(frozen=True, slots=True)
class House:
    """Everything that runs, and how to come in."""

    gateway: Gateway
    model: EchoModel
    identity_provider: IdentityProvider
    sidecar: Sidecar

    async def token(self, user: str) -> str:
        return await self.identity_provider.token_for(user, lifetime=3600)

    @contextlib.asynccontextmanager
    async def client(self, user: str, **params: Any) -> AsyncIterator[RawClient]:
        """A client of `user` past hello; `params` go over those of `connect`."""
        async with RawClient.connect(self.sidecar.url, {"token": await self.token(user)}, **params) as client:
            yield client


@pytest_asyncio.fixture(scope="session")
async def house(
    gateway: Gateway,
    model: EchoModel,
    identity_provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[House]:
    """Behind a trusted proxy. Shared: use users of your own (any login name works), leave everything running."""
    folder = tmp_path_factory.mktemp("sidecar")
    async with Sidecar(SidecarOptions(folder, gateway, identity_provider.issuer)) as sidecar:
        yield House(gateway, model, identity_provider, sidecar)


@pytest_asyncio.fixture(scope="module")
async def token_house(
    token_gateway: Gateway,
    model: EchoModel,
    identity_provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[House]:
    """With a shared token; one a module."""
    folder = tmp_path_factory.mktemp("token-sidecar")
    async with Sidecar(SidecarOptions(folder, token_gateway, identity_provider.issuer)) as sidecar:
        yield House(token_gateway, model, identity_provider, sidecar)


@pytest_asyncio.fixture(scope="session")
async def gate(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """A sidecar of its own before the shared gateway, to be attacked by those who are nobody."""
    async with standing_gate(gateway, tmp_path_factory.mktemp("gate")) as standing:
        yield standing
