"""The whole sidecar in this process: however a client goes, no task of its connection stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import sidecar
from sidecar import settings
from sidecar.app import App, serving
from tests.stack.identity_provider import IdentityProvider
from tests.stack.proc import eventually
from tests.stack.process import free_port
from tests.stack.raw import RawClient, RequestError, connect_params
from tests.stack.sidecar import Sidecar, SidecarOptions
from tests.stack.stub_gateway import StubGateway
from tests.wire.peers import RawPeer


@pytest_asyncio.fixture(autouse=True)
async def _loop_as_before() -> AsyncIterator[None]:
    """`serving` sets the loop's exception handler, as the owner of its loop may."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    yield
    loop.set_exception_handler(before)


async def test_no_task_stays(stub: StubGateway, identity_provider: IdentityProvider, tmp_path: Path) -> None:
    outside = asyncio.all_tasks()
    described = Sidecar(SidecarOptions(tmp_path, stub.gateway(tmp_path), identity_provider.issuer))
    described.port, described.metrics_port = free_port(), free_port()
    described.config_path.write_text(described._toml())
    loaded = settings.load(described.config_path, {})
    auth = {"token": await identity_provider.token_for("tia")}
    async with serving(loaded) as app:
        url = app.url.replace("http://", "ws://")
        await _ready(app)
        async with RawClient.connect(url, auth) as client:
            await client.request("models.list")
        await eventually(lambda: app.house.sockets == 0)
        before = len(asyncio.all_tasks())
        for _ in range(3):
            await _come_and_go(url, auth, stub)
        await eventually(lambda: app.house.sockets == 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= before)
    await eventually(lambda: not any(map(_is_the_sidecars, asyncio.all_tasks() - outside)))


def _is_the_sidecars(task: asyncio.Task[object]) -> bool:
    """It stands in the code of the sidecar, not in that of the stub or of this test."""
    return str(Path(sidecar.__file__).parent) in repr(task)


async def _ready(app: App) -> None:
    async def why() -> str:
        return "; ".join([await door.why_not_ready() for door in app.doors.values()])

    async with asyncio.timeout(30):
        while await why():
            await asyncio.sleep(0.02)


async def _come_and_go(url: str, auth: dict[str, str], stub: StubGateway) -> None:
    """Every way to leave once."""
    async with RawClient.connect(url, auth) as polite:
        await polite.request("chat.history", {"sessionKey": "main"})
    async with RawClient.open(url) as stranger:
        with pytest.raises(RequestError):
            await stranger.greet(connect_params({"token": "e30.e30.e30"}))
    for leave_at in ("challenge", "connect", "hello"):
        async with RawPeer.connect(url) as rude:
            request = {"type": "req", "id": "c", "method": "connect", "params": connect_params(auth)}
            if leave_at != "challenge":
                rude.send(1, json.dumps(request).encode())
            while leave_at == "hello" and json.loads((await rude.frame())[1]).get("id") != "c":
                pass
    async with RawClient.connect(url, auth) as deserted:
        await stub.of("u-tia")[-1].socket.close()
        assert await deserted.wait_closed() == 1012
