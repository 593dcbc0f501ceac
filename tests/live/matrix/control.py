"""What a call does where no sidecar is: the control, without which an attack that fails proves nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.live.matrix.examples import Answer, Example, called, insisted, lasting, names_for, run_ended, seen, tells
from tests.live.matrix.person import Person, filled, new_names
from tests.policy.people import TABLE

QUIET_S = 0.3


async def obeyed(example: Example, owner: Person) -> str:
    """Call it with one's own things, through the sidecar; what is wrong, or nothing."""
    names = await names_for(example, owner)
    params = filled(dict(example.params), names)
    try:
        answer = await asyncio.wait_for(insisted(owner.client, example.method, params), 1.0 if example.waits else 60.0)
    except TimeoutError:
        return "" if example.waits else "no answer"
    await run_ended(example, owner, answer)
    if example.refused:
        wanted = str(answer.error.get("message", "")).startswith(example.refused)
        return "" if wanted else f"was to be refused: {answer.told}"
    return "" if answer.ok else answer.told


async def controlled(example: Example, owner: Person, other: Person) -> tuple[bool, str]:
    """Let `other` call it at the gateway itself with what is the owner's: whether it told or changed something, and how, or what
    came instead."""
    names = await names_for(example, owner)
    params = filled(dict(example.params), names)
    asking = other.admin if TABLE.methods[example.method].as_admin else other.bare
    before = await seen(example, owner, names) if example.sees else ""
    since = len(other.bare.received)
    try:
        answer = await asyncio.wait_for(insisted(asking, example.method, params), 1.0 if example.waits else 60.0)
    except TimeoutError:
        return False, "no answer"
    if answer.ok:
        await run_ended(example, owner, answer)
    told = tells(answer, owner.words(), params)
    if told:
        return True, f"told {told[0]}"
    if example.sees and answer.ok and await seen(example, owner, names) != before:
        return True, "changed"
    if example.watches:
        return await _watched(owner, other, since), answer.told
    return await _same(example, owner, other, answer, params), answer.told


async def _watched(owner: Person, other: Person, since: int) -> bool:
    word = owner.mark("watched")
    await owner.chat("notes", word)
    await asyncio.sleep(QUIET_S)
    return any('"session.message"' in text and word in text for text in other.bare.received[since:])


async def _same(example: Example, owner: Person, other: Person, answer: Answer, params: dict[str, Any]) -> bool:
    """Did `other` get what the owner gets, and is that another thing than what `other` gets for themselves?"""
    if not answer.ok or example.fresh or example.sees:
        return False
    hers = await called(owner.bare, example.method, params)
    his = await called(other.bare, example.method, filled(dict(example.params), other.known | new_names()))
    got, wanted, beside = (_impersonal(one, owner, other) for one in (answer, hers, his))
    return got == wanted != beside


def _impersonal(answer: Answer, *people: Person) -> str:
    text = json.dumps(lasting(answer.payload if answer.ok else dict(answer.error)), sort_keys=True)
    for one in people:
        for word in sorted((str(value) for value in one.words().values()), key=len, reverse=True):
            text = text.replace(word, "…")
    return text
