"""`/api/openclaw/status` of a running sidecar: who may ask, and what they are told of themselves and of nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import sidecar
from sidecar.gateways.unmetered import WAYS
from tests.stack.gateway import SESSION_TOOLS
from tests.stack.identity_provider import IdentityProvider
from tests.stack.raw import RawClient
from tests.stack.sidecar import Sidecar, SidecarOptions
from tests.stack.stub_gateway import Frame, StubConnection, StubGateway

PATH = "/api/openclaw/status"
ONE_PROCESS = "All agents of this gateway run in one process, as one user of its host."


class Changing(StubGateway):
    """A gateway that can be another version the next time it is asked."""

    version = "2026.9.6"

    async def __aenter__(self) -> Changing:
        await super().__aenter__()
        return self

    def _hello(self) -> Frame:
        return super()._hello() | {"server": {"version": self.version}}

    async def _patch_config(self, connection: StubConnection, request: Frame) -> Frame:
        answer = await super()._patch_config(connection, request)
        await connection.event("config.changed", {})
        return answer

    async def configured(self, tools: Mapping[str, Any]) -> None:
        """Change it, and say so to the sidecar."""
        self.config = {**self.config, "tools": dict(tools)}
        for connection in self.of(""):
            await connection.event("config.changed", {})

    async def updated(self, version: str) -> None:
        self.version = version
        for connection in list(self.connections):
            await connection.socket.close()


@dataclass(frozen=True, slots=True)
class Standing:
    stub: Changing
    sidecar: Sidecar
    provider: IdentityProvider

    async def token(self, user: str) -> str:
        return await self.provider.token_for(user, lifetime=3600)

    async def comes(self, user: str) -> None:
        async with RawClient.connect(self.sidecar.url, {"token": await self.token(user)}):
            pass

    async def asked(self, headers: Mapping[str, str], query: str = "") -> tuple[int, Mapping[str, str], Any]:
        url = f"{self.sidecar.http_url}{PATH}{query}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            return answer.status, answer.headers, await answer.json()

    async def told(self, user: str) -> dict[str, Any]:
        status, headers, body = await self.asked({"Authorization": f"Bearer {await self.token(user)}"})
        assert status == 200
        assert headers["Cache-Control"] == "no-store"
        said: dict[str, Any] = body
        return said


@pytest_asyncio.fixture(scope="module")
async def standing(
    identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    folder = tmp_path_factory.mktemp("status")
    async with (
        Changing() as stub,
        Sidecar(SidecarOptions(folder, stub.gateway(folder), identity_provider.issuer)) as running,
    ):
        yield Standing(stub, running, identity_provider)


async def test_who_was_never_here_is_told_that(standing: Standing) -> None:
    assert await standing.told("nemo") == {
        "userId": "example|nemo",
        "agentId": None,
        "gateway": None,
        "isolation": None,
        "policy": None,
        "usage": None,
        "sidecar": {"version": sidecar.__version__},
    }
    assert standing.stub.of("u-nemo") == []
    assert await standing.told("nemo") == await standing.told("nemo"), "asking makes nothing"


async def test_a_user_is_told_of_themselves(standing: Standing) -> None:
    for user in ("ann", "ben"):
        await standing.comes(user)
    said = await _until(standing, "ann", lambda body: body["isolation"] is not None)
    assert said == {
        "userId": "example|ann",
        "agentId": "u-ann",
        "gateway": {"id": "main", "ready": True, "why": ""},
        "isolation": {"level": "workspace", "weakenedBy": [ONE_PROCESS]},
        "policy": {"gatewayVersion": "2026.9.6", "covered": True, "runs": True},
        "usage": {"unmetered": [way.what for way in WAYS]},
        "sidecar": {"version": sidecar.__version__},
    }
    text = json.dumps(said)
    for word in ("ben", str(standing.stub.gateway(standing.sidecar.options.folder).workspaces), standing.stub.password):
        assert word not in text


async def test_what_opens_the_gateway_is_said(standing: Standing) -> None:
    await standing.comes("ann")
    try:
        await standing.stub.configured(SESSION_TOOLS["open"])
        said = await _until(standing, "ann", lambda body: not body["gateway"]["ready"])
        assert said["gateway"]["why"] == "the gateway is not safe for several people yet; its operator has to close it"
        assert said["isolation"]["level"] == "none"
        assert said["isolation"]["weakenedBy"] == [
            "Agents of this gateway may reach each other's sessions.",
            ONE_PROCESS,
        ]
        assert said["policy"]["runs"] is False
    finally:
        await standing.stub.configured(SESSION_TOOLS["closed"])
        await _until(standing, "ann", lambda body: body["gateway"]["ready"])


async def test_a_version_that_nobody_checked_is_said(standing: Standing) -> None:
    await standing.comes("ann")
    try:
        await standing.stub.updated("2031.1.1")
        said = await _until(
            standing, "ann", lambda body: body["policy"]["gatewayVersion"] == "2031.1.1" and body["gateway"]["ready"]
        )
        assert said["policy"] == {"gatewayVersion": "2031.1.1", "covered": False, "runs": False}
        assert said["gateway"]["why"].endswith("you can read, nothing is run")
        assert said["isolation"]["level"] == "workspace"
        assert any("newer" in line for line in said["isolation"]["weakenedBy"])
    finally:
        await standing.stub.updated("2026.9.6")
        await _until(standing, "ann", lambda body: body["policy"]["runs"])


async def test_a_gateway_that_is_away(standing: Standing) -> None:
    await standing.comes("ann")
    port = standing.stub.port
    await standing.stub.__aexit__()
    try:
        said = await _until(standing, "ann", lambda body: not body["gateway"]["ready"])
        assert said["gateway"] == {"id": "main", "ready": False, "why": "the gateway does not answer"}
        assert said["isolation"] is None
    finally:
        standing.stub.port = port
        await standing.stub.__aenter__()
        await _until(standing, "ann", lambda body: body["gateway"]["ready"])


async def test_who_may_not_ask(standing: Standing) -> None:
    good = await standing.token("ann")
    expired = await standing.provider.token_for("ann", lifetime=1)
    forged = f"{good[:-20]}AAAAAAAAAA{good[-10:]}"
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Bearer {forged}"},
        {"Authorization": f"Basic {good}"},
        {"Authorization": f"Bearer {good} {good}"},
        {"Sec-WebSocket-Protocol": f"openclaw, bearer.{good}"},
        {"Cookie": f"token={good}"},
        {"X-OpenClaw-Token": good},
        {"Authorization": f"Bearer {expired}"},
    ):
        if headers.get("Authorization") == f"Bearer {expired}":
            await _ended(standing, headers)
        status, answered, body = await standing.asked(headers)
        assert status == 401, headers
        assert answered["WWW-Authenticate"] == 'Bearer realm="openclaw"'
        assert body == {
            "error": {
                "code": "UNAUTHORIZED",
                "message": "Sign in, and send your access token as 'Authorization: Bearer <token>'.",
            }
        }
    for query in (f"?token={good}", f"?access_token={good}", f"?x={good}"):
        for headers in ({}, {"Authorization": f"Bearer {good}"}):
            status, _, body = await standing.asked(headers, query)
            assert (status, body["error"]["code"]) == (400, "TOKEN_IN_ADDRESS")
            assert good not in json.dumps(body)
    assert (await standing.asked({"Authorization": f"bearer {good}"}))[0] == 200
    assert good not in standing.sidecar.log


async def test_other_methods_are_not_there(standing: Standing) -> None:
    async with aiohttp.ClientSession() as session:
        for method in ("POST", "PUT", "DELETE"):
            async with session.request(method, standing.sidecar.http_url + PATH) as answer:
                assert answer.status == 405


async def _ended(standing: Standing, headers: Mapping[str, str]) -> None:
    """A token that lives for a second is good for as long as its issuer's clock may differ."""
    async with asyncio.timeout(60):
        while (await standing.asked(headers))[0] == 200:
            await asyncio.sleep(0.5)


async def _until(standing: Standing, user: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while not holds(said := await standing.told(user)):
            await asyncio.sleep(0.05)
    return said
