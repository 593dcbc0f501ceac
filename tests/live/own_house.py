"""A house for one module, which may restart whatever stands in it; browsers may come in too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.live.conftest import House
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.process import free_port
from tests.stack.sidecar import Sidecar, SidecarOptions


@asynccontextmanager
async def own_house(
    folder: Path,
    model: EchoModel,
    identity_provider: IdentityProvider,
    *,
    origins: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> AsyncIterator[House]:
    """`origins`: of pages that may connect beside the sidecar's own; `extra`: settings of the gateway."""
    port = free_port()
    allowed = f"http://127.0.0.1:{port}"
    options = GatewayOptions(folder / "gateway", model.url, allowed_origins=[allowed], extra=extra or {})
    async with Gateway(options) as gateway:
        settings = {"server": {"allowed_origins": list(origins)}}
        issuer = identity_provider.issuer
        async with Sidecar(SidecarOptions(folder / "sidecar", gateway, issuer, settings, port=port)) as sidecar:
            yield House(gateway, model, identity_provider, sidecar)
