"""`openclaw tui`, unmodified, in two terminals at once, and what alice and bob see in them.

One after the other: each test goes on where the one before it left the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.live.alarm import NAME, raise_alert
from tests.live.conftest import House
from tests.live.leaks import leaks
from tests.live.own_house import own_house
from tests.stack.clients import CommandLine
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.process import StackError
from tests.stack.terminal import Terminal

pytestmark = [pytest.mark.live, pytest.mark.deep]

START_S = 90.0
"""It takes some seconds of processor time to start, and several start at once."""

SIGNED_OUT = "Your sign-in has ended: sign in again."

GOODBYES = {
    "sidecar, SIGTERM": "the service restarts",
    "sidecar, SIGKILL": "closed",
    "gateway, SIGTERM": "the connection to the gateway was lost",
    "gateway, SIGKILL": "the connection to the gateway was lost",
}
"""What stops, and how, and what a terminal shows of it at first."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody at a terminal."""

    name: str
    mark: str
    """Begins all that they say."""
    terminal: Terminal

    @property
    def agent(self) -> str:
        return f"u-{self.name}"

    async def say(self, word: str) -> str:
        """One turn, from the keyboard to the answer on the screen; the screen then.

        A terminal that came back leaves a line unsent while it reads its history again (2026.9.6): one presses Enter again.
        """
        await self.terminal.enter(f"[[reply {self.mark}-{word}]]")
        for _ in range(2):
            with contextlib.suppress(StackError):
                return await self.terminal.wait_for(f"]] {self.mark}-{word} connected | idle", timeout=20)
            await self.terminal.press("enter")
        return await self.terminal.wait_for(f"]] {self.mark}-{word} connected | idle")

    async def stands_in(self, session: str, *texts: str) -> str:
        """The screen once that session stands there with its history, and the texts are in it."""
        heading = f"session agent:{self.agent}:{session}"
        return await self.terminal.wait_for(
            f"agent {self.agent} | session {session}", "connected | idle", heading, *texts
        )


@dataclass(frozen=True, slots=True)
class Room:
    house: House
    folder: Path
    alice: Person
    bob: Person
    leaving: Terminal
    """Alice's second terminal, with a token that ends soon."""
    leaves_at: float

    @property
    def both(self) -> tuple[Person, Person]:
        return self.alice, self.bob

    async def terminal(self, name: str, token: str) -> Terminal:
        return await tui(self.house, self.folder / uuid.uuid4().hex[:8], token)


async def tui(house: House, folder: Path, token: str) -> Terminal:
    return await CommandLine(folder, house.sidecar.url, token).terminal("tui")


@pytest_asyncio.fixture(scope="module")
async def room(
    model: EchoModel, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Room]:
    folder = tmp_path_factory.mktemp("tui")
    async with own_house(folder / "house", model, identity_provider) as house, AsyncExitStack() as terminals:
        alice, bob = (f"{name}{uuid.uuid4().hex[:6]}" for name in ("alice", "bob"))
        clock = asyncio.get_running_loop().time
        began = clock()
        opened = [await tui(house, folder / name, await house.token(name)) for name in (alice, bob)]
        for terminal in opened:
            await terminals.enter_async_context(terminal)
        await asyncio.gather(*(terminal.wait_for("gateway connected | idle", timeout=START_S) for terminal in opened))
        life = round(3 * (clock() - began) + 10)  # longer than it takes to start, here and now
        leaving = await tui(house, folder / "leaving", await identity_provider.token_for(alice, lifetime=life))
        ends = clock() + life
        await terminals.enter_async_context(leaving)
        people = [
            Person(name, f"mark{uuid.uuid4().hex[:12]}", at) for name, at in zip((alice, bob), opened, strict=False)
        ]
        yield Room(house, folder, people[0], people[1], leaving, ends)


async def test_both_chat_and_each_sees_their_own(room: Room) -> None:
    async def use(one: Person) -> None:
        await one.stands_in("main")
        for word in ("one", "two"):
            shown = await one.say(word)
        assert f"session agent:{one.agent}:main" in shown
        assert f"{one.mark}-one" in shown

    await asyncio.gather(*map(use, room.both))
    assert room.bob.name not in room.alice.terminal.raw
    assert room.alice.name not in room.bob.terminal.raw


async def test_sessions_are_opened_listed_and_chosen(room: Room) -> None:
    async def use(one: Person) -> None:
        at = one.terminal
        await at.enter("/session side")
        assert f"{one.mark}-one" not in await one.stands_in("side")
        await one.say("aside")
        await at.enter("/new")
        await at.wait_for(f"new session: agent:{one.agent}:tui-", timeout=15)
        await one.say("anew")
        await at.enter("/sessions")
        shown = await at.wait_for("Filter:", f"{one.mark}-two", f"{one.mark}-aside", f"{one.mark}-anew")
        rows = shown[shown.index("Filter:") :].splitlines()[2:]
        assert len([row for row in rows if row.strip()]) == 3
        await at.type("side")
        await at.wait_for("Filter: > side", "→ side")
        await at.press("enter")
        await at.wait_gone("Filter:")
        await one.stands_in("side", f"{one.mark}-aside")
        await at.enter("/reset")
        await at.wait_for(f"session agent:{one.agent}:side reset")
        await at.wait_gone(f"{one.mark}-aside")
        await at.enter("/session main")
        await one.stands_in("main", f"{one.mark}-two")

    await asyncio.gather(*map(use, room.both))


async def test_escape_stops_ones_own_turn(room: Room) -> None:
    alice, bob = room.both
    words = " ".join(f"{alice.mark}-s{number}" for number in range(20))
    answer = " ".join(f"{bob.mark}-s{number}" for number in range(30))
    await alice.terminal.enter(f"[[slow 20 1500]] [[reply {words}]]")
    await bob.terminal.enter(f"[[slow 30 100]] [[reply {answer}]]")
    await alice.terminal.wait_for(f"]] {alice.mark}-s0 {alice.mark}-s1")
    await bob.terminal.wait_for(f"]] {bob.mark}-s0 {bob.mark}-s1")
    await alice.terminal.press("escape")
    await alice.terminal.wait_for("run aborted", "connected | aborted")
    await bob.terminal.wait_for(f"]] {answer} connected | idle")
    said = (await alice.say("after")).partition(f"]] {alice.mark}-s0")[2]
    assert f"{alice.mark}-s1" in said
    assert f"{alice.mark}-s19" not in said


async def test_what_is_refused_is_said(room: Room) -> None:
    alice, bob = room.both
    await bob.terminal.enter("/exec host=gateway security=full")
    await bob.terminal.wait_for(
        "send failed: the command /exec is not available here; to write about it, leave out the slash"
    )
    await bob.terminal.enter("/gateway-status")
    await bob.terminal.wait_for("status failed: the method 'status' is not available here")
    await bob.terminal.enter(f"/session agent:{alice.agent}:main")
    await bob.terminal.wait_for("history failed: that agent is not yours", "connected | idle")
    await bob.terminal.enter(f"[[reply {bob.mark}-abroad]]")
    await bob.terminal.wait_for("send failed: that agent is not yours", "connected | error")
    await bob.terminal.enter(f"/session agent:{bob.agent}:main")
    await bob.stands_in("main")
    await bob.say("at home")
    assert f"{bob.mark}-abroad" not in await alice.say("alone")


async def test_too_many_turns_are_refused(room: Room) -> None:
    """Three run elsewhere: the fourth is told so, and comes through once one of them has ended."""
    alice, bob = room.both
    async with room.house.client(bob.name) as elsewhere:
        for number in range(3):
            asked = {"message": f"[[slow 600 100]] [[long 600]] {bob.mark}", "idempotencyKey": uuid.uuid4().hex}
            await elsewhere.request("chat.send", {"sessionKey": f"busy{number}", **asked})
        await bob.terminal.enter(f"[[reply {bob.mark}-fourth]]")
        await bob.terminal.wait_for("send failed: 3 of your turns are running, which is as many as may run at once;")
        await alice.say("not bothered")
        for number in range(3):
            await elsewhere.request("chat.abort", {"sessionKey": f"busy{number}"})
        assert f"{bob.mark}-in time" in await bob.say("in time")


async def test_a_limit_that_comes_near_disturbs_nobody(room: Room) -> None:
    """The terminal has no place for an event that no gateway sends, and goes on (2026.9.6)."""
    async with room.house.client(room.alice.name) as beside:
        await raise_alert(room.house, room.alice.agent)
        await beside.wait_for(lambda frame: frame.get("event") == NAME)
    for one in room.both:
        assert NAME not in await one.say("undisturbed")


async def test_a_token_that_ends(room: Room) -> None:
    """The terminal is cut off, says so and tries no more; alice's other one and bob's are open as before."""
    left = room.leaves_at - asyncio.get_running_loop().time()
    await room.leaving.wait_for(f"gateway disconnected: {SIGNED_OUT}", timeout=max(left, 0) + 30)
    assert "gateway disconnected: the sign-in has ended" in "\n".join(room.leaving.seen), "it was open until then"
    assert f"agent u-{room.alice.name} " in room.leaving.text
    refused = room.house.sidecar.log.count('"token_rejected"')
    await room.leaving.enter("is anybody there")
    await room.leaving.wait_for("not connected to gateway — message not sent")
    await asyncio.gather(room.alice.say("still here"), room.bob.say("still here"))
    assert room.house.sidecar.log.count('"token_rejected"') == refused, "it came again"
    for _ in range(2):
        await room.leaving.press("ctrl-c")
        await asyncio.sleep(0.5)
    assert await room.leaving.ended() == 0


async def test_who_may_not_come_in_reads_why(room: Room) -> None:
    """With no token, an ended one, and, for comparison, a new one: alice's history stands there again."""
    ended = await room.house.identity_provider.token_for(room.alice.name, lifetime=1)
    wrong, late, again = [
        await tui(room.house, room.folder / uuid.uuid4().hex[:8], token)
        for token in ("gt_wrong", ended, await room.house.token(room.alice.name))
    ]
    async with wrong, late, again:
        await asyncio.gather(
            wrong.wait_for("gateway disconnected: This is not a signed access token (JWT)", timeout=START_S),
            late.wait_for(f"gateway disconnected: {SIGNED_OUT}", timeout=START_S),
            again.wait_for("gateway connected | idle", f"{room.alice.mark}-two", timeout=START_S),
        )
        for terminal in (wrong, late):
            assert room.alice.name not in terminal.raw


@pytest.mark.parametrize("what", GOODBYES)
async def test_both_come_back_by_themselves(room: Room, what: str) -> None:
    """With their history, and with the turn that went on meanwhile."""
    thing, how = what.split(", ")
    broken = room.house.sidecar if thing == "sidecar" else room.house.gateway
    words = {one.name: f"{one.mark}-{thing[0]}{how[-1]}" for one in room.both}
    await asyncio.gather(*(one.say(f"before {what}") for one in room.both))
    if thing == "sidecar":
        for one in room.both:
            await one.terminal.enter(
                f"[[slow 20 100]] [[reply {' '.join(f'{words[one.name]}{n}' for n in range(20))}]]"
            )
        await asyncio.gather(*(one.terminal.wait_for(f"]] {words[one.name]}0") for one in room.both))
    await (broken.stop() if how == "SIGTERM" else broken.kill())
    await asyncio.gather(*(one.terminal.wait_for("gateway disconnected: ") for one in room.both))
    for one in room.both:
        assert f"gateway disconnected: {GOODBYES[what]}" in "\n".join(one.terminal.seen)
    await broken.start()

    async def back(one: Person) -> None:
        await one.terminal.wait_for("gateway reconnected", "| idle", timeout=60)
        if thing == "sidecar":
            await one.terminal.wait_for(f"{words[one.name]}18 {words[one.name]}19")
        shown = await one.say(f"after {what}")
        assert f"{one.mark}-before {what}" in shown

    await asyncio.gather(*map(back, room.both))


async def test_nothing_of_the_other_was_on_a_screen(room: Room) -> None:
    """Not for a moment, in all of the above."""
    for one, other in (room.both, room.both[::-1]):
        wrote = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", one.terminal.raw)
        texts = [one.terminal.raw, wrote, *one.terminal.seen]
        words = {
            "mark": other.mark,
            "password": room.house.gateway.password,
            "folder": str(room.house.gateway.state_dir),
        }
        assert leaks(texts, {"own mark": one.mark}), "looked in the wrong place"
        assert not leaks(texts, words)
