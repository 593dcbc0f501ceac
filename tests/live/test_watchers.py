"""Bob watches while alice works, with everything that a client may do, and the other way round.

Nothing of the one is in what the other receives, in what the sidecar's HTTP shows, or in its log; and all of it is in what a
stranger gets who stands at the gateway itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from sidecar.policy.table import Table
from sidecar.protocol.device import Device
from sidecar.protocol.session_events import SESSION_SCOPED
from sidecar.storage.seal import load_seal
from tests.live.conftest import House
from tests.live.direct import direct
from tests.live.leaks import leaks
from tests.live.person import CAPS, PLACES, SCOPES, Person, new_marks
from tests.live.prying import Outcome, connected, kinds_of, pry
from tests.live.stranger import Stranger, pages, stranger
from tests.policy.people import TABLE
from tests.stack.gateway import Gateway, GatewayOptions, Mode
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.node import CACHE
from tests.stack.raw import RawClient, RequestError, connect_params
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

ORIGIN = "http://127.0.0.1:8080"
HOUSE: tuple[str, Mode] = ("2026.9.6", "trusted-proxy")
OTHER_HOUSES: tuple[tuple[str, Mode], ...] = (("2026.9.6", "token"), ("2026.8.2", "trusted-proxy"))
TOOLS = ["read", "write", "edit", "apply_patch", "sessions_spawn", "ask_user"]

NO_CONTROL = {"heartbeat", "preference"}
"""Places of which a stranger at the bare gateway hears nothing either, nor their owner through the sidecar: woken by hand an agent
says nothing (on 2026.8.2 it sometimes does), and preferences are told to their profile alone, which asks for them."""

PATHS = (
    *("/", "/healthz", "/readyz", "/metrics", "/ws", "/control-ui-config.json", "/v1/models", "/api/sessions", "/logs"),
    *("/api/openclaw/status", "/sessions/{key}/history", "/avatar/{agent}", "/chat/{agent}/main"),
    *("/__openclaw__/workspace-icon/{key}", "/__openclaw__/assistant-media?source=media://inbound/{file}"),
)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b(?:ask_)?[0-9a-f]{32}\b")
_PROFILE = re.compile(r'"\w*[pP]rofileId":"([^"]+)"')


@dataclass(frozen=True)
class Scene:
    house: House
    name: str
    table: Table
    alice: Person
    bob: Person
    stranger: Stranger
    outcomes: tuple[Outcome, Outcome]

    @property
    def is_older(self) -> bool:
        return self.house.gateway.options.version.startswith("2026.8")

    def untold(self, told: set[str]) -> set[str]:
        """Places not ``told``, less those that a gateway of this version tells or doesn't, as it happens."""
        return set(PLACES) - told - ({"heartbeat"} if self.is_older else set())

    @property
    def no_control(self) -> set[str]:
        return NO_CONTROL - ({"heartbeat"} if self.is_older else set())

    @property
    def pairs(self) -> tuple[tuple[Person, Person], tuple[Person, Person]]:
        return (self.alice, self.bob), (self.bob, self.alice)


@pytest_asyncio.fixture(
    scope="module",
    params=[HOUSE, *(pytest.param(one, marks=pytest.mark.deep) for one in OTHER_HOUSES)],
    ids=["-".join(one) for one in (HOUSE, *OTHER_HOUSES)],
)
async def scene(
    request: pytest.FixtureRequest,
    model: EchoModel,
    identity_provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scene]:
    """Both have worked, and pried, at the same time."""
    version, mode = request.param
    folder = tmp_path_factory.mktemp("watched")
    options = GatewayOptions(folder / "gateway", model.url, mode, version, allowed_origins=[ORIGIN])
    async with Gateway(options) as gateway:
        settings = SidecarOptions(
            folder / "sidecar",
            gateway,
            identity_provider.issuer,
            settings={
                "server": {"public_url": ORIGIN, "drain_seconds": 1},
                "environments": {"root": str(gateway.workspaces), "tools_allow": TOOLS},
                "quota": {"concurrent_runs": 12},
            },
        )
        async with Sidecar(settings) as sidecar, contextlib.AsyncExitStack() as stack:
            house = House(gateway, model, identity_provider, sidecar)
            yield await acted(house, f"{version} {mode}", stack)


async def acted(house: House, name: str, stack: contextlib.AsyncExitStack) -> Scene:
    alice, bob = await asyncio.gather(*(somebody(house, one, stack) for one in ("anna", "bert")))
    table = TABLE.without_profiles() if house.gateway.token else TABLE
    admin = await stack.enter_async_context(RawClient.admin(house.gateway))
    own = [await stack.enter_async_context(own_device(house, one)) for one in (alice, bob)]
    strange = await stack.enter_async_context(stranger(house.gateway))
    await strange.listen(alice, bob)
    await asyncio.gather(*(one.begin(admin, device) for one, device in zip((alice, bob), own, strict=True)))
    closed = [method for method in admin.hello["features"]["methods"] if method not in table.methods]

    def prying(one: Person) -> contextlib.AbstractAsyncContextManager[RawClient]:
        return connected(house.sidecar.url, one, scopes=list(SCOPES))

    outcomes = await asyncio.gather(
        pry(alice, bob, table, closed, prying),
        pry(bob, alice, table, closed, prying),
        alice.work(admin),
        bob.work(admin),
    )
    await strange.ask(alice, bob)
    await asyncio.gather(alice.end(admin), bob.end(admin))
    await strange.ask(alice, bob)
    return Scene(house, name, table, alice, bob, strange, (outcomes[0], outcomes[1]))


async def somebody(house: House, name: str, stack: contextlib.AsyncExitStack) -> Person:
    """Who works in one client, and watches in others: one of each kind that gets other events."""
    login = f"{name}{uuid.uuid4().hex[:8]}"
    token, marks = await house.token(login), new_marks()

    async def client(kind: str = "gateway-client", mode: str = "backend", caps: Iterable[str] = CAPS) -> RawClient:
        who = {"id": kind, "version": "1.0.0", "platform": "linux", "mode": mode, "displayName": marks["client-name"]}
        params: dict[str, Any] = {"client": who, "caps": list(caps), "scopes": list(SCOPES)}
        return await stack.enter_async_context(RawClient.connect(house.sidecar.url, {"token": token}, **params))

    workspace = house.gateway.workspaces / f"u-{login}" / "workspace"
    one = Person(login, token, await client(), workspace, house.gateway.options.version, marks=marks)
    one.others += [
        await client(caps=()),
        await client(caps=[*CAPS, SESSION_SCOPED]),
        await client("openclaw-tui", "ui", [*CAPS, "ui-commands", "inline-widgets"]),
    ]
    if not house.gateway.token:  # a browser's client needs its `Origin`, which a shared token does not go with
        one.others.append(await client("webchat-ui", "webchat"))
    for watcher in one.others:
        await watcher.request("sessions.subscribe")
        await watcher.request("sessions.messages.subscribe", {"key": "main", "includeApprovals": True})
        await watcher.request("sessions.viewers.set", {"sessionKeys": ["main"]})
        await watcher.request("sessions.observer.visibility", {"visible": True})
    return one


@contextlib.asynccontextmanager
async def own_device(house: House, one: Person) -> AsyncIterator[RawClient]:
    """The user at the gateway itself, by the device that the sidecar shows for them: as a plugin of theirs would be."""
    seal = load_seal(house.sidecar.options.folder / "data", "")
    async with direct(house.gateway, one.slug, device=Device.derive(seal, "main", one.slug)) as client:
        yield client


# --- what nobody else may see -----------------------------------------------------------------------------------------------


def words_of(one: Person) -> dict[str, str]:
    return {
        **one.marks,
        **{f"id of {kind}": value for kind, value in one.ids.items()},
        **{f"run {at}": run for at, run in enumerate(one.runs)},
        "login": one.login,
        "workspace": str(one.workspace),
    }


def ids_in(texts: Iterable[str]) -> set[str]:
    return {found for text in texts for found in _ID.findall(text)}


def ids_of(one: Person, other: Person, scene: Scene) -> set[str]:
    """All ids that somebody was told in one breath with their name alone, by the sidecar or by the gateway itself."""
    told = (text for text in (*one.received, *scene.stranger.heard) if one.slug in text and other.slug not in text)
    return ids_in(told) - of_the_gateway(scene) - ids_in([one.known_run, other.known_run])


def of_the_gateway(scene: Scene) -> set[str]:
    """What a gateway calls itself, to everybody."""
    return {scene.alice.client.hello["server"].get("bootId", "")}


def secrets_of(scene: Scene) -> dict[str, str]:
    gateway, sidecar = scene.house.gateway, scene.house.sidecar
    return {
        "secret": gateway.token or gateway.password,
        "gateway's folder": str(gateway.options.folder),
        "packages": str(CACHE),
        "sidecar's folder": str(sidecar.options.folder),
        "seal": (sidecar.options.folder / "data" / "secret").read_text().strip(),
        "model's address": scene.house.model.url,
        "model's key": "fake-key",
    }


def without_own_workspace(one: Person) -> list[str]:
    """Where one's own workspace is may be known: it lies below the gateway's folder here."""
    return [text.replace(str(one.workspace), "") for text in one.received]


# --- the control ------------------------------------------------------------------------------------------------------------


def test_a_stranger_at_the_gateway_is_told(scene: Scene) -> None:
    """Without the sidecar in between all of it goes to whoever listens, or asks."""
    for one in (scene.alice, scene.bob):
        found = leaks(scene.stranger.heard, words_of(one))
        told = {word for word in words_of(one) if any(leak.startswith(f"{word} ") for leak in found)}
        assert scene.untold(told) == scene.no_control
        assert {"login", "workspace", "run 0", *(f"id of {kind}" for kind in one.ids)} <= told


def test_all_that_may_be_asked_was_asked(scene: Scene) -> None:
    foreign = scene.outcomes[0].refused["FOREIGN_KEY"]
    for outcome, one in zip(scene.outcomes, (scene.alice, scene.bob), strict=True):
        assert outcome.wrong == []
        assert outcome.refused["FOREIGN_KEY"] == foreign > 150
        assert outcome.refused["METHOD_NOT_ALLOWED"] > 100
        assert len(outcome.answered) > 100, outcome.failed
        assert set(one.ids) >= kinds_of(scene.table) - {"run"}


# --- what came over ------------------------------------------------------------------------------------------------------------


def test_neither_received_anything_of_the_other(scene: Scene) -> None:
    for one, other in scene.pairs:
        assert leaks(one.received, words_of(other)) == []
        assert ids_in(one.received) & ids_of(other, one, scene) == set()


def test_each_received_their_own(scene: Scene) -> None:
    """What is kept from the other is not kept from everybody. 2026.8.2 gives an attachment's text over HTTP alone."""
    over_http = {"attachment-text"} if scene.is_older else set()
    for one in (scene.alice, scene.bob):
        found = leaks(one.received, one.marks)
        told = {place for place in PLACES if any(leak.startswith(f"{place} ") for leak in found)}
        assert scene.untold(told) == scene.no_control | over_http


def test_every_client_heard_of_its_users_work(scene: Scene) -> None:
    for one in (scene.alice, scene.bob):
        watchers = [client for client in one.others if "sessions.subscribe" in client.hello["features"]["methods"]]
        assert watchers
        for client in one.others[:3]:
            assert leaks(client.received, {"text": one.marks["text"]}) == ["text as it is"]


def test_a_user_knows_one_profile(scene: Scene) -> None:
    """Their own; with a shared token all are the gateway's owner; 2026.8.2 names none."""
    known = [{found for text in one.received for found in _PROFILE.findall(text)} for one in (scene.alice, scene.bob)]
    if scene.house.gateway.token:
        assert all(profiles <= {"gateway-owner"} for profiles in known)
    else:
        assert all(len(profiles) == int(not scene.is_older) for profiles in known)
        assert known[0].isdisjoint(known[1])


def test_no_secret_or_place_of_the_host_came_over(scene: Scene) -> None:
    for one in (scene.alice, scene.bob):
        assert leaks(without_own_workspace(one), secrets_of(scene)) == []


def test_neither_agent_was_told_anything_of_the_other(scene: Scene) -> None:
    """What a gateway puts into a prompt is told to the agent's user for the asking."""
    for one, other in scene.pairs:
        prompts = [json.dumps(call.body) for call in scene.house.model.calls if call.turn.agent == one.slug]
        assert prompts
        assert leaks(prompts, words_of(other)) == []


# --- who has no client ------------------------------------------------------------------------------------------------------------


async def test_the_web_side_shows_nothing_of_anybody(scene: Scene) -> None:
    """To the other, to whoever has no token, and to the operator's monitors."""
    sidecar = scene.house.sidecar
    for one, other in scene.pairs:
        words = {**words_of(one), **secrets_of(scene)}
        places = [path.format(key=one.main, agent=one.slug, file=one.marks["attachment-name"]) for path in PATHS]
        headers = {"x-openclaw-session-key": one.main, "x-openclaw-agent-id": one.slug}
        theirs = {**headers, "Authorization": f"Bearer {other.token}"}
        shown = [*await pages(sidecar.http_url, places, theirs), *await pages(sidecar.http_url, places, headers)]
        assert any(other.slug in page for page in shown), "their own status"
        shown += [await sidecar.metrics(), *await posted(scene, one, theirs), *await posted(scene, one, headers)]
        assert "openclaw_sidecar_denied_total{" in shown[len(places) * 2]
        assert leaks(shown, words) == []


async def posted(scene: Scene, one: Person, headers: dict[str, str]) -> list[str]:
    body = {"tool": "sessions_list", "model": f"openclaw/{one.slug}", "messages": []}
    shown = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for path in ("/tools/invoke", "/v1/chat/completions", "/v1/responses", "/api/openclaw"):
            async with session.post(scene.house.sidecar.http_url + path, json=body) as answer:
                shown.append(f"{dict(answer.headers)} {await answer.text()}")
    return shown


async def test_who_is_turned_away_is_told_nothing(scene: Scene) -> None:
    """At the upgrade, and after it."""
    sidecar, told = scene.house.sidecar, list[str]()
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    for more in ({}, {"Origin": "https://elsewhere.example"}, {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}):
        told += await pages(sidecar.http_url, ["/", f"/?key={scene.alice.main}"], {**upgrade, **more})
    for auth in (
        {"token": "x"},
        {"token": scene.alice.token[:-9]},
        {"password": scene.house.gateway.password or "x"},
        None,
    ):
        async with RawClient.open(sidecar.url) as client:
            with pytest.raises(RequestError):
                await client.greet(connect_params(auth, sessionKey=scene.alice.main))
            await client.wait_closed()
            told += [*client.received, client.close_reason]
    assert len(told) > 12
    assert leaks(told, {**words_of(scene.alice), **words_of(scene.bob), **secrets_of(scene)}) == []


async def test_the_log_holds_no_word_of_anybody(scene: Scene) -> None:
    """Who connected stands in it, and what they were refused; not what they said, nor their keys."""
    log = scene.house.sidecar.log
    assert '"denied"' in log
    assert '"acted_as_admin"' in log
    assert scene.alice.slug in log
    for one in (scene.alice, scene.bob):
        tokens = {f"token-{at}": part for at, part in enumerate(one.token.split("."))}
        assert leaks([log], {**one.marks, **tokens}) == []
    secrets = {name: word for name, word in secrets_of(scene).items() if "folder" not in name}
    assert leaks([log], secrets) == []
