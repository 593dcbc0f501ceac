"""Principal → environment over a real PostgreSQL and a real Redis. The gateways are stubs: only their configuration counts here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest
import pytest_asyncio

from sidecar.domain.environment import Environment
from sidecar.domain.namespace import Layout
from sidecar.domain.principal import Principal
from sidecar.environments.service import EnvironmentOptions, Environments
from sidecar.errors import EngineError, GatewayAway, SidecarError, StorageAway
from sidecar.gateways.admin import State
from sidecar.gateways.options import GatewayOptions
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.redis import RedisStore
from tests.environments.replica import Replica, replica
from tests.stack.process import free_port
from tests.stack.stub_gateway import StubGateway

NOW = 1_800_000_000.0
ROOT = "/data/openclaw-users"


def principal(name: str) -> Principal:
    return Principal(f"example|{name}", "example", name, "0" * 64, NOW + 3600, name=name.title())


@dataclass(slots=True)
class Town:
    """Two gateways, `east` and `west`."""

    database: Database
    replicas: dict[str, Replica]
    local_root: Path
    stubs: dict[str, StubGateway]

    def environments(
        self,
        *,
        readable: str = "example",
        local_root: Path | None = None,
        database: Database | None = None,
        layouts: Mapping[str, Layout] = MappingProxyType({}),
    ) -> Environments:
        return Environments(
            database or self.database,
            {name: one.maker for name, one in self.replicas.items()},
            lambda: [name for name, one in self.replicas.items() if one.admin.state is State.READY],
            EnvironmentOptions(ROOT + "/", local_root or self.local_root, readable, layouts),
            lambda: NOW,
        )

    async def home(self, name: str, environments: Environments | None = None) -> Environment:
        rooms = environments or self.environments()
        return (await rooms.ready(principal(name))).environment


@pytest_asyncio.fixture
async def town(database: Database, store: RedisStore, tmp_path: Path) -> AsyncIterator[Town]:
    async with contextlib.AsyncExitStack() as stack:
        stubs = {name: await stack.enter_async_context(StubGateway()) for name in ("east", "west")}
        replicas = {}
        for name, stub in stubs.items():
            url = f"ws://127.0.0.1:{stub.port}"
            options = GatewayOptions(id=name, url=url, auth="trusted-proxy", password=stub.password)
            replicas[name] = await stack.enter_async_context(replica(options, store))
        yield Town(database, replicas, tmp_path, stubs)


async def test_the_first_visit_makes_everything_and_the_second_finds_it(town: Town) -> None:
    made = await town.home("alice")
    assert made.user_id == "example|alice"
    assert made.agent_id == "u-alice"
    assert made.workspace_dir == f"{ROOT}/u-alice/workspace"
    assert (town.local_root / "u-alice" / "workspace").is_dir()
    assert "u-alice" in (await town.replicas[made.gateway_id].entries())
    found = await town.home("alice")
    assert found.provisioned_at is not None
    assert (found.gateway_id, found.workspace_dir, found.created_at) == (
        made.gateway_id,
        made.workspace_dir,
        made.created_at,
    )
    assert sum(sum(one.written) for one in town.replicas.values()) == 1


def sharing(**layout: bool) -> dict[str, Layout]:
    return dict.fromkeys(("east", "west"), Layout("helpdesk", **layout))


async def test_users_who_share_an_agent_have_it_and_its_workspace_in_common(town: Town) -> None:
    rooms = town.environments(layouts=sharing())
    homes = [await rooms.ready(principal(name)) for name in ("alice", "bob")]
    assert [(home.namespace.prefix, home.namespace.slug) for home in homes] == [
        ("agent:helpdesk:user:u-alice:", "u-alice"),
        ("agent:helpdesk:user:u-bob:", "u-bob"),
    ]
    for home in homes:
        assert home.environment.shares_agent
        assert home.environment.agent_id == "helpdesk"
        assert home.environment.workspace_dir == f"{ROOT}/helpdesk/workspace"
    assert sorted(folder.name for folder in town.local_root.iterdir()) == ["helpdesk"]
    for one in town.replicas.values():
        entries = await one.entries()
        assert entries["helpdesk"]["workspace"] == f"{ROOT}/helpdesk/workspace"
        assert "u-alice" not in entries
        assert one.written == [1], "whoever comes later finds it"
    again = await rooms.ready(principal("alice"))
    assert again.environment.workspace_dir == f"{ROOT}/helpdesk/workspace"
    assert await town.database.agents_on(homes[0].environment.gateway_id) == {}, "no agent is one user's"


async def test_runs_in_a_shared_agent_may_have_workspaces_of_their_own(town: Town) -> None:
    rooms = town.environments(layouts=sharing(own_workspaces=True))
    homes = [(await rooms.ready(principal(name))).environment for name in ("alice", "bob")]
    assert [home.workspace_dir for home in homes] == [f"{ROOT}/u-alice/workspace", f"{ROOT}/u-bob/workspace"]
    assert sorted(folder.name for folder in town.local_root.iterdir()) == ["helpdesk", "u-alice", "u-bob"]
    entries = await town.replicas[homes[0].gateway_id].entries()
    assert entries["helpdesk"]["workspace"] == f"{ROOT}/helpdesk/workspace", "not that of who came first"


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, sharing()), (sharing(), {}), (sharing(), dict.fromkeys(("east", "west"), Layout("other")))],
)
async def test_a_user_whom_another_layout_would_move_is_refused(
    town: Town, before: dict[str, Layout], after: dict[str, Layout]
) -> None:
    await town.environments(layouts=before).ready(principal("alice"))
    with pytest.raises(SidecarError) as refused:
        await town.environments(layouts=after).ready(principal("alice"))
    assert refused.value.detail_code == "ENVIRONMENT_CONFLICT"
    assert "gateways[].namespace" in refused.value.message


async def test_users_are_spread_and_stay_where_they_are(town: Town) -> None:
    homes = [(await town.home(name)).gateway_id for name in ("ann", "ben", "cleo", "dan")]
    assert homes == ["east", "west", "east", "west"]
    assert [(await town.home(name)).gateway_id for name in ("dan", "ann")] == ["west", "east"]


async def test_one_user_on_two_replicas_at_once_has_one_home(town: Town) -> None:
    one, two = town.environments(), town.environments()
    homes = await asyncio.gather(*(town.home("alice", rooms) for rooms in (one, two) * 5))
    assert len({(home.gateway_id, home.agent_id) for home in homes}) == 1
    assert (await town.database.users_per_gateway()) == {homes[0].gateway_id: 1}


async def test_a_user_who_would_be_moved_by_a_setting_is_refused(town: Town) -> None:
    await town.home("alice")
    with pytest.raises(SidecarError) as refused:
        await town.home("alice", town.environments(readable=""))
    assert refused.value.detail_code == "ENVIRONMENT_CONFLICT"
    assert "readable_ids" in refused.value.message


async def test_a_home_on_a_gateway_that_is_gone_from_the_settings(town: Town) -> None:
    await town.home("alice")
    rooms = Environments(
        town.database,
        {"west": town.replicas["west"].maker},
        lambda: ["west"],
        EnvironmentOptions(ROOT, None, "example"),
        lambda: NOW,
    )
    with pytest.raises(GatewayAway, match="not configured here"):
        await town.home("alice", rooms)
    assert (await town.home("newcomer", rooms)).gateway_id == "west"


async def test_without_a_gateway_nobody_new_is_placed(town: Town) -> None:
    await town.home("alice")
    rooms = Environments(town.database, {}, list, EnvironmentOptions(ROOT, None, "example"), lambda: NOW)
    with pytest.raises(GatewayAway, match="no gateway is ready"):
        await town.home("newcomer", rooms)
    assert await town.database.environment_of("example|newcomer") is None


async def test_a_workspace_that_cannot_be_made_keeps_its_user_out(town: Town, tmp_path: Path) -> None:
    (town.local_root / "u-alice").symlink_to(tmp_path)
    with pytest.raises(EngineError, match="u-alice"):
        await town.home("alice")
    assert all(not one.written for one in town.replicas.values())
    assert (await town.home("bob")).agent_id == "u-bob"


async def test_without_postgresql_nobody_new_comes_in(town: Town) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    async with Database(DatabaseOptions(url)) as away:
        with pytest.raises(StorageAway) as refused:
            await town.home("alice", town.environments(database=away))
    assert refused.value.retryable


async def test_a_gateway_that_refuses_the_write_is_an_outage_for_those_who_wait(town: Town) -> None:
    async def refuse(connection: object, request: dict[str, object]) -> None:
        await connection.refuse(request, "INVALID_REQUEST", "agents.entries.u-bob: /srv/secret is no folder")  # type: ignore[attr-defined]

    async with town.stubs["east"].handling("config.patch", refuse):
        with pytest.raises(GatewayAway) as refused:
            await town.home("alice")
        assert "u-bob" not in refused.value.message
        assert "/srv/secret" not in refused.value.message
    assert (await town.home("alice")).gateway_id == "east", "and comes in once it is mended"
