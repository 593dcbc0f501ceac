"""`sidecar gateway diff` before the real gateways: what ships fits them, and what is said to be known of them is so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.app import TABLES
from sidecar.policy.coverage import read_reviewed
from tests.cli.test_audit_tail import command
from tests.stack.gateway import USER_HEADER, Gateway, GatewayOptions
from tests.stack.model import EchoModel
from tests.stack.node import VERSION, ensure_packages
from tests.stack.raw import RawClient, RequestError

pytestmark = pytest.mark.live

REVIEWED = read_reviewed((TABLES / "reviewed.toml").read_bytes())
ASKED_FOR_IN_VAIN = {"sessions.unsubscribe"}
"""The Control UI asks for it, the gateway does not know it."""


def configuration(folder: Path, gateway: Gateway) -> str:
    path = folder / "sidecar.toml"
    path.write_text(
        f'[[gateways]]\nurl = "{gateway.url}"\npassword = "{gateway.password}"\nuser_header = "{USER_HEADER}"\n'
        '[[identity.issuers]]\nname = "example"\nissuer = "https://login.example.com/"\n'
    )
    return str(path)


async def diff(config: str, *arguments: str) -> tuple[int, list[str]]:
    async with command("gateway", "diff", "--config", config, *arguments) as running:
        code = await running.ended()
        assert running.errors == []
        return code, running.lines


async def schema() -> str:
    packages = await ensure_packages(VERSION)
    return str(packages / "node_modules" / "@openclaw" / "gateway-protocol" / "protocol.schema.json")


async def test_nothing_differs(gateway: Gateway, tmp_path: Path) -> None:
    config = configuration(tmp_path, gateway)
    code, lines = await diff(config, "--schema", await schema())
    assert lines[0] == f"gateway main {VERSION}, policy for 2026.8 up to, not including, 2026.10"
    assert (code, lines[-1]) == (0, "  nothing differs"), "\n".join(lines)
    code, lines = await diff(config, "--json")
    assert (code, json.loads(lines[0])["gateways"][0]["same"]) == (0, True)


@pytest_asyncio.fixture(scope="module")
async def older(model: EchoModel, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("older-diff")
    async with Gateway(GatewayOptions(folder=folder, model_url=model.url, version="2026.8.2")) as running:
        yield running


async def test_nothing_differs_on_the_older_one(older: Gateway, tmp_path: Path) -> None:
    code, lines = await diff(configuration(tmp_path, older))
    assert (code, lines[0].split()[2]) == (0, "2026.8.2,"), "\n".join(lines)
    assert lines[-1] == "  nothing differs"


async def test_what_is_not_advertised_is_answered_all_the_same(gateway: Gateway) -> None:
    """With a parameter that none of them has, so that nothing happens."""
    async with RawClient.admin(gateway) as admin:
        advertised = {*admin.hello["features"]["methods"]}
        assert not REVIEWED.methods & advertised
        assert not REVIEWED.events & {*admin.hello["features"]["events"]}
        for method in sorted(REVIEWED.methods - {"connect"}):
            with pytest.raises(RequestError) as refused:
                await admin.request(method, {"no-such-parameter": 1})
            known = "unknown method" not in refused.value.error["message"]
            assert known is (method not in ASKED_FOR_IN_VAIN), method


async def test_what_the_schema_lacks_is_taken_all_the_same(gateway: Gateway) -> None:
    """Each with a value of another type: the gateway complains of that, and not of the name."""
    async with RawClient.admin(gateway) as admin:
        for method, names in REVIEWED.newer.items():
            for name in sorted(names):
                head, _, inner = name.partition("[].")
                params = {head: [{inner: {"no-such": 1}}]} if inner else {name: {"no-such": 1}}
                with pytest.raises(RequestError) as refused:
                    await admin.request(method, params)
                assert f"unexpected property '{inner or name}'" not in refused.value.error["message"], (method, name)
