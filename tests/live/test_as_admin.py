"""What a gateway keeps for admins, users do with their own sessions: through the sidecar's own connection, and nobody else's."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.live.conftest import House
from tests.live.leaks import leaks
from tests.stack.raw import RawClient, RequestError, is_end_of, text_of

pytestmark = pytest.mark.live


@pytest_asyncio.fixture
async def two(house: House) -> AsyncIterator[tuple[RawClient, RawClient, str]]:
    """Alice, who has said something in `main` and in `notes`, bob, and alice's agent."""
    login = f"alice{uuid.uuid4().hex[:8]}"
    async with contextlib.AsyncExitStack() as stack:
        alice = await stack.enter_async_context(house.client(login))
        bob = await stack.enter_async_context(house.client(f"bob{uuid.uuid4().hex[:8]}"))
        for key in ("main", "notes"):
            await alice.chat(key, f"kept words in {key}")
        yield alice, bob, f"u-{login}"


async def said(client: RawClient, key: str) -> list[str]:
    history = await client.request("chat.history", {"sessionKey": key})
    return [text_of(message) for message in history.get("messages", []) if message["role"] != "system"]


ACTS: list[tuple[str, dict[str, Any]]] = [
    ("sessions.reset", {}),
    ("sessions.delete", {}),
    ("sessions.compact", {}),
]


async def test_a_session_of_ones_own_is_emptied(two: tuple[RawClient, RawClient, str]) -> None:
    alice, _, agent = two
    since = len(alice.received)
    done = await alice.request("sessions.reset", {"key": "main", "reason": "new"})
    assert (done["ok"], done["key"]) == (True, f"agent:{agent}:main")
    assert await said(alice, "main") == []
    assert await said(alice, "notes") != [], "the other session stays"
    assert leaks(alice.received[since:], {"owner": "gateway-owner"}) == []


@pytest.mark.parametrize(("command", "notice"), [("/new", "New session started"), ("/reset", "Session reset")])
async def test_a_message_may_say_so(two: tuple[RawClient, RawClient, str], command: str, notice: str) -> None:
    alice, _, _ = two
    assert notice in await alice.chat("main", command)
    assert await said(alice, "main") == []
    assert await alice.chat("main", "and on we go") == "and on we go"


async def test_what_stands_behind_the_command_is_the_first_message(two: tuple[RawClient, RawClient, str]) -> None:
    alice, _, _ = two
    assert "hello again" in await alice.chat("main", "/new hello again")
    words = await said(alice, "main")
    assert not any("kept words" in one for one in words)
    assert any("hello again" in one for one in words)


async def test_a_session_is_deleted(two: tuple[RawClient, RawClient, str]) -> None:
    alice, _, agent = two
    await alice.request("sessions.delete", {"key": "notes"})
    keys = [row["key"] for row in (await alice.request("sessions.list"))["sessions"]]
    assert keys == [f"agent:{agent}:main"]


async def test_another_client_of_the_user_hears_of_it(house: House, two: tuple[RawClient, RawClient, str]) -> None:
    alice, _, agent = two
    async with house.client(agent.removeprefix("u-")) as second:
        await second.request("sessions.subscribe")
        since = len(second.frames)
        await alice.request("sessions.reset", {"key": "main"})
        heard = await second.wait_for(
            lambda frame: (
                frame.get("event") == "sessions.changed" and frame["payload"].get("sessionKey") == f"agent:{agent}:main"
            ),
            since=since,
        )
        assert heard["payload"]["agentId"] == agent


@pytest.mark.parametrize(("method", "more"), ACTS, ids=[method for method, _ in ACTS])
async def test_nobody_elses(two: tuple[RawClient, RawClient, str], method: str, more: dict[str, Any]) -> None:
    alice, bob, agent = two
    for key in (f"agent:{agent}:main", f"AGENT:{agent.upper()}:Main", f"user:{agent.removeprefix('u-')}"):
        with pytest.raises(RequestError) as refused:
            await bob.request(method, {"key": key, **more})
        assert refused.value.detail_code == "FOREIGN_KEY"
    with pytest.raises(RequestError) as refused:
        await bob.request("chat.send", {"sessionKey": f"agent:{agent}:main", "message": "/new"})
    assert refused.value.detail_code == "FOREIGN_KEY"
    assert any("kept words in main" in one for one in await said(alice, "main"))


async def test_a_guest_may_not(house: House) -> None:
    token = await house.identity_provider.token_for(f"guest-{uuid.uuid4().hex[:8]}", lifetime=3600)
    async with RawClient.connect(house.sidecar.url, {"token": token}) as guest:
        assert "sessions.delete" not in guest.hello["features"]["methods"]
        assert guest.hello["auth"]["scopes"] == ["operator.read", "operator.write"]
        assert "hi" in await guest.chat("main", "hi")
        with pytest.raises(RequestError) as refused:
            await guest.request("sessions.delete", {"key": "main"})
        assert refused.value.detail_code == "ROLE_NOT_ALLOWED"
        with pytest.raises(RequestError, match="command /new"):
            await guest.chat("main", "/new")


async def test_each_act_is_audited(house: House, two: tuple[RawClient, RawClient, str]) -> None:
    alice, _, _ = two
    run = uuid.uuid4().hex
    await alice.chat("main", "/new", idempotencyKey=run)
    with pytest.raises(RequestError):
        await alice.request("sessions.delete", {"key": "main"})  # the gateway keeps an agent's main session
    lines = [json.loads(line) for line in house.sidecar.log.splitlines() if '"acted_as_admin"' in line]
    acts = [(line["method"], line["outcome"]) for line in lines]
    assert ("sessions.reset", "ok") in acts
    assert ("sessions.delete", "INVALID_REQUEST") in acts
    ended = await alice.wait_for(is_end_of(run))
    assert ended["payload"]["state"] == "final"
