"""The ledger before the older version, which tells of calls in another way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.live.conftest import House
from tests.live.test_usage import (
    broken_off,
    chat,
    metered_again,
    new_login,
    settled,
    stopped_unseen,
    turns_shown_to_nobody,
    until_asked,
)
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.process import free_port
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = [pytest.mark.live, pytest.mark.deep]

SETTINGS = {"environments": {"tools_allow": ["read", "write"]}}


@pytest_asyncio.fixture(scope="module")
async def older(
    model: EchoModel, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("older-usage")
    port = free_port()
    origins = [f"http://127.0.0.1:{port}"]
    options = GatewayOptions(folder / "gateway", model.url, version="2026.8.2", allowed_origins=origins)
    async with (
        Gateway(options) as gateway,
        Sidecar(SidecarOptions(folder / "sidecar", gateway, identity_provider.issuer, SETTINGS, port=port)) as sidecar,
    ):
        yield House(gateway, model, identity_provider, sidecar)


async def test_calls_tools_and_a_fork(older: House) -> None:
    login, agent = new_login()
    async with older.client(login) as alice:
        await alice.chat("main", "hello [[cached 40]]")
        await alice.chat("main", '[[tool read {"path": "none.txt"}]]')
        await settled(older, agent, lambda found: len(found) == 3)
        fork = await alice.request("sessions.create", {"parentSessionKey": "main", "fork": True})
        await alice.chat(fork["key"], "in the fork")
    assert len(await settled(older, agent, lambda found: len(found) == 4)) == 4


async def test_what_nobody_heard_is_read_from_the_transcripts(older: House) -> None:
    login, agent = new_login()
    async with older.client(login) as alice:
        await alice.chat("main", "hello")
        await alice.request("chat.send", chat("main", "[[long 20]][[slow 20 60]]"))
        await older.sidecar.kill()
    await asyncio.sleep(3)
    await older.sidecar.start()
    assert {row["source"] for row in await settled(older, agent, lambda found: len(found) == 2)} == {"message"}


@pytest.mark.parametrize("message", ["[[wait 20000]] hello", "[[long 200]][[slow 100 40]]"])
async def test_an_answer_that_is_stopped(older: House, message: str) -> None:
    """Two messages tell of it where there were words already: it is one call all the same, also when they are read again."""
    login, agent = new_login()
    async with older.client(login) as alice:
        await alice.chat("main", "hello")
        run = (await alice.request("chat.send", chat("main", message)))["runId"]
        await until_asked(older, agent, 2)
        await asyncio.sleep(2)
        await alice.request("chat.abort", {"sessionKey": "main", "runId": run})
    before = await broken_off(older, agent)
    await metered_again(older)
    assert await broken_off(older, agent) == before


async def test_answers_that_the_gateway_shows_to_nobody(older: House) -> None:
    login, agent = new_login()
    async with older.client(login) as alice:
        await alice.chat("main", "hello")
        await turns_shown_to_nobody(alice)
        found = await settled(older, agent, lambda found: len(found) >= 5)
    await metered_again(older)
    assert len(await settled(older, agent)) == len(found)


async def test_one_that_is_stopped_while_nobody_looks_on(older: House) -> None:
    _, estimate = await stopped_unseen(older)
    assert estimate["tokens_output"] > 10
