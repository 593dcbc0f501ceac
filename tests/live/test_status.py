"""`/api/openclaw/status` before a real gateway: the level that is told follows what stands in the gateway's configuration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.stack.gateway import SESSION_TOOLS, Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.node import VERSION
from tests.stack.raw import RawClient, patch_config
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

ONE_PROCESS = "All agents of this gateway run in one process, as one user of its host."


@pytest_asyncio.fixture(scope="module")
async def quiet(model: EchoModel, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway on which users may share an agent too."""
    extra = {"agents": {"defaults": {"startupContext": {"enabled": False}}}}
    folder = tmp_path_factory.mktemp("status-gateway")
    async with Gateway(GatewayOptions(folder=folder, model_url=model.url, extra=extra)) as running:
        yield running


async def told(sidecar: Sidecar, token: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the user is told once it `holds`."""
    headers = {"Authorization": f"Bearer {token}"}
    said: dict[str, Any] = {}
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            async with session.get(f"{sidecar.http_url}/api/openclaw/status", headers=headers) as answer:
                assert answer.status == 200
                said = await answer.json()
            if holds(said):
                return said
            await asyncio.sleep(0.05)
    pytest.fail(f"never told: {said}")


def of(folder: Path, gateway: Gateway, provider: IdentityProvider, **over: Any) -> SidecarOptions:
    """A sidecar with users' agents of its own on the gateway."""
    root = {"root": str(gateway.workspaces / folder.name)}
    settings = {"environments": {**root, **over.pop("environments", {})}}
    return SidecarOptions(folder, gateway, provider.issuer, settings=settings, gateway_settings=over)


async def test_files_kept_apart_until_the_operator_opens_the_gateway(
    quiet: Gateway, identity_provider: IdentityProvider, tmp_path: Path
) -> None:
    token = await identity_provider.token_for("stella", lifetime=3600)
    async with Sidecar(of(tmp_path / "a", quiet, identity_provider)) as sidecar:
        async with RawClient.connect(sidecar.url, {"token": token}) as stella:
            await stella.chat("main", "hello")
        said = await told(sidecar, token, lambda body: body["isolation"] is not None)
        assert said["agentId"] == "u-stella"
        assert said["gateway"] == {"id": "main", "ready": True, "why": ""}
        assert said["isolation"] == {"level": "workspace", "weakenedBy": [ONE_PROCESS]}
        assert said["policy"] == {"gatewayVersion": VERSION, "covered": True, "runs": True}
        assert str(quiet.workspaces) not in json.dumps(said)
        async with RawClient.admin(quiet) as admin:
            await patch_config(admin, {"tools": SESSION_TOOLS["open"]})
            said = await told(sidecar, token, lambda body: body["isolation"]["level"] == "none")
            assert said["gateway"]["ready"] is False
            assert said["policy"]["runs"] is False
            assert "Agents of this gateway may reach each other's sessions." in said["isolation"]["weakenedBy"]
            await patch_config(admin, {"tools": SESSION_TOOLS["closed"]})
            await told(sidecar, token, lambda body: body["isolation"]["level"] == "workspace")


async def test_a_tool_that_reaches_further(quiet: Gateway, identity_provider: IdentityProvider, tmp_path: Path) -> None:
    token = await identity_provider.token_for("rex", lifetime=3600)
    tools = {"tools_allow": ["read", "web_fetch"]}
    async with Sidecar(of(tmp_path / "b", quiet, identity_provider, environments=tools)) as sidecar:
        async with RawClient.connect(sidecar.url, {"token": token}):
            pass
        said = await told(sidecar, token, lambda body: body["isolation"] is not None)
        assert said["isolation"] == {
            "level": "transcript",
            "weakenedBy": ["Your agent has tools that may reach beyond its workspace: web_fetch.", ONE_PROCESS],
        }


async def test_an_agent_that_all_share(quiet: Gateway, identity_provider: IdentityProvider, tmp_path: Path) -> None:
    token = await identity_provider.token_for("sharon", lifetime=3600)
    shared = {"namespace": "shared-agent", "shared_agent": "helpdesk"}
    async with Sidecar(of(tmp_path / "c", quiet, identity_provider, **shared)) as sidecar:
        async with RawClient.connect(sidecar.url, {"token": token}):
            pass
        said = await told(sidecar, token, lambda body: body["isolation"] is not None)
        assert (said["agentId"], said["isolation"]["level"]) == ("helpdesk", "transcript")
        assert said["isolation"]["weakenedBy"][0].startswith("All users share one agent")
