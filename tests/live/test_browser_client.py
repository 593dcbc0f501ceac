"""`@openclaw/gateway-client` in pages of a real browser, alice's and bob's at once, and through restarts in node beside them.

The page is ours (`tests/stack/client_page.mjs`), since the package leaves socket, token and display to whoever embeds it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.live.alarm import NAME, raise_alert
from tests.live.conftest import House
from tests.live.leaks import leaks
from tests.live.own_house import own_house
from tests.stack.chromium import Chromium, Page
from tests.stack.clients import GatewayClient
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.pages import PAGE, bundled, site
from tests.stack.process import free_port
from tests.stack.raw import is_end_of, text_of

pytestmark = [pytest.mark.live, pytest.mark.deep]

SHORT_LIFE_S = 20
SIGNED_OUT = "Your sign-in has ended: sign in again."
NOT_A_TOKEN = "This is not a signed access token (JWT): sign in again, or check what the client sends."


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a page open, and a program in node."""

    name: str
    mark: str
    """Begins all that they say."""
    page: Page
    node: GatewayClient

    @property
    def agent(self) -> str:
        return f"u-{self.name}"

    async def say(self, word: str) -> str:
        """One turn in the page; what it shows then."""
        await self.page.type("#say", f"[[reply {self.mark}-{word}]]")
        await self.page.press_enter()
        return await self.page.wait_for(f"assistant: {self.mark}-{word}")

    async def say_in_node(self, word: str) -> None:
        run, since = uuid.uuid4().hex, len(self.node.events)
        asked = {"sessionKey": "program", "message": f"[[reply {self.mark}-{word}]]", "idempotencyKey": run}
        await self.node.request("chat.send", asked)
        ended = await self.node.wait_for(is_end_of(run), since=since, timeout=60)
        assert text_of(ended["payload"]["message"]) == f"{self.mark}-{word}"

    async def go_to(self, session: str) -> None:
        await self.page.type("#session", session)
        await self.page.press_enter()


@dataclass(frozen=True, slots=True)
class Room:
    house: House
    chromium: Chromium
    origin: str
    """Of pages that may connect."""
    stranger: str
    """Of the same pages, where they may not."""
    alice: Person
    bob: Person

    @property
    def both(self) -> tuple[Person, Person]:
        return self.alice, self.bob

    async def page(self, token: str, *, origin: str = "", carrier: str = "auth") -> Page:
        """A page that was told to connect."""
        return await connecting(await self.chromium.open(f"{origin or self.origin}/"), self.house, token, carrier)


async def connecting(page: Page, house: House, token: str, carrier: str) -> Page:
    await page.evaluate(f"start({json.dumps({'url': house.sidecar.url, 'token': token, 'carrier': carrier})})")
    return page


@pytest_asyncio.fixture(scope="module")
async def room(
    model: EchoModel, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Room]:
    folder = tmp_path_factory.mktemp("browser")
    async with AsyncExitStack() as stack:
        bundle = await bundled(PAGE, folder / "bundle")
        origin, stranger = [await stack.enter_async_context(site(bundle, free_port())) for _ in range(2)]
        standing = own_house(folder / "house", model, identity_provider, origins=[origin])
        house = await stack.enter_async_context(standing)
        chromium = await stack.enter_async_context(Chromium(folder / "chromium"))
        people = []
        for name, carrier in (("alice", "auth"), ("bob", "subprotocol")):
            login = f"{name}{uuid.uuid4().hex[:6]}"
            token = await house.token(login)
            node = await stack.enter_async_context(GatewayClient(folder / name))
            page = await connecting(await chromium.open(f"{origin}/"), house, token, carrier)
            people.append(Person(login, f"mark{uuid.uuid4().hex[:12]}", page, node))
            await node.connect(house.sidecar.url, token)
            await page.wait_for("ready")
        yield Room(house, chromium, origin, stranger, *people)


async def test_both_chat_and_each_sees_their_own(room: Room) -> None:
    async def use(one: Person) -> None:
        await one.say("one")
        shown = await one.say("two")
        assert f"assistant: {one.mark}-one" in shown
        hello = next(json.loads(frame) for frame in one.page.frames if '"hello-ok"' in frame)
        assert hello["payload"]["snapshot"]["sessionDefaults"]["mainSessionKey"] == f"agent:{one.agent}:main"
        await one.say_in_node("beside")

    await asyncio.gather(*map(use, room.both))


async def test_sessions_are_opened_and_listed(room: Room) -> None:
    async def use(one: Person) -> None:
        await one.go_to(f"agent:{one.agent}:side")
        await one.page.wait_gone(f"{one.mark}-one")
        await one.say("aside")
        await one.page.click("#list")
        listed = f"sessions: agent:{one.agent}:main agent:{one.agent}:program agent:{one.agent}:side"
        assert listed in (await one.page.wait_for(listed)).splitlines(), "and no other"
        await one.go_to(f"agent:{one.agent}:main")
        await one.page.wait_for(f"assistant: {one.mark}-two")

    await asyncio.gather(*map(use, room.both))


async def test_stop_ends_ones_own_turn(room: Room) -> None:
    alice, bob = room.both
    answer = " ".join(f"{bob.mark}-s{number}" for number in range(30))
    words = " ".join(f"{alice.mark}-s{number}" for number in range(200))
    for one, say in ((alice, f"[[slow 200 100]] [[reply {words}]]"), (bob, f"[[slow 30 100]] [[reply {answer}]]")):
        await one.page.type("#say", say)
        await one.page.press_enter()
    await alice.page.wait_for(f"assistant: {alice.mark}-s0 {alice.mark}-s1")
    await bob.page.wait_for(f"assistant: {bob.mark}-s0 {bob.mark}-s1")
    await alice.page.click("#stop")
    await alice.page.wait_for("note: stopped")
    await bob.page.wait_for(f"assistant: {answer}")
    said = (await alice.say("after")).rpartition(f"assistant: {alice.mark}-s0")[2].partition("note: stopped")[0]
    assert f"{alice.mark}-s1" in said
    assert f"{alice.mark}-s199" not in said


async def test_a_limit_that_comes_near_is_told_to_the_page(room: Room) -> None:
    """As an event like any other, without a number of its own, so that the client sees no gap."""
    await raise_alert(room.house, room.alice.agent)
    await room.alice.node.wait_for(lambda event: event["event"] == NAME)
    async with asyncio.timeout(20):
        while not any(f'"event":"{NAME}"' in frame for frame in room.alice.page.frames):
            await asyncio.sleep(0.1)
    for one in room.both:
        await one.say("undisturbed")
    assert not any(NAME in frame for frame in room.bob.page.frames)


async def test_what_is_refused_is_said(room: Room) -> None:
    alice, bob = room.both
    await bob.go_to(f"agent:{alice.agent}:main")
    await bob.page.wait_for("refused: that agent is not yours (FOREIGN_KEY)")
    await bob.page.type("#say", f"{bob.mark}-abroad")
    await bob.page.press_enter()
    await bob.page.wait_for(f"user: {bob.mark}-abroad\nrefused: that agent is not yours (FOREIGN_KEY)")
    await bob.go_to(f"agent:{bob.agent}:main")
    await bob.page.type("#say", "/exec host=gateway security=full")
    await bob.page.press_enter()
    await bob.page.wait_for("refused: the command /exec is not available here", "(COMMAND_NOT_ALLOWED)")
    assert f"{bob.mark}-abroad" not in await alice.page.text()


@pytest.mark.parametrize("carrier", ["auth", "subprotocol"])
async def test_who_may_not_come_in_reads_why(room: Room, carrier: str) -> None:
    """A page that is told so stops, and does not come again."""
    late = await room.house.identity_provider.token_for(room.alice.name, lifetime=1)
    await asyncio.sleep(1.5)
    for token, sentence in (("gt_wrong", NOT_A_TOKEN), (late, SIGNED_OUT)):
        page = await room.page(token, carrier=carrier)
        await page.wait_for(f"stopped: {sentence}")
        await asyncio.sleep(1)
        assert len(page.frames) == 2, "one challenge, one answer"


async def test_a_page_of_another_origin_is_refused(room: Room) -> None:
    """With alice's good token: the browser learns no more than that it was refused, and nothing came to the page."""
    page = await room.page(await room.house.token(room.alice.name), origin=room.stranger)
    await page.wait_for("away: 1006")
    assert any("Unexpected response code: 403" in line for line in page.console)
    assert not page.frames
    assert not page.sent


async def test_a_token_that_ends(room: Room) -> None:
    """The page and the program are cut off, say so and stop; alice's others are open as before."""
    token = await room.house.identity_provider.token_for(room.alice.name, lifetime=SHORT_LIFE_S)
    page = await room.page(token)
    async with GatewayClient(room.house.sidecar.options.folder / "leaving") as node:
        await node.connect(room.house.sidecar.url, token)
        await page.wait_for("ready", f"{room.alice.mark}-two")
        await page.wait_for(f"stopped: {SIGNED_OUT}", timeout=SHORT_LIFE_S + 30)
        paused = await node.wait_for_state("paused", timeout=SHORT_LIFE_S + 30)
        closed = await node.wait_for_state("closed")
    assert (closed["code"], closed["reason"]) == (1008, "the sign-in has ended")
    assert paused["detailCode"] == "AUTH_IDENTITY_HEADER_REQUIRED"
    assert sum('"connect.challenge"' in frame for frame in page.frames) in {2, 3}, (
        "it tried again once it ended, and no more"
    )
    await asyncio.gather(room.alice.say("still here"), room.alice.say_in_node("still here"))


@pytest.mark.parametrize("what", ["sidecar, SIGTERM", "sidecar, SIGKILL", "gateway, SIGTERM", "gateway, SIGKILL"])
async def test_both_come_back_by_themselves(room: Room, what: str) -> None:
    """Pages and programs, with their history, and no gap in the numbering."""
    thing, how = what.split(", ")
    broken: Any = room.house.sidecar if thing == "sidecar" else room.house.gateway
    states = {one.name: len(one.node.states) for one in room.both}
    await (broken.stop() if how == "SIGTERM" else broken.kill())
    for one in room.both:
        await one.page.wait_for("away: ")
        await one.node.wait_for_state("closed", since=states[one.name])
    await broken.start()

    async def back(one: Person) -> None:
        await one.page.wait_for("ready", f"assistant: {one.mark}-two")
        await one.node.wait_for_state("hello", since=states[one.name], timeout=60)
        await asyncio.gather(one.say(f"after {what}"), one.say_in_node(f"after {what}"))

    await asyncio.gather(*map(back, room.both))
    for one in room.both:
        assert "gap: " not in await one.page.text()
        assert not [state for state in one.node.states if state["state"] == "gap"]


async def test_nothing_of_the_other_came_to_either(room: Room) -> None:
    """In all of the above."""
    gateway = room.house.gateway
    for one, other in (room.both, room.both[::-1]):
        for texts in ([*one.page.frames, *one.page.console, await one.page.text()], one.node.received):
            assert leaks(texts, {"own mark": one.mark}), "looked in the wrong place"
            words = {
                "mark": other.mark,
                "name": other.name,
                "password": gateway.password,
                "folder": str(gateway.state_dir),
            }
            assert not leaks(texts, words)
