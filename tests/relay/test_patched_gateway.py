"""Gateways that were patched to take `workspaceDir` and `authProfileId`: they get the user's own, whatever a client wrote.

No released gateway takes them (2026.9.6: `unexpected property 'workspaceDir'`), so a stub stands for one. In both layouts: an agent
each, and, for which such gateways were made, one agent for all with a workspace for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.policy.people import TABLE
from tests.stack.identity_provider import IdentityProvider
from tests.stack.node import ensure_packages
from tests.stack.raw import RawClient, RequestError, is_end_of, text_of
from tests.stack.sidecar import Sidecar, SidecarOptions
from tests.stack.stub_gateway import PATCHED_PARAMS, STARTS, RunningGateway

STARTING = sorted(name for name, row in TABLE.methods.items() if row.starts_run)
LAYOUTS: dict[str, dict[str, Any]] = {
    "agent": {},
    "shared-agent": {
        "namespace": "shared-agent",
        "shared_agent": "helpdesk",
        "shared_tools_allow": ["read", "write", "edit", "apply_patch"],
    },
}
WRITTEN: list[dict[str, Any]] = [
    {},
    {"workspaceDir": "/", "authProfileId": "somebody-else"},
    {"workspaceDir": None, "authProfileId": 7},
    {"workspaceDir": {"path": "/"}, "authProfileId": ["user-gus-anthropic"]},
    {"workspaceDir": "../gus/workspace"},
]


@dataclass(frozen=True, slots=True)
class Place:
    """A sidecar before a stub whose runs answer."""

    layout: str
    stub: RunningGateway
    sidecar: Sidecar
    identity_provider: IdentityProvider

    @contextlib.asynccontextmanager
    async def client(self, user: str, **params: Any) -> AsyncIterator[RawClient]:
        auth = {"token": await self.identity_provider.token_for(user, lifetime=3600)}
        async with RawClient.connect(self.sidecar.url, auth, **params) as client:
            yield client

    def workspace(self, name: str) -> str:
        return str(Path(self.sidecar.options.gateway.workspaces) / name / "workspace")

    def prefix(self, user: str) -> str:
        return f"agent:u-{user}:" if self.layout == "agent" else f"agent:helpdesk:user:u-{user}:"


@contextlib.asynccontextmanager
async def place(
    layout: str, provider: IdentityProvider, folder: Path, *, patched: bool, accepts: bool
) -> AsyncIterator[Place]:
    async with RunningGateway(patched=patched) as stub:
        stub.config["agents"]["defaults"]["startupContext"] = {"enabled": False}
        options = SidecarOptions(
            folder,
            stub.gateway(folder),
            provider.issuer,
            gateway_settings={"accepts_workspace": accepts, **LAYOUTS[layout]},
        )
        async with Sidecar(options) as sidecar:
            yield Place(layout, stub, sidecar, provider)


@pytest_asyncio.fixture(scope="module", params=sorted(LAYOUTS))
async def patched(
    request: pytest.FixtureRequest, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("patched")
    async with place(request.param, identity_provider, folder, patched=True, accepts=True) as running:
        yield running


async def started(client: RawClient, method: str, key: str, **params: Any) -> str:
    """Start a run by `method`; the text it ends with."""
    start, since = STARTS[method], len(client.frames)
    asked: dict[str, Any] = {start.session: key}
    asked |= {"action": "resume"} if method == "sessions.goal.update" else {"message": "hi"}
    if start.run_id:
        asked[start.run_id] = f"run-{uuid.uuid4()}"
    answer = await client.request(method, asked | params)
    run = asked.get(start.run_id) or answer["runId"]
    end = await client.wait_for(is_end_of(run), since=since)
    return text_of(end["payload"]["message"])


def test_the_stub_knows_every_method_that_starts_a_run() -> None:
    assert set(STARTING) <= set(STARTS)


@pytest.mark.live
async def test_the_stub_takes_what_a_released_gateway_takes() -> None:
    schema = json.loads(
        (
            (await ensure_packages()) / "node_modules" / "@openclaw" / "gateway-protocol" / "protocol.schema.json"
        ).read_text()
    )["definitions"]
    exactly = {
        "chat.send": "ChatSendParams",
        "sessions.send": "SessionsSendParams",
        "sessions.create": "SessionsCreateParams",
    }
    for method, name in exactly.items():
        assert set(schema[name]["properties"]) == set(STARTS[method].known)
    assert set(STARTS["agent"].known) <= set(schema["AgentParams"]["properties"])
    for name in (*exactly.values(), "AgentParams"):
        assert schema[name]["additionalProperties"] is False
        assert PATCHED_PARAMS.isdisjoint(schema[name]["properties"])


@pytest.mark.parametrize("written", WRITTEN, ids=["nothing", "anothers", "nonsense", "nested", "dots"])
async def test_every_run_gets_the_own_workspace_and_profile(patched: Place, written: dict[str, Any]) -> None:
    async with patched.client("fay") as fay:
        for method in STARTING:
            told = await started(fay, method, "main", **written)
            assert told == f"in {patched.workspace('u-fay')} as user-fay-anthropic"
            run = patched.stub.runs[-1]
            assert (run.user, run.method, run.key) == ("u-fay", method, patched.prefix("fay") + "main")
            assert (run.workspace, run.profile) == (patched.workspace("u-fay"), "user-fay-anthropic")


async def test_what_connect_says_of_a_workspace_goes_no_further(patched: Place) -> None:
    key = patched.prefix("fay") + "work"
    async with patched.client("fay", sessionKey=key, workspaceDir="/", authProfileId="root") as fay:
        assert fay.hello["snapshot"]["sessionDefaults"]["mainSessionKey"] == key
        connect = patched.stub.of("u-fay")[-1].requests[0]
        assert connect["method"] == "connect"
        assert {*PATCHED_PARAMS, "sessionKey"}.isdisjoint(connect["params"])


async def test_what_starts_no_run_takes_none(patched: Place) -> None:
    async with patched.client("fay") as fay:
        await fay.request("chat.history", {"sessionKey": "main"})
        history = next(
            one for one in reversed(patched.stub.of("u-fay")[-1].requests) if one["method"] == "chat.history"
        )
        assert PATCHED_PARAMS.isdisjoint(history["params"])
        for name in PATCHED_PARAMS:
            with pytest.raises(RequestError) as refused:
                await fay.request("chat.history", {"sessionKey": "main", name: "/"})
            assert refused.value.detail_code == "PARAM_NOT_ALLOWED"


async def test_two_at_once_each_in_their_own(patched: Place) -> None:
    """Every connection is told of every run; the same words for sessions mean two."""
    async with patched.client("fay") as fay, patched.client("gus") as gus:
        people = {"fay": fay, "gus": gus}
        for method in STARTING:
            told = await asyncio.gather(*(started(client, method, "notes") for client in people.values()))
            assert told == [f"in {patched.workspace(f'u-{user}')} as user-{user}-anthropic" for user in people]
        runs = [run for run in patched.stub.runs if run.key.endswith(":notes")]
        for user in people:
            mine = [run for run in runs if run.user == f"u-{user}"]
            assert {(run.key, run.workspace) for run in mine} == {
                (f"{patched.prefix(user)}notes", patched.workspace(f"u-{user}"))
            }
            assert len(mine) == len(STARTING)
        with pytest.raises(RequestError) as refused:
            await started(gus, "chat.send", patched.prefix("fay") + "notes", workspaceDir=patched.workspace("u-fay"))
        assert refused.value.detail_code == "FOREIGN_KEY"
        for client, other in ((fay, "gus"), (gus, "fay")):
            assert f"u-{other}" not in "".join(client.received)
            assert f"user-{other}-" not in "".join(client.received)


async def test_workspaces_are_there_and_closed_to_others(patched: Place) -> None:
    async with patched.client("fay"), patched.client("gus"):
        for user in ("fay", "gus"):
            assert Path(patched.workspace(f"u-{user}")).stat().st_mode & 0o777 == 0o700
    entries = patched.stub.config["agents"]["entries"]
    if patched.layout == "agent":
        assert entries["u-fay"]["workspace"] == patched.workspace("u-fay")
        return
    assert not [name for name in entries if name.startswith("u-")]
    assert entries["helpdesk"]["workspace"] == patched.workspace("helpdesk")
    assert entries["helpdesk"]["tools"]["allow"] == LAYOUTS["shared-agent"]["shared_tools_allow"]
    assert entries["helpdesk"]["tools"]["fs"] == {"workspaceOnly": True}


async def test_a_refusal_of_the_gateway_names_no_place(patched: Place) -> None:
    """The session was begun in another workspace, by somebody who came around the sidecar."""
    key = f"moved-{uuid.uuid4().hex}"
    patched.stub.keep(patched.prefix("fay") + key, "/srv/elsewhere/workspace", "root")
    async with patched.client("fay") as fay:
        with pytest.raises(RequestError, match="works in …"):
            await started(fay, "chat.send", key)
        assert "/srv/elsewhere" not in "".join(fay.received)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
async def test_a_gateway_that_was_not_patched_runs_nothing_elsewhere(
    layout: str, identity_provider: IdentityProvider, tmp_path: Path
) -> None:
    """Told that it was, it refuses every run: none works in the agent's workspace for want of the user's."""
    async with (
        place(layout, identity_provider, tmp_path, patched=False, accepts=True) as running,
        running.client("fay") as fay,
    ):
        for method in STARTING:
            with pytest.raises(RequestError, match="unexpected property 'authProfileId'"):
                await started(fay, method, "main")
        assert running.stub.runs == []


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
async def test_a_gateway_that_is_not_said_to_be_patched_never_sees_them(
    layout: str, identity_provider: IdentityProvider, tmp_path: Path
) -> None:
    async with (
        place(layout, identity_provider, tmp_path, patched=False, accepts=False) as running,
        running.client("fay") as fay,
    ):
        for method in STARTING:
            assert await started(fay, method, "main", **WRITTEN[1]) == "in  as "
        assert {run.workspace for run in running.stub.runs} == {""}
