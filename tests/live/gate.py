"""The sidecar's gate under attack: every issuer that a test may want, and a tap on the way to the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.identity.issuer import Key, KeyServer, claims, key_server, make_key, token
from tests.live.tap import Tap
from tests.stack.gateway import Gateway
from tests.stack.identity_provider import IdentityProvider
from tests.stack.process import free_port
from tests.stack.raw import RawClient, RequestError, connect_params
from tests.stack.sidecar import Sidecar, SidecarOptions

RSA = make_key("rsa")
EC = make_key("ec", "ES256")
STRANGE = make_key("strange")
"""Nobody publishes it."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One sidecar that trusts a real provider and three issuers of ours."""

    gateway: Gateway
    tap: Tap
    provider: IdentityProvider
    """Its users are `u-<login>`. Its own: its keys may be rotated, once in 30 seconds."""

    hand: KeyServer
    """Publishes `RSA` and `EC`; for tokens made by hand."""

    flooded: KeyServer
    """The same; for what makes the sidecar ask for keys."""

    fading_port: int
    """Where a fourth issuer would be; nothing listens."""

    sidecar: Sidecar
    tokens: list[str] = field(default_factory=list)
    """Every token that was shown, good or bad."""
    received: list[str] = field(default_factory=list)
    """What those who were refused received."""

    async def token(self, user: str, lifetime: int = 3600) -> str:
        """A good one, of the real provider."""
        return self.shown(await self.provider.token_for(user, lifetime=lifetime))

    def shown(self, credential: str) -> str:
        self.tokens.append(credential)
        return credential

    @contextlib.asynccontextmanager
    async def client(self, user: str, lifetime: int = 3600) -> AsyncIterator[RawClient]:
        auth = {"token": await self.token(user, lifetime)}
        async with RawClient.connect(self.sidecar.url, auth) as client:
            yield client

    async def refused(
        self,
        auth: Mapping[str, str] | None,
        headers: Mapping[str, str] | None = None,
        protocols: tuple[str, ...] = (),
        close_code: int = 1008,
    ) -> RequestError:
        """Knock, and be told why not. Nothing may have reached the gateway."""
        accepted = self.tap.accepted
        async with RawClient.open(self.sidecar.url, headers, protocols=protocols) as client:
            with pytest.raises(RequestError) as refusal:
                await client.greet(connect_params(auth))
            assert await client.wait_closed() == close_code
            self.received.extend(client.received)
        assert self.tap.accepted == accepted, "no connection to the gateway before somebody is known"
        return refusal.value

    async def refused_upgrade(
        self, headers: Mapping[str, str] | None = None, query: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Status and error object of an upgrade that is refused."""
        asked = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **(headers or {}),
        }
        url = f"{self.sidecar.http_url}/{query}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=asked) as answer:
            assert answer.status != 101
            self.received.append(await answer.text())
            error: dict[str, Any] = (await answer.json())["error"]
            return answer.status, error


def made(server: KeyServer, key: Key = RSA, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """A token of `server`, signed by `key`: good but for `changes` to its claims and additions to its header."""
    return token(key, good_claims(server, **changes), header)


def good_claims(server: KeyServer, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return claims(**{"iss": server.url, "sub": "mallory", "iat": now - 1, "exp": now + 600, **changes})


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.02)
    pytest.fail("did not come true")


@contextlib.asynccontextmanager
async def standing_gate(gateway: Gateway, folder: Path) -> AsyncIterator[Gate]:
    port = free_port()
    async with (
        IdentityProvider(folder / "provider") as provider,
        key_server() as hand,
        key_server() as flooded,
        Tap(gateway.port) as tap,
    ):
        hand.keys = flooded.keys = [RSA.jwk, EC.jwk]
        options = SidecarOptions(
            folder / "sidecar",
            gateway,
            provider.issuer,
            gateway_settings={"url": tap.url},
            issuers=(
                {"name": "hand", "issuer": hand.url, "jwks_url": hand.jwks_url},
                {"name": "flooded", "issuer": flooded.url, "jwks_url": flooded.jwks_url},
                {"name": "fading", "issuer": f"http://127.0.0.1:{port}"},
            ),
        )
        async with Sidecar(options) as sidecar:
            yield Gate(gateway, tap, provider, hand, flooded, port, sidecar)
