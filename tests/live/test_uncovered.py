"""A gateway of a version that no table covers: people read, nothing runs, until the operator names the version.

The gateway is the real one, the table is the one that ships, with a range that ends before it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar import settings
from sidecar.app import App, serving, shipped_tables
from sidecar.policy.rules import Own, Rule
from sidecar.policy.table import Table
from sidecar.policy.versions import choose
from tests.live.conftest import House
from tests.stack.clients import CommandLine, GatewayClient
from tests.stack.driver import CommandError
from tests.stack.gateway import Gateway
from tests.stack.identity_provider import IdentityProvider
from tests.stack.node import VERSION
from tests.stack.proc import eventually
from tests.stack.process import free_port
from tests.stack.raw import RawClient, RequestError
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

SENTENCE = f"the gateway's version {VERSION} is not one that this service was checked against"


def outdated() -> Table:
    """The table of the gateway, as if it had been made for the month before it."""
    chosen = choose(shipped_tables(), VERSION)
    assert chosen is not None
    assert chosen.covered
    year, month = map(int, VERSION.split(".")[:2])
    return replace(chosen.table, until=(year, month))


@dataclass(frozen=True, slots=True)
class Standing:
    app: App
    url: str


@contextlib.asynccontextmanager
async def standing(
    folder: Path, gateway: Gateway, issuer: str, *trusted: str, table: Table | None = None
) -> AsyncIterator[Standing]:
    """A sidecar in this process, with the outdated table handed in; it has seen its gateway."""
    folder.mkdir(exist_ok=True)
    written = Sidecar(SidecarOptions(folder, gateway, issuer, gateway_settings={"trusted_versions": list(trusted)}))
    written.port, written.metrics_port = free_port(), free_port()
    written.config_path.write_text(written._toml())
    async with serving(settings.load(written.config_path, {}), tables=[table or outdated()]) as app:
        admin = app.doors["main"].admin
        await eventually(lambda: admin.serves or VERSION in admin.why)
        yield Standing(app, written.url)


async def readiness(app: App) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{app.metrics_url}/readyz") as answer:
        return answer.status, await answer.json()


async def test_people_read_and_nothing_runs_until_the_version_is_named(
    house: House, gateway: Gateway, identity_provider: IdentityProvider, tmp_path: Path
) -> None:
    token = await identity_provider.token_for("una", lifetime=3600)
    async with house.client("una") as una:
        assert (await una.chat("main", "said before the update")).endswith("said before the update")
    calls = house.model.counted("u-una").calls

    async with standing(tmp_path / "a", gateway, identity_provider.issuer) as closed:
        await _told_to_operators(closed.app)
        await _reads_only(closed.url, token)
        await _real_clients_show_why(closed.url, token, tmp_path)
    assert house.model.counted("u-una").calls == calls

    async with standing(tmp_path / "b", gateway, identity_provider.issuer, "2026.9.5", "2026.10.1") as others:
        await _reads_only(others.url, token)
    assert house.model.counted("u-una").calls == calls

    async with standing(tmp_path / "c", gateway, identity_provider.issuer, VERSION) as trusted:
        status, body = await readiness(trusted.app)
        assert (status, body["checks"]["gateway:main"]) == (200, {"ok": True})
        async with RawClient.connect(trusted.url, {"token": token}) as una:
            assert (await una.chat("main", "and after")).endswith("and after")
    assert house.model.counted("u-una").calls > calls


async def test_who_is_new_comes_in_too(gateway: Gateway, identity_provider: IdentityProvider, tmp_path: Path) -> None:
    token = await identity_provider.token_for("newt", lifetime=3600)
    async with (
        standing(tmp_path, gateway, identity_provider.issuer) as closed,
        RawClient.connect(closed.url, {"token": token}) as newt,
    ):
        assert newt.hello["snapshot"]["sessionDefaults"]["defaultAgentId"] == "u-newt"
        assert (await newt.request("sessions.list"))["sessions"] == []


async def test_older_than_every_table_serves_nobody(
    gateway: Gateway, identity_provider: IdentityProvider, tmp_path: Path
) -> None:
    later = replace(outdated(), since=(2099, 1), until=(2099, 2))
    async with standing(tmp_path, gateway, identity_provider.issuer, VERSION, table=later) as closed:
        status, body = await readiness(closed.app)
        assert status == 503
        assert f"no policy table covers gateway version {VERSION}" in body["checks"]["gateways"]["why"]
        token = await identity_provider.token_for("una", lifetime=3600)
        with pytest.raises(RequestError) as refused:
            async with RawClient.connect(closed.url, {"token": token}):
                pass
        assert refused.value.detail_code == "GATEWAY_UNAVAILABLE"


async def _told_to_operators(app: App) -> None:
    status, body = await readiness(app)
    assert (status, body["ready"]) == (200, True)
    check = body["checks"]["gateway:main"]
    assert check["ok"] is True
    for words in (
        f"no policy table covers gateway version {VERSION}",
        f'trusted_versions = ["{VERSION}"]',
        "gateway diff",
    ):
        assert words in check["doubt"]
    metrics = app.telemetry.metrics.render().decode()
    assert 'openclaw_sidecar_gateway_state{gateway="main",state="uncovered"} 1.0' in metrics
    assert 'openclaw_sidecar_gateway_state{gateway="main",state="ready"} 0.0' in metrics


async def _reads_only(url: str, token: str) -> None:
    async with RawClient.connect(url, {"token": token}) as una:
        assert una.hello["server"]["version"] == VERSION
        assert "said before the update" in json.dumps(await una.request("chat.history", {"sessionKey": "main"}))
        assert [row["key"] for row in (await una.request("sessions.list"))["sessions"]] == ["agent:u-una:main"]
        closed = [row for row in outdated().methods.values() if row.starts_run or row.as_admin]
        assert {"chat.send", "agent", "sessions.delete", "sessions.reset"} <= {row.name for row in closed}
        for row in closed:
            words = {Rule.NEW_RUN: "run-1", Rule.EXISTING_KEY: "main", Rule.TEXT: "x", Own("cron"): "job-1"}
            params = {name: words[rule] for name, rule in row.params.items() if rule in words}
            with pytest.raises(RequestError) as refused:
                await una.request(row.name, params)
            assert refused.value.detail_code == "GATEWAY_NOT_COVERED", row.name
            assert refused.value.error["message"].startswith(SENTENCE)
            assert "retryable" not in refused.value.error
            assert "retryAfterMs" not in refused.value.error
        for command in ("/reset", "/new", "/reset and more"):
            with pytest.raises(RequestError) as refused:
                await una.request("chat.send", {"sessionKey": "main", "message": command, "idempotencyKey": "run-2"})
            assert refused.value.detail_code == "GATEWAY_NOT_COVERED", command
        assert "said before the update" in json.dumps(await una.request("chat.history", {"sessionKey": "main"}))
        assert una.close_code is None


async def _real_clients_show_why(url: str, token: str, folder: Path) -> None:
    """They say the sentence once and stop; nobody sends the turn again."""
    command = CommandLine(folder / "cli", url, token)
    for finished in (
        await command.run("agent", "--session-key", "main", "--message", "x"),
        await command.call("chat.send", {"sessionKey": "main", "message": "x", "idempotencyKey": "u-1"}),
    ):
        assert finished.status != 0
        assert SENTENCE in finished.stdout + finished.stderr, finished
    assert (await command.call("chat.history", {"sessionKey": "main"})).status == 0
    async with GatewayClient(folder / "client") as client:
        await client.connect(url, token)
        with pytest.raises(CommandError, match="not one that this service was checked against") as refused:
            await client.request("chat.send", {"sessionKey": "main", "message": "x", "idempotencyKey": "u-2"})
        assert refused.value.detail_code == "GATEWAY_NOT_COVERED"
        assert [state["state"] for state in client.states] == ["hello"]
