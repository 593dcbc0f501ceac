"""The same way through the oldest gateway that the policy table covers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.live.conftest import House
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import RequestError
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

ORIGIN = "http://127.0.0.1:8080"
"""A new device is approved by this version only for a page of an origin that it allows."""


@pytest_asyncio.fixture(scope="module")
async def older(
    model: EchoModel, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("older")
    options = GatewayOptions(
        folder=folder / "gateway", model_url=model.url, version="2026.8.2", allowed_origins=[ORIGIN]
    )
    async with (
        Gateway(options) as gateway,
        Sidecar(
            SidecarOptions(
                folder / "sidecar", gateway, identity_provider.issuer, settings={"server": {"public_url": ORIGIN}}
            )
        ) as sidecar,
    ):
        yield House(gateway, model, identity_provider, sidecar)


async def test_two_chat_and_never_meet(older: House) -> None:
    async with older.client("alice") as alice, older.client("bob") as bob:
        for client in (alice, bob):
            await client.request("sessions.subscribe")
        replies = await asyncio.gather(alice.chat("main", "marker-of-alice"), bob.chat("main", "marker-of-bob"))
        assert replies[0].endswith("marker-of-alice")
        assert replies[1].endswith("marker-of-bob")
        assert "marker-of-alice" in str(await alice.request("chat.history", {"sessionKey": "main"}))
        listed = await bob.request("sessions.list")
        assert [row["key"] for row in listed["sessions"]] == ["agent:u-bob:main"]
        with pytest.raises(RequestError) as refused:
            await bob.request("chat.history", {"sessionKey": "agent:u-alice:main"})
        assert refused.value.detail_code == "FOREIGN_KEY"
        for client, other in ((alice, "bob"), (bob, "alice")):
            seen = "\n".join(client.received)
            assert f"marker-of-{other}" not in seen
            assert f"u-{other}" not in seen
            assert client.has_no_gap()
