"""pytest fixtures of the stack. Load with `pytest_plugins = ("tests.stack.fixtures",)`.

A gateway costs about ten seconds and 800 MB, so the usual one is started once and shared: tests use agents and session
keys of their own on it, and leave it running.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel


@pytest_asyncio.fixture(scope="session")
async def model() -> AsyncIterator[EchoModel]:
    """The echo model behind every gateway; it outlives them, since a gateway waits for its runs."""
    async with EchoModel() as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def gateway(model: EchoModel, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """2026.9.6 behind a trusted proxy, session tools closed; shared."""
    folder = tmp_path_factory.mktemp("gateway")
    async with Gateway(GatewayOptions(folder=folder, model_url=model.url)) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def token_gateway(model: EchoModel, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """2026.9.6 with a shared token, session tools closed; one a module."""
    folder = tmp_path_factory.mktemp("token-gateway")
    async with Gateway(GatewayOptions(folder=folder, model_url=model.url, mode="token")) as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def identity_provider(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IdentityProvider]:
    """Shared; whoever rotates its keys or stops it leaves it running with its keys published."""
    async with IdentityProvider(tmp_path_factory.mktemp("identity-provider")) as running:
        yield running
