"""The hostile matrix of `sidecar doctor --attack`, fought by agents of real users through the echo model."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.doctor.attack.ground import LINES, Ground
from sidecar.doctor.attack.matrix import Attack, Way, judged_by_harm, marks, matrix, not_offered, replies, won
from sidecar.doctor.gather import tools_of
from tests.stack.gateway import Gateway
from tests.stack.model import EchoModel
from tests.stack.raw import RawClient

TURN_WAYS: tuple[Way, ...] = ("direct", "tool_call")
CALLS_A_TURN = 24
TURN_S = 120.0
TRIES = 3


@dataclass(frozen=True)
class Place:
    """One alice and one bob on one gateway, and how bob's agent is told what to do."""

    gateway: Gateway
    model: EchoModel
    admin: RawClient
    client: RawClient
    """Who tells bob's agent."""

    ground: Ground

    def workspace(self, agent: str) -> Path:
        return Path(self.ground.workspace(agent))

    async def tell(self, message: str) -> tuple[str, list[tuple[str, str]]]:
        """Bob's agent obeys, in a session of its own: its key, and what its tools returned, in order."""
        key = f"agent:{self.ground.attacker}:{uuid.uuid4().hex}"
        await self.client.chat(key, message, timeout=TURN_S)
        calls = [call for call in self.model.calls if call.turn.session == key]
        return key, max((call.turn.results for call in calls), key=len, default=[])

    async def hers(self) -> str:
        """All that alice has: her sessions and what is in them, and her files."""
        rows = (await self.admin.request("sessions.list", {"agentId": self.ground.victim, "limit": 200}))["sessions"]
        histories = [await self.admin.request("chat.history", {"sessionKey": row["key"]}) for row in rows]
        files = (file for file in self.workspace(self.ground.victim).rglob("*") if ".git" not in file.parts)
        contents = [f"{file.name} {file.read_text(errors='replace')}" for file in files if file.is_file()]
        return "\n".join([json.dumps([rows, histories]), *contents])

    async def catalogue(self) -> list[str]:
        return tools_of(await self.admin.request("tools.catalog", {"agentId": self.ground.attacker}))


@dataclass(frozen=True)
class Fought:
    """What became of every attack: (tool, attack, way) → did it do harm, and what the tool said."""

    harm: dict[tuple[str, str, Way], bool]
    said: dict[tuple[str, str, Way], str]
    reply_attached: dict[str, bool]

    def harmed(self, attack: Attack) -> bool:
        return any(self.harm[attack.tool, attack.name, way] for way in TURN_WAYS)

    def reached(self, attack: Attack) -> bool:
        """Did the tool answer at all?"""
        return any(not not_offered(self.said[attack.tool, attack.name, way]) for way in TURN_WAYS)


async def fight(place: Place) -> Fought:
    """All attacks of the matrix, directly and by `tool_call`."""
    plan = [(attack, way) for attack in matrix(await place.catalogue()) for way in TURN_WAYS]
    mark = marks(plan)
    said: dict[tuple[str, str, Way], str] = {}
    gentle = [pair for pair in plan if not pair[0].ends_turn]
    batches: list[Sequence[tuple[Attack, Way]]] = [
        gentle[at : at + CALLS_A_TURN] for at in range(0, len(gentle), CALLS_A_TURN)
    ]
    batches += [[pair] for pair in plan if pair[0].ends_turn]
    for batch in batches:
        said |= await _tried(place, batch, mark)
    await asyncio.sleep(1)
    hers = await place.hers()
    harm = {
        (attack.tool, attack.name, way): won(
            attack,
            place.ground,
            said[attack.tool, attack.name, way],
            left=mark[attack.tool, attack.name, way] in hers,
        )
        for attack, way in plan
    }
    return Fought(harm, said, await _replied(place))


async def _tried(
    place: Place, batch: Sequence[tuple[Attack, Way]], mark: Mapping[tuple[str, str, Way], str]
) -> dict[tuple[str, str, Way], str]:
    """What the tools said. A gateway ends a turn early when its configuration changes meanwhile: the rest is told again."""
    said: dict[tuple[str, str, Way], str] = {}
    for _ in range(TRIES):
        left = batch[len(said) :]
        keys = [(attack.tool, attack.name, way) for attack, way in left]
        calls = [
            _call(attack, way, attack.arguments(place.ground, mark[key]))
            for key, (attack, way) in zip(keys, left, strict=True)
        ]
        _, results = await place.tell(_directives(calls))
        assert [name for name, _ in results] == [name for name, _ in calls[: len(results)]]
        said |= {key: text for key, (_, text) in zip(keys, results, strict=False)}
        if len(said) == len(batch):
            return said
    raise AssertionError(f"each call is made, and answered; not {[name for name, _ in calls[len(results) :]]}")


def _call(attack: Attack, way: Way, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return (attack.tool, arguments) if way == "direct" else ("tool_call", {"id": attack.tool, "args": arguments})


def _directives(calls: Sequence[tuple[str, dict[str, Any]]]) -> str:
    words = [f"[[{'also' if index else 'tool'} {name} {json.dumps(args)}]]" for index, (name, args) in enumerate(calls)]
    return " ".join([*words, "[[reply done]]"])


async def _replied(place: Place) -> dict[str, bool]:
    """What an agent says may attach a file: (what it tries) → was it attached?"""
    attached = {}
    for name, reply in replies(place.ground):
        key, _ = await place.tell(f"[[reply {reply}]]")
        for _ in range(15):  # the file is fetched after the turn
            last = (await place.admin.request("chat.history", {"sessionKey": key}))["messages"][-1]
            kinds = {block["type"] for block in last["content"]}
            if kinds != {"text"}:
                break
            await asyncio.sleep(0.2)
        attached[name] = bool(kinds & {"image", "attachment"})
    return attached


def lay_link(place: Place) -> None:
    """Left over from a time when bob's agent had a shell, say."""
    own = place.workspace(place.ground.attacker)
    own.mkdir(parents=True, exist_ok=True)
    (own / "link").symlink_to(place.ground.her_folder)


def kept_file(ground: Ground) -> str:
    return "\n".join([*LINES, ground.kept, ""])


def uncontrolled(fought: Fought, attacks: Sequence[Attack]) -> dict[str, str]:
    """Attacks that won from no open agent: `tool: attack` → `answered` where at least the tool was there, else `not offered`."""
    by_harm = judged_by_harm(attacks)
    lacking = {}
    for attack in attacks:
        if fought.harmed(attack) or (attack.tool not in by_harm and fought.reached(attack)):
            continue
        lacking[f"{attack.tool}: {attack.name}"] = "answered" if fought.reached(attack) else "not offered"
    return lacking
