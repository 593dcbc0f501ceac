"""The calls of `examples.toml`, and whether an answer holds something of somebody."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live.leaks import leaks
from tests.live.matrix.belongings import DIARY, FRESH, settled
from tests.live.matrix.person import PATIENCE_S, Person, filled, new_names
from tests.policy.people import TABLE
from tests.stack.raw import RawClient, RequestError

SOURCE = Path(__file__).with_name("examples.toml")
WAIT_S = 0.5
"""So long one waits for what is answered only once somebody else did something."""


@dataclass(frozen=True, slots=True)
class Example:
    """One call of one method; the head of `examples.toml` explains the words."""

    method: str
    params: Mapping[str, Any]
    fresh: str = ""
    file: str = ""
    sees: tuple[str, Mapping[str, Any]] | None = None
    watches: bool = False
    refused: str = ""
    since: str = ""
    until: str = ""
    waits: bool = False

    def holds_for(self, version: str) -> bool:
        row = TABLE.methods[self.method]
        since, until = self.since or row.since, self.until or row.until
        return not (since and _month(version) < _month(since)) and not (until and _month(version) >= _month(until))


def _month(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def examples(version: str) -> list[Example]:
    """Those that a gateway of `version` has."""
    read = tomllib.loads(SOURCE.read_text())
    said = [Example(**{**one, "sees": tuple(one["sees"]) if "sees" in one else None}) for one in read["example"]]
    said += [Example(method, params) for method, params in read["answered"].items()]
    return [one for one in said if one.holds_for(version)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one call. `error` is the gateway's, or ours; empty where it was obeyed."""

    ok: bool
    payload: Any = None
    error: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return json.dumps(self.payload if self.ok else dict(self.error), ensure_ascii=False)

    @property
    def told(self) -> str:
        """In a line, for people."""
        return self.text[:300]


async def called(client: RawClient, method: str, params: Mapping[str, Any], timeout: float = PATIENCE_S) -> Answer:
    """Raises TimeoutError."""
    try:
        return Answer(True, await client.request(method, params, timeout=timeout))
    except RequestError as error:
        return Answer(False, error=error.error)


async def insisted(client: RawClient, method: str, params: Mapping[str, Any]) -> Answer:
    """The same; again while the gateway says that the session is at work, or changed under its hands."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await called(client, method, params)
            if answer.ok or not _BUSY.search(answer.text):
                return answer
            await asyncio.sleep(0.1)


_BUSY = re.compile(r"while the agent is working|still running|still active|is active|retry the request", re.IGNORECASE)


async def names_for(example: Example, owner: Person) -> dict[str, Any]:
    """What the example's names stand for, with what it uses up made anew."""
    names = owner.known | new_names()
    if example.fresh:
        names |= await FRESH[example.fresh](owner)
    if example.file:
        owner.workspace.joinpath(example.file).write_text(DIARY.format(mark=owner.mark("dream")))
    if "{hash}" in json.dumps(example.params):
        read = {"sessionKey": names["notes"], "path": names["file"]}
        names["hash"] = (await owner.bare.request("sessions.files.get", read))["file"]["hash"]
    return names


async def seen(example: Example, owner: Person, names: Mapping[str, Any]) -> str:
    """What shows a change, without what changes by itself."""
    assert example.sees is not None
    method, params = example.sees
    row = TABLE.methods.get(method)
    asking = owner.admin if row is not None and row.as_admin else owner.bare
    answer = await called(asking, method, filled(dict(params), names))
    return json.dumps(lasting(answer.payload if answer.ok else dict(answer.error)), sort_keys=True)


PASSING = re.compile(
    r"ts|ageMs|.*(At|AtMs|Ms|Tokens|Revision|Cost|Usd)|.*[Ee]xpires.*|hot|ticket|viewTicket.*|url|frameUrl"
)


def lasting(value: Any) -> Any:
    """`value` without times, counts of tokens and the like, which pass by themselves."""
    if isinstance(value, dict):
        return {name: lasting(one) for name, one in value.items() if not PASSING.fullmatch(name)}
    return [lasting(one) for one in value] if isinstance(value, list) else value


async def run_ended(example: Example, owner: Person, answer: Answer) -> None:
    """Wait for the run that the call started, if it started one, so that few are alive at once."""
    if TABLE.methods[example.method].starts_run and isinstance(answer.payload, dict):
        named = (answer.payload.get(name) for name in ("sessionKey", "key"))
        await settled(owner, next((key for key in named if key), owner.known["notes"]))


def tells(answer: Answer, words: Mapping[str, str], said: Any) -> list[str]:
    """The words that stand in the answer and that the caller did not say."""
    request = json.dumps(said, ensure_ascii=False)
    return leaks([answer.text], {place: word for place, word in words.items() if word not in request})
