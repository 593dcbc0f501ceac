"""The leak matrix: every open method, with everything of alice's in every place that could name it.

    own        alice calls it with what is hers, through the sidecar: the row works
    control    bob calls it at the gateway itself with what is hers: he is told, or changes it, so that a refusal proves something
    attack     bob calls it through the sidecar with what is hers, in all places at once and in each alone: he is told nothing, and
               at the end all that she has is as it was; and so with every other parameter that any method has (`matrix/handles.py`)

Methods without a control are listed in `matrix/uncontrolled.txt`; a list that is not the true one fails.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.policy.schema import Schema, read_schema
from tests.live.conftest import House
from tests.live.leaks import leaks
from tests.live.matrix.belongings import everything, left
from tests.live.matrix.control import controlled, obeyed
from tests.live.matrix.examples import Answer, Example, called, examples, lasting, tells
from tests.live.matrix.handles import passing
from tests.live.matrix.person import CAPS, PATIENCE_S, Person, filled, new_names, person
from tests.policy.people import TABLE
from tests.stack.gateway import USER_SCOPES, Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.node import ensure_packages
from tests.stack.raw import RawClient
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

VERSIONS = ("2026.9.6", "2026.8.2")
ORIGIN = "http://127.0.0.1:8080"
TOOLS = ["read", "write", "edit", "apply_patch", "sessions_spawn", "ask_user"]
OWN_PROFILE = "about one's own profile"
UNCONTROLLED = Path(__file__).parent / "matrix" / "uncontrolled.txt"
AT_ONCE = 6
BEFORE_SLOW = 40
"""A connection that is denied more often than this is answered slowly."""


@dataclass(frozen=True, slots=True)
class Scene:
    version: str
    house: House
    alice: Person
    bob: Person


@pytest_asyncio.fixture(scope="module", params=[VERSIONS[0], pytest.param(VERSIONS[1], marks=pytest.mark.deep)])
async def scene(
    request: pytest.FixtureRequest,
    model: EchoModel,
    identity_provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scene]:
    """Alice and bob have one of everything."""
    version: str = request.param
    folder = tmp_path_factory.mktemp("matrix")
    options = GatewayOptions(folder / "gateway", model.url, version=version, allowed_origins=[ORIGIN])
    async with Gateway(options) as gateway:
        settings: dict[str, dict[str, Any]] = {
            "server": {"public_url": ORIGIN},
            "environments": {"root": str(gateway.workspaces), "tools_allow": TOOLS},
            "quota": {"concurrent_runs": 0},
        }
        async with (
            Sidecar(SidecarOptions(folder / "sidecar", gateway, identity_provider.issuer, settings)) as sidecar,
            RawClient.admin(gateway) as admin,
        ):
            house = House(gateway, model, identity_provider, sidecar)
            async with person(house, version, "alicek", admin) as alice, person(house, version, "bobk", admin) as bob:
                try:
                    await asyncio.gather(everything(alice), everything(bob))
                    yield Scene(version, house, alice, bob)
                finally:
                    await asyncio.gather(left(alice), left(bob))


@pytest_asyncio.fixture(scope="module")
async def schema() -> Schema:
    package = (await ensure_packages()) / "node_modules" / "@openclaw" / "gateway-protocol"
    return read_schema((package / "protocol.schema.json").read_bytes())


async def test_every_method_works_with_what_is_ones_own(scene: Scene) -> None:
    wrong = {}
    for example in examples(scene.version):
        if what := await obeyed(example, scene.alice):
            wrong[f"{example.method} {json.dumps(dict(example.params))}"] = what
    assert wrong == {}


def places(template: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in an example's parameters something of somebody's stands."""
    if isinstance(template, Mapping):
        for name, value in template.items():
            yield from places(value, (*at, name))
    elif isinstance(template, list):
        for index, value in enumerate(template):
            yield from places(value, (*at, index))
    elif isinstance(template, str) and "{" in template and not set(template.split("{")[1].split("}")[0:1]) & ANEW:
        yield at


ANEW = {"new", "other", "now"}


def with_one(params: Any, place: tuple[str | int, ...], theirs: Any, *, beside: bool = False) -> Any:
    """`params` with what stands in `theirs` at this place; `beside`: in a list, behind what stands there."""
    if not place:
        return theirs
    if isinstance(params, list):
        index = int(place[0])
        changed = [*params]
        changed[index] = with_one(params[index], place[1:], theirs[index], beside=beside)
        return [params[index], *changed] if beside and len(place) == 1 else changed
    return {**params, place[0]: with_one(params[place[0]], place[1:], theirs[place[0]], beside=beside)}


async def attacks(example: Example, alice: Person, bob: Person) -> list[dict[str, Any]]:
    """What bob may send: all of hers, one thing of hers among his own, and one of hers behind one of his in a list."""
    template, fresh = dict(example.params), new_names()
    hers = filled(template, {"hash": "0" * 64} | alice.known | fresh)
    his = filled(template, {"hash": "0" * 64} | bob.known | fresh)
    found = [hers]
    for place in places(template):
        found.append(with_one(his, place, hers))
        if place and isinstance(place[-1], int):
            found.append(with_one(his, place, hers, beside=True))
    return [one for at, one in enumerate(found) if one not in found[:at] and one != his]


async def state_of(one: Person) -> str:
    """All that she has, as the gateway's admin sees it, and her files."""
    asked: list[tuple[str, dict[str, Any]]] = [
        ("sessions.list", {"agentId": one.slug, "limit": 200}),
        *(
            ("chat.history", {"sessionKey": one.known[name]})
            for name in ("main", "notes", "session", "branched", "goal_key")
        ),
        ("board.get", {"sessionKey": one.known["board_key"]}),
        ("cron.list", {"agentId": one.slug, "includeDisabled": True}),
        ("tasks.list", {"agentId": one.slug}),
        ("question.list", {}),
        ("exec.approval.list", {}),
        ("plugin.approval.list", {}),
        ("taskSuggestions.list", {"agentId": one.slug}),
        ("agents.files.list", {"agentId": one.slug}),
    ]
    shown = []
    for method, params in asked:
        answer = await called(one.admin, method, params)
        shown.append(json.dumps(lasting(_of(one, answer)), sort_keys=True))
    files = sorted(path for path in one.workspace.rglob("*") if path.is_file() and ".git" not in path.parts)
    return "\n".join([*shown, *(f"{path.name}: {path.read_bytes()!r}" for path in files)])


def _of(one: Person, answer: Answer) -> Any:
    """Of lists that hold everybody's, the rows that name her."""
    if not answer.ok:
        return dict(answer.error)
    rows = answer.payload.get("questions", answer.payload) if isinstance(answer.payload, dict) else answer.payload
    return [row for row in rows if one.slug in json.dumps(row)] if isinstance(rows, list) else rows


async def test_nothing_of_hers_is_told_or_changed(scene: Scene) -> None:
    alice, bob = scene.alice, scene.bob
    known = examples(scene.version)
    waiting = [(example, params) for example in known for params in await attacks(example, alice, bob)]
    assert len(waiting) > 150
    await nothing_is_told_or_changed(scene, waiting)
    assert leaks(bob.client.received, secrets_of(alice)) == [], "nor by an event"


async def test_nor_by_where_she_stopped_reading(scene: Scene) -> None:
    """A cursor is the gateway's own: it must not lead on in her list for whoever shows it."""
    alice, bob = scene.alice, scene.bob
    replayed = list[tuple[Example, dict[str, Any]]]()
    for example in examples(scene.version):
        if "cursor" in TABLE.methods[example.method].params:
            hers = await called(alice.client, example.method, filled({**example.params, "limit": 1}, alice.known))
            his = filled({**example.params, "limit": 50}, bob.known)
            replayed += [(example, {**his, "cursor": cursor}) for cursor in cursors(hers.payload)]
    assert len({example.method for example, _ in replayed}) >= 3, [example.method for example, _ in replayed]
    await nothing_is_told_or_changed(scene, replayed)


def cursors(payload: Any) -> list[str | int]:
    """Whatever is called so."""
    if isinstance(payload, list):
        return [found for one in payload for found in cursors(one)]
    if not isinstance(payload, dict):
        return []
    here = [value for name, value in payload.items() if "cursor" in name.lower() and isinstance(value, (str, int))]
    return here + cursors(list(payload.values()))


async def nothing_is_told_or_changed(
    scene: Scene, waiting: list[tuple[Example, dict[str, Any]]], words: Mapping[str, str] | None = None
) -> None:
    """`words`: hers that bob does not say himself, where he may find his own words in what is his."""
    alice, bob, told = scene.alice, scene.bob, list[str]()
    before = await state_of(alice)

    async def attack() -> None:
        while waiting:
            async with scene.house.client(bob.login, caps=list(CAPS), scopes=list(USER_SCOPES)) as client:
                for _ in range(BEFORE_SLOW):
                    if not waiting:
                        return
                    example, params = waiting.pop()
                    told.extend(await attacked(client, example, params, words or alice.words()))

    await asyncio.gather(*(attack() for _ in range(AT_ONCE)))
    assert told == [], "\n".join(told)
    assert await state_of(alice) == before
    assert leaks(bob.client.received, alice.marks) == [], "nor by an event of what nobody but her has said"


async def attacked(client: RawClient, example: Example, params: dict[str, Any], words: Mapping[str, str]) -> list[str]:
    try:
        answer = await called(client, example.method, params, 1.0 if example.waits else PATIENCE_S)
    except TimeoutError:
        return [] if example.waits else [f"{example.method}: no answer"]
    found = tells(answer, words, params)
    return [f"{example.method} {json.dumps(params)}: {found} in {answer.told}"] if found else []


def secrets_of(one: Person) -> dict[str, str]:
    return {place: str(word) for place, word in one.words().items() if len(str(word)) >= 8}


NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "fork of a foreign session": ("sessions.create", {"agentId": "{his}", "fork": True, "parentSessionKey": "{notes}"}),
    "foreign parent": ("sessions.create", {"agentId": "{his}", "parentSessionKey": "{notes}"}),
    "a foreign workspace as a project": ("sessions.create", {"agentId": "{his}", "projectId": "workspace:{agent}"}),
    "a foreign folder": ("sessions.create", {"agentId": "{his}", "cwd": "{workspace}"}),
    "waiting for a foreign run": ("agent.wait", {"runId": "{run}", "timeoutMs": 1000}),
    "ending a foreign run": ("chat.abort", {"runId": "{live_run}"}),
    "ending a foreign session's run": ("sessions.abort", {"key": "{live_key}"}),
    "spawned by": ("sessions.list", {"spawnedBy": "{main}"}),
    "everybody's usage": ("usage.cost", {"agentScope": "all"}),
    "everybody's sessions' usage": ("sessions.usage", {"agentScope": "all"}),
    "everybody's sessions": ("sessions.search", {"query": "findme", "scope": {}}),
    "no key but an empty list": ("sessions.search", {"query": "findme", "sessionKeys": []}),
    "a session by its id": ("sessions.resolve", {"sessionId": "{session_id}"}),
    "a session by its label": ("sessions.resolve", {"label": "{label}"}),
    "a message by its id": ("chat.history", {"sessionKey": "main", "sessionId": "{session_id}", "messageId": "{message}"}),
    "upper case": ("chat.history", {"sessionKey": "AGENT:{AGENT}:NOTES"}),
    "a tab before": ("chat.history", {"sessionKey": "\t{notes}"}),
    "Kelvin for k": ("chat.history", {"sessionKey": "{kelvin}"}),
    "a phantom agent": ("chat.history", {"sessionKey": "agent:{agent}/:notes"}),
    "zero width": ("chat.history", {"sessionKey": "agent:{agent}\u200b:notes"}),
    "percent": ("chat.history", {"sessionKey": "agent%3A{agent}%3Anotes"}),
    "full width": ("chat.history", {"sessionKey": "agent：{agent}：notes"}),
    "global": ("chat.history", {"sessionKey": "global"}),
    "unknown": ("chat.history", {"sessionKey": "unknown"}),
    "an automation": ("chat.history", {"sessionKey": "cron:{cron}"}),
    "an automation in full": ("chat.history", {"sessionKey": "{cron_key}"}),
    "a sub-agent": ("chat.history", {"sessionKey": "{child}"}),
    "a file above": ("agents.workspace.get", {"path": "../../{agent}/workspace/{file}"}),
    "a file by its place": ("sessions.files.get", {"sessionKey": "main", "path": "{workspace}/{file}"}),
    "sent media": ("chat.send", {"sessionKey": "main", "message": "see", "attachments": [{"type": "f", "url": "{media}"}]}),
    "a list with one of hers": ("sessions.preview", {"keys": ["main", "{notes}"]}),
    "an object with one of hers": (
        "sessions.patchMany",
        {"targets": [{"key": "main"}, {"key": "{notes}"}], "patch": {"label": "x"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
async def test_named_cases(scene: Scene, case: str) -> None:
    alice, bob = scene.alice, scene.bob
    names = alice.known | {
        "his": bob.slug,
        "AGENT": alice.slug.upper(),
        "label": alice.mark("notes-label"),
        "kelvin": alice.known["notes"].replace("k", "\u212a"),
    }
    method, template = NAMED[case]
    params = filled(dict(template), names)
    before = await state_of(alice)
    async with scene.house.client(bob.login, caps=list(CAPS), scopes=list(USER_SCOPES)) as client:
        answer = await called(client, method, params)
        assert tells(answer, alice.words(), params) == []
        unsaid = {place: word for place, word in alice.marks.items() if word not in json.dumps(params)}
        assert leaks(client.received, unsaid) == []
    assert await state_of(alice) == before


async def test_an_id_that_a_stranger_used_first_is_ones_own_again(scene: Scene) -> None:
    """A run under the id of somebody's running one is another run; nobody's is joined, ended or made to fail."""
    alice, bob = scene.alice, scene.bob
    run = alice.known["live_run"]
    assert "mine" in await bob.chat("first-come", "[[reply mine]]", idempotencyKey=run)
    waited = await called(alice.client, "agent.wait", {"runId": run, "timeoutMs": 300})
    assert waited.ok
    assert waited.payload["status"] == "timeout", "hers goes on"
    shared = "first-come-first-served"
    assert "bob" in await bob.chat("first-come", "[[reply bob]]", idempotencyKey=shared)
    assert "alice" in await alice.chat("first-come", "[[reply alice]]", idempotencyKey=shared)


async def test_nothing_is_told_or_changed_by_any_other_parameter(scene: Scene, schema: Schema) -> None:
    """After the others, since bob writes her ids into what is his."""
    found, stopped = passing(examples(scene.version), schema, scene.alice, scene.bob)
    assert len(found) > 300
    assert stopped["PARAM_NOT_ALLOWED"] > 10_000
    assert stopped.keys() == {"PARAM_NOT_ALLOWED", "MALFORMED_FRAME", "FOREIGN_KEY", "dropped"}
    await nothing_is_told_or_changed(scene, found, scene.alice.marks)


@pytest.mark.deep
async def test_each_method_has_a_control(scene: Scene) -> None:
    """Last, since what is shown to be possible is done to her."""
    found, instead = set[str](), dict[str, str]()
    for example in examples(scene.version):
        if example.method in found or TABLE.methods[example.method].answer is not None:  # of those no gateway is asked
            continue
        shown, how = await controlled(example, scene.alice, scene.bob)
        if shown:
            found.add(example.method)
        instead[example.method] = how
    print("\n".join(f"{method}: {how}" for method, how in instead.items()))
    without = {f"{scene.version} {method}" for method in instead.keys() - found}
    listed = {line: why for line, why in uncontrolled().items() if line.startswith(f"{scene.version} ")}
    assert without <= listed.keys()
    # Of one's own profile a gateway tells what one wrote into it, which may be the other's words.
    assert {line for line in listed.keys() - without if listed[line] != OWN_PROFILE} == set()


def uncontrolled() -> dict[str, str]:
    """`<version> <method>` of each line, and why."""
    lines = [line.split(maxsplit=2) for line in UNCONTROLLED.read_text().splitlines() if not line.startswith("#")]
    assert all(len(line) == 3 for line in lines), "and why"
    assert len({tuple(line[:2]) for line in lines}) == len(lines)
    return {" ".join(line[:2]): line[2] for line in lines}


def test_only_methods_of_the_table_are_without_control() -> None:
    """Each once, and none that no gateway is asked."""
    lines = list(uncontrolled())
    assert sorted(lines) == lines
    known = {example.method for version in VERSIONS for example in examples(version)}
    assert {line.split()[1] for line in lines} <= {method for method in known if TABLE.methods[method].answer is None}
