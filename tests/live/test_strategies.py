"""The other ways to reach a gateway: its password, and trusted-proxy with an admin identity in place of the password."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.stack.gateway import Gateway, GatewayOptions, Mode
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import RawClient
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

PASSWORD = "correct-horse-battery"
ADMIN = "openclaw-sidecar"


@pytest.mark.parametrize(
    ("mode", "auth", "row"),
    [
        pytest.param(
            "token",
            {"mode": "password", "password": PASSWORD, "token": None},
            {"auth": "password", "password": PASSWORD, "token": ""},
            id="password",
        ),
        pytest.param(
            "trusted-proxy",
            {"identityScopes": {ADMIN: ["operator.admin", "operator.read", "operator.write"]}},
            {"password": "", "admin_user": ADMIN},
            id="admin-identity",
            marks=pytest.mark.deep,
        ),
    ],
)
async def test_a_user_chats(
    mode: Mode,
    auth: Mapping[str, Any],
    row: Mapping[str, Any],
    model: EchoModel,
    identity_provider: IdentityProvider,
    tmp_path: Path,
) -> None:
    options = GatewayOptions(
        folder=tmp_path / "gateway", model_url=model.url, mode=mode, extra={"gateway": {"auth": auth}}
    )
    token = await identity_provider.token_for("alice")
    async with Gateway(options) as gateway:
        setup = SidecarOptions(tmp_path / "sidecar", gateway, identity_provider.issuer, gateway_settings=row)
        async with Sidecar(setup) as sidecar, RawClient.connect(sidecar.url, {"token": token}) as alice:
            assert (await alice.chat("main", "hello")).endswith("hello")
            assert alice.hello["auth"]["scopes"] == ["operator.read", "operator.write"]
