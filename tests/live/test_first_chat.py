"""Alice and bob chat at once through one gateway, and never meet: both upstream strategies."""

from __future__ import annotations

import asyncio

import pytest

from tests.live.conftest import House
from tests.stack.raw import RawClient, RequestError

pytestmark = pytest.mark.live


@pytest.fixture(params=["house", "token_house"])
def either(request: pytest.FixtureRequest) -> House:
    house: House = request.getfixturevalue(request.param)
    return house


async def test_two_chat_at_once_and_never_meet(either: House) -> None:
    async with either.client("alice") as alice, either.client("bob") as bob:
        for client in (alice, bob):
            await client.request("sessions.subscribe")
        replies = await asyncio.gather(alice.chat("main", "marker-of-alice"), bob.chat("user:bob", "marker-of-bob"))
        assert replies[0].endswith("marker-of-alice")
        assert replies[1].endswith("marker-of-bob")
        for client, own in ((alice, "alice"), (bob, "bob")):
            history = await client.request("chat.history", {"sessionKey": "main"})
            assert f"marker-of-{own}" in str(history)
            listed = await client.request("sessions.list")
            assert [row["key"] for row in listed["sessions"]] == [f"agent:u-{own}:main"]
            agents = await client.request("agents.list")
            assert [row["id"] for row in agents["agents"]] == [f"u-{own}"]
    _nothing_of("alice", bob, either)
    _nothing_of("bob", alice, either)


async def test_a_client_opens_in_its_own_agent(either: House) -> None:
    async with either.client("alice") as alice:
        defaults = alice.hello["snapshot"]["sessionDefaults"]
        assert defaults["mainSessionKey"] == "agent:u-alice:main"
        assert defaults["defaultAgentId"] == "u-alice"
        assert "deviceToken" not in str(alice.hello)
        assert alice.hello["auth"] == {"role": "operator", "scopes": ["operator.read", "operator.write"]}


async def test_sequence_numbers_have_no_gap(either: House) -> None:
    async with either.client("alice") as alice, either.client("bob") as bob:
        await alice.chat("main", "one")
        await bob.chat("main", "two")
        await alice.chat("main", "three")
        for client in (alice, bob):
            assert client.has_no_gap()


@pytest.mark.parametrize("key", ["agent:u-alice:main", "user:alice", "AGENT:U-ALICE:main", "agent:u-alice/:x"])
async def test_foreign_keys_are_refused(house: House, key: str) -> None:
    async with house.client("bob") as bob:
        for method, params in (
            ("chat.history", {"sessionKey": key}),
            ("chat.send", {"sessionKey": key, "message": "x"}),
            ("sessions.describe", {"key": key}),
            ("sessions.messages.subscribe", {"key": key}),
        ):
            with pytest.raises(RequestError) as refused:
                await bob.request(method, params)
            assert refused.value.detail_code == "FOREIGN_KEY"


def _nothing_of(other: str, client: RawClient, house: House) -> None:
    seen = "\n".join(client.received)
    for word in (f"marker-of-{other}", f"u-{other}", str(house.gateway.state_dir), str(house.gateway.workspaces)):
        assert word not in seen
