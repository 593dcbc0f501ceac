"""`sidecar doctor` as an operator runs it, beside a real gateway that is well, and beside the same one with everything wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from sidecar.doctor.attachable import SCRATCH
from sidecar.gateways.unmetered import WAYS
from tests.live.conftest import House
from tests.live.own_house import own_house
from tests.stack.gateway import Gateway, GatewayOptions, merge
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.process import bare_environment, free_port
from tests.stack.raw import ClosedError, RawClient, RequestError
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
ATTACK_S = 400.0


@dataclass(frozen=True)
class Told:
    """What one run of the doctor said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    def ids(self, *severities: str) -> set[str]:
        return {one["id"] for one in self.document["findings"] if one["severity"] in severities}

    def found(self, name: str) -> dict[str, Any]:
        [finding, *_] = [one for one in self.document["findings"] if one["id"] == name]
        return dict(finding)


async def start(config: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sidecar.cli.main", "doctor", "--config", str(config), *arguments),
        env=bare_environment(config.parent),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def doctor(config: Path, *arguments: str, timeout: float = 60.0) -> Told:
    process = await start(config, *arguments)
    async with asyncio.timeout(timeout):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Told(process.returncode, out.decode(), err.decode())


def changed(config: Path, **sections: Mapping[str, Any]) -> Path:
    """A copy of the configuration with something else in it; `gateways` and `issuers` change the first row."""
    document = tomllib.loads(config.read_text())
    for name, over in sections.items():
        place = document["identity"]["issuers"] if name == "issuers" else document.get(name)
        if isinstance(place, list):
            place[0] = merge(place[0], over)
        else:
            document[name] = merge(document.get(name, {}), over)
    copy = config.with_name(f"changed-{len(list(config.parent.iterdir()))}.toml")
    copy.touch(mode=0o600)
    copy.write_text(_toml(document))
    return copy


def _toml(document: Mapping[str, Any]) -> str:
    lines = []
    for name, section in document.items():
        rows = section if isinstance(section, list) else section.get("issuers") if name == "identity" else None
        head = f"[[{name}]]" if isinstance(section, list) else "[[identity.issuers]]" if rows else f"[{name}]"
        for row in rows or [section]:
            lines += [head, *(f"{key} = {json.dumps(value)}" for key, value in row.items())]
    return "\n".join(lines)


@pytest_asyncio.fixture(scope="module")
async def well(
    model: EchoModel, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A gateway, and a sidecar that runs in front of it; two people have been here.

    Its operator turned off what leaves nothing in a transcript, by the settings that the doctor names.
    """
    off: dict[str, Any] = {}
    for way in WAYS:
        change: Any = way.off
        for name in reversed(way.setting.split(".") if way.setting else ()):
            change = {name: change}
        off = merge(off, change) if way.setting else off
    async with own_house(tmp_path_factory.mktemp("well"), model, identity_provider, extra=off) as house:
        for name in ("alice", "bob"):
            async with house.client(name) as client:
                assert (await client.chat("main", "hello")).endswith("hello")
        yield house


@contextlib.asynccontextmanager
async def wrong(gateway: Gateway, change: Mapping[str, Any]) -> AsyncIterator[None]:
    """Something is wrong with the gateway for a moment: its operator wrote that into the file."""
    before = gateway.config_path.read_text()
    await write(gateway, merge(json.loads(before), change))
    try:
        yield
    finally:
        await write(gateway, json.loads(before))


async def write(gateway: Gateway, config: Mapping[str, Any]) -> None:
    """Return once the gateway obeys it."""
    gateway.config_path.write_text(json.dumps(config))
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(RequestError, ClosedError, TimeoutError, aiohttp.ClientError):
                async with RawClient.admin(gateway) as admin:
                    answer = await admin.request("config.get")
                    if answer["valid"] and answer["configRevisionHash"] == answer["appliedConfigHash"]:
                        return
            await asyncio.sleep(0.3)


def secrets_of(house: House) -> list[str]:
    kept = house.sidecar.options.folder / "data" / "secret"
    return [house.gateway.password, *([kept.read_text().strip()] if kept.exists() else [])]


async def test_a_good_house_beside_its_running_sidecar(well: House) -> None:
    told = await doctor(well.sidecar.config_path, "--json")
    assert told.ids("warning", "danger") == set(), told.out
    assert told.code == 0
    assert told.document["isolation"] == {"main": "workspace"}
    assert told.ids("note") <= {"proxy.local-processes", "load.lane", "load.unmetered", "agents.others"}
    assert told.ids("ok") >= {
        *("settings", "folder", "folder.secret", "engine", "engine.schema", "clock", "issuer.keys", "gateway"),
        *("gateway.version", "auth.mode", "proxy.trusted", "proxy.devices", "origins", "switches", "http", "reach"),
        *("agents.session-tools", "agents.closed", "agents.offered", "agents.exec", "isolation"),
    }
    assert "2 users' agents" in told.found("agents.closed")["says"]
    assert told.found("load.unmetered")["says"].endswith(": compactions of long sessions, titles of sessions.")
    engines = [one["says"] for one in told.document["findings"] if one["id"] == "engine"]
    assert len([says for says in engines if "held by a running sidecar" in says]) == 2
    assert str(well.sidecar.pid) in told.found("folder")["says"]
    assert (await well.sidecar.readiness())[0] == 200, "which goes on as if nothing had been"


async def test_the_document_has_the_shape_that_scripts_rely_on(well: House) -> None:
    document = (await doctor(well.sidecar.config_path, "--json", "--gateway", "main")).document
    assert set(document) == {"format", "sidecar", "exit_code", "counts", "isolation", "findings"}
    assert document["format"] == 1
    assert set(document["counts"]) == {"ok", "note", "warning", "danger"}
    for finding in document["findings"]:
        assert set(finding) == {"id", "severity", "subject", "says", "mends"}
        assert finding["says"].endswith(".")
        assert finding["subject"]
        assert all(set(mend) == {"file", "lines"} for mend in finding["mends"])
    assert sum(document["counts"].values()) == len(document["findings"])


async def test_lines_for_people_are_plain_where_nobody_looks_and_name_no_secret(well: House) -> None:
    told = await doctor(well.sidecar.config_path)
    assert told.code == 0
    lines = told.out.splitlines()
    assert lines[0].startswith("ok ")
    assert "gateway main: isolation workspace" in lines
    assert lines[-1].endswith("checks are fine")
    assert "\033" not in told.out
    for secret in secrets_of(well):
        assert secret not in told.out + told.err


async def test_a_good_house_without_a_running_sidecar(well: House) -> None:
    await well.sidecar.stop()
    try:
        told = await doctor(well.sidecar.config_path, "--json")
        assert told.code == 0, told.out
        assert "engine.embedded" in told.ids("note")
        assert told.ids("warning", "danger") == set()
    finally:
        await well.sidecar.start()


EVERYTHING_WRONG = {
    "tools": {"agentToAgent": {"enabled": True}, "sessions": {"visibility": "all"}},
    "session": {"scope": "global"},
    "browser": {"ssrfPolicy": {"dangerouslyAllowPrivateNetwork": True}},
    "gateway": {
        "controlUi": {"allowedOrigins": ["*"], "dangerouslyAllowHostHeaderOriginFallback": True},
        "http": {"endpoints": {"chatCompletions": {"enabled": True}, "responses": {"enabled": True}}},
        "tools": {"allow": ["gateway"]},
    },
    "agents": {
        "defaults": {
            "utilityModel": "fake/fake-1",
            "maxConcurrent": 2,
            "embeddedAgent": {"projectSettingsPolicy": "trusted"},
        }
    },
    "bindings": [{"agentId": "u-alice", "match": {"channel": "webchat"}}],
}


async def test_each_weakness_of_a_real_gateway_is_named_with_the_lines_that_mend_it(well: House) -> None:
    async with wrong(well.gateway, EVERYTHING_WRONG):
        told = await doctor(well.sidecar.config_path, "--json")
        assert told.code == 2
        assert told.document["isolation"] == {"main": "none"}
        assert told.ids("danger") == {"agents.session-tools"}
        assert told.ids("warning") == {
            *("origins.any", "switches.on", "http.endpoint", "http.tools", "load.lane", "sessions.scope"),
            *("agents.project-settings", "agents.bindings"),
        }
        for finding in told.document["findings"]:
            if finding["severity"] in {"warning", "danger"}:
                assert finding["mends"], finding
        switches = [one["says"] for one in told.document["findings"] if one["id"] == "switches.on"]
        assert len(switches) == 2
        session_tools = [
            one["mends"][0]["lines"] for one in told.document["findings"] if one["id"] == "agents.session-tools"
        ]
        assert session_tools == [
            "{ tools: { agentToAgent: { enabled: false } } }",
            '{ tools: { sessions: { visibility: "self" } } }',
        ]
        assert "recaps of sessions" in told.found("load.unmetered")["says"]
    assert (await doctor(well.sidecar.config_path)).code == 0


THE_DOOR_WRONG = {
    "gateway": {
        "trustedProxies": ["127.0.0.0/8"],
        "controlUi": {"allowedOrigins": []},
        "auth": {
            "identityScopes": {"u-alice": ["operator.admin"]},
            "trustedProxy": {
                "allowUsers": ["u-alice", "u-bob"],
                "deviceAutoApprove": {"scopes": ["operator.read", "operator.admin"]},
            },
        },
    }
}


async def test_each_weakness_of_the_proxys_door_is_named(well: House) -> None:
    async with wrong(well.gateway, THE_DOOR_WRONG):
        told = await doctor(well.sidecar.config_path, "--json")
        assert told.code == 2
        assert told.ids("danger") == {"proxy.scopes", "proxy.admin", "proxy.identity"}
        assert told.ids("warning") == {"proxy.wide", "proxy.allow-users", "origins.missing"}
    assert (await doctor(well.sidecar.config_path)).code == 0


async def test_an_agent_that_cannot_be_closed_and_a_file_that_is_not_valid(well: House) -> None:
    good = well.gateway.config_path.read_text()
    config = json.loads(good)
    entries = config["agents"]["entries"]
    entries["u-alice"] = {"workspace": entries["u-alice"]["workspace"], "tools": {"profile": "full"}}
    for name, part in (("all", entries), ("more", {})):
        (well.gateway.options.folder / f"{name}.json5").write_text(json.dumps(part))
    config["agents"]["entries"] = {"$include": ["./all.json5", "./more.json5"]}
    try:
        await write(well.gateway, config)
        told = await doctor(well.sidecar.config_path, "--json")
        assert told.code == 2
        assert "u-alice (tools" in told.found("agents.opened")["says"]
        assert '"u-alice"' in told.found("agents.opened")["mends"][0]["lines"]
        assert "agents.includes" in told.ids("warning")
        assert told.document["isolation"] == {"main": "none"}
        well.gateway.config_path.write_text(json.dumps(json.loads(good) | {"noSuchKey": 1}))
        told = await doctor(well.sidecar.config_path, "--json")
        assert "gateway.invalid" in told.ids("danger")
        assert told.document["isolation"] == {"main": "unknown"}
    finally:
        await write(well.gateway, json.loads(good))
    assert (await doctor(well.sidecar.config_path)).code == 0


async def test_what_is_away_is_told_as_away(well: House) -> None:
    closed = free_port()
    away = changed(
        well.sidecar.config_path,
        storage={
            "database_url": f"postgresql://sidecar:the-database-password@127.0.0.1:{closed}/x",
            "redis_url": f"redis://:the-redis-password@127.0.0.1:{closed}/0",
            "secret": "s" * 40,
        },
        issuers={"issuer": f"http://127.0.0.1:{closed}"},
        gateways={"url": f"ws://127.0.0.1:{closed}"},
    )
    told = await doctor(away, "--json")
    assert told.code == 2
    assert told.ids("danger") == {"engine.away", "issuer.keys", "gateway.away"}
    assert told.document["isolation"] == {"main": "unknown"}
    for finding in told.document["findings"]:
        assert finding["severity"] != "danger" or finding["mends"]
    for secret in ("the-database-password", "the-redis-password", "s" * 40, *secrets_of(well)):
        assert secret not in told.out + told.err


async def test_a_gateway_that_refuses_us_and_an_issuer_that_signs_otherwise(well: House) -> None:
    other = changed(
        well.sidecar.config_path, gateways={"password": "not-the-password"}, issuers={"algorithms": ["EdDSA"]}
    )
    told = await doctor(other, "--json")
    assert told.ids("danger") == {"gateway.away", "issuer.algorithms"}
    assert "refused" in told.found("gateway.away")["says"]
    assert "not-the-password" not in told.out


async def test_modes_of_the_data_folder(well: House) -> None:
    data = well.sidecar.options.folder / "data"
    before = data.stat().st_mode
    try:
        data.chmod(0o777)
        (data / "secret").chmod(0o644)
        told = await doctor(well.sidecar.config_path, "--json")
        assert told.ids("danger") == {"folder.mode", "folder.secret"}
    finally:
        data.chmod(before)
        (data / "secret").chmod(0o600)


async def test_doubtful_settings_are_warnings_and_wrong_ones_are_told_as_by_every_command(well: House) -> None:
    doubtful = changed(well.sidecar.config_path, environments={"tools_allow": ["read", "ls"]})
    told = await doctor(doubtful, "--json")
    assert "settings.doubtful" in told.ids("warning")
    assert told.code == 2, "and the agents are not as these settings want them"
    broken = await doctor(changed(well.sidecar.config_path, server={"port": "x"}))
    assert broken.code == 2
    assert "server.port" in broken.err
    assert broken.out == ""
    nobody = await doctor(well.sidecar.config_path, "--gateway", "other")
    assert nobody.code == 2
    assert "other" in nobody.err
    alone = await doctor(well.sidecar.config_path, "--control")
    assert alone.code == 2


def left_behind(house: House) -> list[str]:
    """Whatever an attack makes, wherever it is."""
    config = json.loads(house.gateway.config_path.read_text())
    named = [*config["agents"]["entries"], *config["models"]["providers"]]
    folders = [house.gateway.workspaces, house.gateway.state_dir / "agents"]
    return [
        name
        for name in [*named, *(one.name for folder in folders for one in folder.iterdir())]
        if name.startswith("doctor-attack")
    ]


async def sessions_left(house: House) -> list[str]:
    async with RawClient.admin(house.gateway) as admin:
        rows = (await admin.request("sessions.list", {"limit": 200}))["sessions"]
    return [row["key"] for row in rows if "doctor-attack" in row["key"]]


@pytest_asyncio.fixture(scope="module")
async def attacked(well: House) -> Told:
    """One attack with its control, after which everything is as it was before."""
    before = {key: counts.calls for key, counts in well.model.counts.items()}
    config = json.loads(well.gateway.config_path.read_text())
    told = await doctor(well.sidecar.config_path, "--json", "--attack", "--control", timeout=ATTACK_S)
    assert told.code == 0, told.out
    assert "attack.held" in told.ids("ok")
    assert {key: counts.calls for key, counts in well.model.counts.items()} == before, "no other model was asked"
    assert left_behind(well) == []
    assert await sessions_left(well) == []
    after = json.loads(well.gateway.config_path.read_text())
    assert {**after, "meta": None} == {**config, "meta": None}, "the gateway's configuration is what it was"
    assert (await well.sidecar.readiness())[0] == 200
    return told


def test_an_attack_on_ours_finds_nothing(attacked: Told) -> None:
    [attacks] = attacked.document["attacks"]
    assert attacks["offered"] == ["apply_patch", "edit", "read", "write"]
    assert {one["verdict"] for one in attacks["attacks"]} == {"held"}
    controlled = {one["tool"] for one in attacks["attacks"] if one["controlled"]}
    assert controlled >= {"read", "write", "edit", "exec", "ls", "process", "MEDIA:"}
    assert {one["attack"] for one in attacks["attacks"] if one["tool"] == "MEDIA:"} >= {"the gateway's log"}


def test_without_turns_the_gateway_asks_the_same_policy(attacked: Told) -> None:
    """`tools.invoke` serves some tools only; those that it serves to an open agent a turn has there too, and neither from ours."""
    [attacks] = attacked.document["attacks"]
    rows = attacks["attacks"]
    invoked = {(one["tool"], one["attack"]) for one in rows if one["way"] == "tools.invoke" and one["controlled"]}
    turned = {
        (one["tool"], one["attack"]) for one in rows if one["way"] in {"direct", "tool_call"} and one["controlled"]
    }
    assert len(invoked) > 10
    assert invoked <= turned, "what is reached without a turn is reached in one"
    ours = {one["why"] for one in rows if one["way"] == "tools.invoke"}
    assert ours == {"not offered"}


async def test_an_attack_on_agents_that_the_operator_opened_finds_the_way_in(well: House) -> None:
    tools = {"agentToAgent": {"enabled": True}, "sessions": {"visibility": "all"}}
    allowed = ["read", "write", "edit", "apply_patch", "sessions_history", "sessions_send"]
    opened = changed(
        well.sidecar.config_path, environments={"tools_allow": allowed}, gateways={"allow_open_gateway": True}
    )
    log = {"file": f"{SCRATCH}/of-a-test-{well.gateway.port}.log"}
    async with wrong(well.gateway, {"tools": tools, "logging": log}), RawClient.admin(well.gateway) as admin:
        async with asyncio.timeout(60):  # the log moves a little later
            while (await admin.request("logs.tail", {"limit": 1}))["file"] != log["file"]:
                await asyncio.sleep(0.3)
        told = await doctor(opened, "--json", "--attack", timeout=ATTACK_S)
        assert told.code == 2
        broke = {one["says"].split()[0] for one in told.document["findings"] if one["id"] == "attack.broke"}
        assert broke == {"sessions_history", "sessions_send", "MEDIA:"}
        assert "attach.log" in told.ids("danger")
        finding = told.found("attack.broke")
        assert "tools_allow" in finding["mends"][0]["lines"]
        assert left_behind(well) == []


@pytest.mark.deep
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, id="Ctrl-C"), pytest.param(signal.SIGKILL, id="killed")]
)
async def test_an_attack_that_is_ended_half_way_is_taken_back(well: House, number: signal.Signals) -> None:
    process = await start(well.sidecar.config_path, "--json", "--attack")
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(120):
            while b"attacking with" not in await process.stderr.readline():
                pass
        assert left_behind(well)
        os.kill(process.pid, number)
        async with asyncio.timeout(120):
            await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if number is signal.SIGINT:
        assert process.returncode == 130
        assert left_behind(well) == []
        return
    left = left_behind(well)
    assert left
    told = await doctor(well.sidecar.config_path, "--json", "--attack", timeout=ATTACK_S)
    assert told.code == 0, told.out
    remark = told.found("attack.remark")["says"]
    assert all(name in remark for name in left if name.endswith(("victim", "attacker")))
    assert left_behind(well) == []


async def test_a_gateway_that_cannot_reach_our_model_is_told_so_and_left_as_it_was(well: House) -> None:
    nowhere = changed(well.sidecar.config_path, gateways={"url": f"ws://127.0.0.1:{free_port()}"})
    told = await doctor(nowhere, "--json", "--attack")
    assert {"gateway.away", "attack.refused"} <= told.ids("danger")
    taken = await doctor(well.sidecar.config_path, "--attack", "--model-address", "192.0.2.200:1", timeout=ATTACK_S)
    assert taken.code == 2
    assert "attack.refused" in taken.out
    assert left_behind(well) == []


@pytest.mark.deep
async def test_the_older_gateway_too(
    model: EchoModel, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("older")
    port = free_port()
    options = GatewayOptions(
        folder / "gateway", model.url, version="2026.8.2", allowed_origins=[f"http://127.0.0.1:{port}"]
    )
    async with Gateway(options) as gateway:
        sidecar_options = SidecarOptions(folder / "sidecar", gateway, identity_provider.issuer, port=port)
        async with Sidecar(sidecar_options) as sidecar:
            house = House(gateway, model, identity_provider, sidecar)
            async with house.client("carol") as client:
                assert (await client.chat("main", "hello")).endswith("hello")
            told = await doctor(sidecar.config_path, "--json", "--attack", timeout=ATTACK_S)
            assert told.code == 0, told.out
            assert "attack.held" in told.ids("ok")
            assert left_behind(house) == []
