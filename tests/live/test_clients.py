"""The clients that people have, unmodified, alice's and bob's at once: `@openclaw/gateway-client` and the `openclaw` command."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.live.alarm import NAME, raise_alert
from tests.live.conftest import House
from tests.stack.clients import CommandLine, Finished, GatewayClient
from tests.stack.driver import CommandError
from tests.stack.raw import is_end_of, text_of
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with both clients."""

    name: str
    mark: str
    """Stands in all that they say."""
    client: GatewayClient
    command: CommandLine

    @property
    def agent(self) -> str:
        return f"u-{self.name}"

    async def say(self, message: str, **params: Any) -> tuple[str, list[str]]:
        """One turn of the client; the answer, and the texts of its stream."""
        run, since = uuid.uuid4().hex, len(self.client.events)
        asked = {"sessionKey": "main", "message": message, "idempotencyKey": run, **params}
        await self.client.request("chat.send", asked)
        final = await self.client.wait_for(is_end_of(run), since=since)
        chats = [event["payload"] for event in self.client.events[since:] if event["event"] == "chat"]
        assert {chat["runId"] for chat in chats} == {run}
        deltas = [text_of(chat.get("message") or {}) for chat in chats if chat["state"] == "delta"]
        return text_of(final["payload"]["message"]), deltas

    async def ran(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """What `openclaw gateway call` printed."""
        finished = await self.command.call(method, params)
        assert finished.status == 0, finished
        return finished.json


@pytest_asyncio.fixture(scope="module")
async def people(house: House, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Person, Person]]:
    folder = tmp_path_factory.mktemp("people")
    async with GatewayClient(folder / "a") as one, GatewayClient(folder / "b") as other:
        pair = [await person(house, folder, name, client) for name, client in (("alice", one), ("bob", other))]
        await asyncio.gather(*(each.client.connect(house.sidecar.url, each.command.token) for each in pair))
        yield pair[0], pair[1]


async def person(house: House, folder: Path, name: str, client: GatewayClient) -> Person:
    login = f"{name}{uuid.uuid4().hex[:6]}"
    command = CommandLine(folder / f"cli-{name}", house.sidecar.url, await house.token(login))
    return Person(login, f"mark{uuid.uuid4().hex[:12]}", client, command)


async def test_the_client_chats_streams_lists_and_remembers(people: tuple[Person, Person]) -> None:
    async def use(one: Person) -> None:
        defaults = one.client.hello["snapshot"]["sessionDefaults"]
        assert (defaults["defaultAgentId"], defaults["mainSessionKey"]) == (one.agent, f"agent:{one.agent}:main")
        words = " ".join(f"{one.mark}-{number}" for number in range(12))
        answer, deltas = await one.say(f"[[slow 12 60]] [[reply {words}]]")
        assert answer == words
        assert len(deltas) > 1
        assert all(words.startswith(text) for text in deltas)
        answered = await one.client.request(
            "agent",
            {"sessionKey": "side", "message": f"{one.mark} by agent", "idempotencyKey": uuid.uuid4().hex},
            final=True,
        )
        assert answered["result"]["payloads"][0]["text"].endswith("by agent")
        history = await one.client.request("chat.history", {"sessionKey": f"user:{one.name}"})
        assert words in json.dumps(history["messages"])
        listed = await one.client.request("sessions.list", {})
        assert {row["key"] for row in listed["sessions"]} == {f"agent:{one.agent}:main", f"agent:{one.agent}:side"}

    await asyncio.gather(*map(use, people))
    assert not [state for each in people for state in each.client.states if state["state"] == "gap"]


async def test_the_client_is_told_of_a_limit_that_comes_near(people: tuple[Person, Person], house: House) -> None:
    """It hands an event that no gateway knows to its program like any other; bob hears nothing of it."""
    alice, bob = people
    await raise_alert(house, alice.agent)
    told = await alice.client.wait_for(lambda event: event["event"] == NAME)
    assert told["payload"] == {
        "type": "daily_tokens_90",
        "quota": "daily_tokens",
        "percent": 90,
        "period": told["payload"]["period"],
        "used": 91_000,
        "limit": 100_000,
    }
    for each in people:
        await each.say("hello")
        assert not [state for state in each.client.states if state["state"] == "gap"]
    assert not [event for event in bob.client.events if event["event"] == NAME]


async def test_the_client_stops_a_slow_run(people: tuple[Person, Person]) -> None:
    """Alice's stop ends her own turn, and nobody else's."""
    alice, bob = people

    async def stopped() -> dict[str, Any]:
        run = uuid.uuid4().hex
        asked = {"sessionKey": "main", "message": "[[slow 400 50]] [[long 400]]", "idempotencyKey": run}
        await alice.client.request("chat.send", asked)
        await alice.client.wait_for(lambda event: (event.get("payload") or {}).get("runId") == run)
        await alice.client.request("chat.abort", {"sessionKey": "main", "runId": run})
        return await alice.client.wait_for(is_end_of(run))

    ended, (answer, _) = await asyncio.gather(stopped(), bob.say("[[slow 20 50]] [[long 20]]"))
    assert ended["payload"]["state"] == "aborted"
    assert answer.endswith("w19")


async def test_the_client_is_refused_with_a_sentence(
    people: tuple[Person, Person], house: House, tmp_path: Path
) -> None:
    alice, bob = people
    for method, params in (
        ("chat.history", {"sessionKey": f"agent:{alice.agent}:main"}),
        ("chat.send", {"sessionKey": f"user:{alice.name}", "message": "x", "idempotencyKey": uuid.uuid4().hex}),
        ("sessions.list", {"agentId": alice.agent}),
    ):
        with pytest.raises(CommandError, match=r"is not yours|is not you") as refused:
            await bob.client.request(method, params)
        assert refused.value.detail_code == "FOREIGN_KEY"
    with pytest.raises(CommandError, match="not available here") as closed:
        await bob.client.request("logs.tail")
    assert closed.value.detail_code == "METHOD_NOT_ALLOWED"
    async with GatewayClient(tmp_path) as stranger:
        with pytest.raises(CommandError, match="not a signed access token"):
            await stranger.connect(house.sidecar.url, "wrong")
        assert (await stranger.wait_for_state("paused"))["detailCode"] == "AUTH_TOKEN_MISMATCH", "it does not retry"


async def test_the_command(people: tuple[Person, Person]) -> None:
    async def use(one: Person) -> None:
        health = await one.ran("health")
        assert health["defaultAgentId"] == one.agent
        assert {agent["agentId"] for agent in health["agents"]} <= {one.agent}
        said = await one.command.run("agent", "--session-key", "cli", "--message", f"{one.mark} by hand", "--json")
        assert said.status == 0, said
        assert said.json["result"]["payloads"][0]["text"].endswith(f"{one.mark} by hand")
        run = uuid.uuid4().hex
        asked = {"sessionKey": "cli", "message": f"{one.mark} by call", "idempotencyKey": run}
        assert (await one.ran("chat.send", asked))["runId"] == run
        await one.client.wait_for(is_end_of(run))
        assert f"{one.mark} by call" in json.dumps(await one.ran("chat.history", {"sessionKey": "cli"}))
        keys = {row["key"] for row in (await one.ran("sessions.list"))["sessions"]}
        assert f"agent:{one.agent}:cli" in keys
        assert {key.split(":")[1] for key in keys} == {one.agent}

    await asyncio.gather(*map(use, people))


async def test_the_command_is_refused_with_a_sentence(people: tuple[Person, Person], tmp_path: Path) -> None:
    alice, bob = people
    url = bob.command.url
    forged = f"{bob.command.token[:-20]}AAAAAAAAAA{bob.command.token[-10:]}"
    foreign, wrong, unsigned = await asyncio.gather(
        bob.command.call("chat.history", {"sessionKey": f"agent:{alice.agent}:main"}),
        CommandLine(tmp_path / "wrong", url, "gt_wrong").call("health"),
        CommandLine(tmp_path / "forged", url, forged).call("health"),
    )
    for finished, sentence in (
        (foreign, "that agent is not yours"),
        (wrong, "not a signed access token"),
        (unsigned, "signature is wrong"),
    ):
        assert finished.status != 0
        assert sentence in said_by(finished), finished
        assert bob.command.token not in said_by(finished)


async def test_refusals_of_the_command_can_be_read_by_programs(
    people: tuple[Person, Person], house: House, tmp_path: Path
) -> None:
    """Exit status 1; with `--json` an object on stdout that holds our sentence and, for calls, our code."""
    alice, bob = people
    ended = await house.identity_provider.token_for(alice.name, lifetime=1)
    foreign = {"sessionKey": f"agent:{alice.agent}:main"}
    command = {"sessionKey": "main", "message": "/exec host=gateway", "idempotencyKey": uuid.uuid4().hex}
    closed, history, exec_, agent, key, late = await asyncio.gather(
        bob.command.call("logs.tail"),
        bob.command.call("chat.history", foreign),
        bob.command.call("chat.send", command),
        bob.command.run("agent", "--agent", alice.agent, "--message", "x", "--json"),
        bob.command.run("agent", "--session-key", foreign["sessionKey"], "--message", "x"),
        CommandLine(tmp_path / "late", bob.command.url, ended).call("health"),
    )
    for finished, code, sentence in (
        (closed, "METHOD_NOT_ALLOWED", "the method 'logs.tail' is not available here"),
        (history, "FOREIGN_KEY", "that agent is not yours"),
        (
            exec_,
            "COMMAND_NOT_ALLOWED",
            "the command /exec is not available here; to write about it, leave out the slash",
        ),
        (late, "AUTH_IDENTITY_HEADER_REQUIRED", "Your sign-in has ended: sign in again."),
    ):
        assert finished.status == 1
        error = finished.json["error"]
        assert (error["message"], error["details"]["code"], error["retryable"]) == (sentence, code, False)
    assert (agent.status, agent.json["ok"], agent.json["error"]["message"]) == (1, False, "that agent is not yours")
    assert (key.status, key.stdout, key.stderr.strip()) == (1, "", "that agent is not yours")


async def test_the_agent_command_answers_prints_and_waits_its_turn(people: tuple[Person, Person]) -> None:
    """Two users at once; alice, three of whose turns run, is told so until one of them has ended."""
    alice, bob = people
    busy = [uuid.uuid4().hex for _ in range(3)]
    for number, run in enumerate(busy):
        asked = {"sessionKey": f"busy{number}", "message": "[[slow 900 100]] [[long 900]]", "idempotencyKey": run}
        await alice.client.request("chat.send", asked)

    def asked_by(one: Person) -> tuple[str, ...]:
        return "agent", "--session-key", "printed", "--message", f"[[reply {one.mark} printed]]"

    refused, printed = await asyncio.gather(*(one.command.run(*asked_by(one)) for one in people))
    assert (refused.status, refused.stdout) == (1, "")
    assert refused.stderr.startswith("3 of your turns are running, which is as many as may run at once;")
    assert (printed.status, printed.stdout.strip()) == (0, f"{bob.mark} printed")
    for number, run in enumerate(busy):
        await alice.client.request("chat.abort", {"sessionKey": f"busy{number}", "runId": run})
        await alice.client.wait_for(is_end_of(run))
    answered = await alice.command.run(*asked_by(alice))
    assert (answered.status, answered.stdout.strip()) == (0, f"{alice.mark} printed"), answered


def said_by(finished: Finished) -> str:
    return finished.stdout + finished.stderr


async def test_nothing_of_the_other_came_to_either(people: tuple[Person, Person], house: House) -> None:
    """After all of the above."""
    for one, other in (people, reversed(people)):
        seen = "\n".join(one.client.received)
        assert one.mark in seen
        for word in (other.mark, other.name, house.gateway.password, str(house.gateway.state_dir)):
            assert word not in seen


async def test_clients_come_back_by_themselves(
    house: House, tmp_path_factory: pytest.TempPathFactory, people: tuple[Person, Person]
) -> None:
    """Through a restart and a crash of the sidecar, on the same port; sessions are where they were."""
    folder = tmp_path_factory.mktemp("restarted")
    sidecar = Sidecar(SidecarOptions(folder, house.gateway, house.identity_provider.issuer))
    alice = people[0]
    async with sidecar, GatewayClient(folder / "client") as client:
        await client.connect(sidecar.url, alice.command.token)
        for end in (sidecar.stop, sidecar.kill):
            hellos = len(client.states)
            await end()
            await client.wait_for_state("closed", since=hellos)
            await sidecar.start()
            await client.wait_for_state("hello", since=hellos)
            history = await client.request("chat.history", {"sessionKey": "main"})
            assert alice.mark in json.dumps(history)
            again = Person(alice.name, alice.mark, client, alice.command)
            assert (await again.say("and on it goes"))[0].endswith("on it goes")
