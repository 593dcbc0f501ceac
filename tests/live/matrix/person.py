"""One who has something of everything that a gateway keeps, and knows what of it nobody else may see."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.protocol.device import Claim, Device
from sidecar.protocol.handshake import PAIRING_CLIENTS, forwarded_address, needs_origin
from tests.live.conftest import House
from tests.stack.gateway import USER_HEADER, USER_SCOPES
from tests.stack.raw import RawClient, RequestError, connect_params

CAPS = ("approvals", "exec-approvals", "plugin-approvals", "task-suggestions")
CLIENT = ("gateway-client", "backend")
PATIENCE_S = 60.0


@dataclass
class Person:
    """`known`: the names that examples use → what they stand for. Everything in it was said to the gateway by its owner alone."""

    login: str
    house: House
    version: str
    client: RawClient
    """Through the sidecar."""

    bare: RawClient
    """At the gateway itself, with the very device that the sidecar shows in this user's stead."""

    admin: RawClient
    """The gateway's admin, at the gateway itself."""

    known: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    """Place → the word that stands there. No request of anybody else ever says one."""

    @property
    def slug(self) -> str:
        return f"u-{self.login}"

    @property
    def workspace(self) -> Path:
        return self.house.gateway.workspaces / self.slug / "workspace"

    def key(self, rest: str) -> str:
        return f"agent:{self.slug}:{rest}"

    def mark(self, place: str) -> str:
        """A word for this place; the same one each time."""
        return self.marks.setdefault(place, f"mark{place.replace('-', '')}{uuid.uuid4().hex[:12]}")

    def words(self) -> dict[str, str]:
        """What nobody else may be told."""
        return {name: value for name, value in self.known.items() if len(str(value)) >= 6} | self.marks

    async def chat(self, key: str, message: str, **params: Any) -> str:
        return await self.client.chat(key, message, timeout=PATIENCE_S, **params)


def new_names() -> dict[str, Any]:
    """What every call has anew."""
    names = {name: f"{name}-{uuid.uuid4().hex}" for name in ("new", "other")}
    return {**names, "now": int(time.time() * 1000)}


def filled(template: Any, names: Mapping[str, Any]) -> Any:
    """`template` with `{name}` replaced; a text that is a name and nothing else becomes its value, of whatever type."""
    if isinstance(template, str):
        whole = template[1:-1] if template.startswith("{") and template.endswith("}") else ""
        if whole in names:
            return names[whole]
        for name, value in names.items():
            template = template.replace("{" + name + "}", str(value))
        return template
    if isinstance(template, dict):
        return {name: filled(value, names) for name, value in template.items()}
    return [filled(one, names) for one in template] if isinstance(template, list) else template


@contextlib.asynccontextmanager
async def person(house: House, version: str, login: str, admin: RawClient) -> AsyncIterator[Person]:
    """Comes in through the sidecar, which makes their agent, then beside it."""
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(house.client(login, caps=list(CAPS), scopes=list(USER_SCOPES)))
        bare = await stack.enter_async_context(bare_connection(house, f"u-{login}", CAPS))
        yield Person(login, house, version, client, bare, admin)


@contextlib.asynccontextmanager
async def bare_connection(house: House, slug: str, caps: Sequence[str] = ()) -> AsyncIterator[RawClient]:
    """`slug` at the gateway itself, as the sidecar connects them: the same device, identity and scopes."""
    seal = (house.sidecar.options.folder / "data" / "secret").read_bytes().strip()
    device = Device.derive(seal, "main", slug)
    async with contextlib.AsyncExitStack() as stack:
        try:
            client = await _greeted(stack, house, slug, device, CLIENT, caps)
        except RequestError:
            await _pair(house, slug, device)
            client = await _greeted(stack, house, slug, device, CLIENT, caps)
        yield client


async def _pair(house: House, slug: str, device: Device) -> None:
    for identity in PAIRING_CLIENTS:
        with contextlib.suppress(RequestError):
            async with contextlib.AsyncExitStack() as stack:
                await _greeted(stack, house, slug, device, identity, ())
            return


async def _greeted(
    stack: contextlib.AsyncExitStack,
    house: House,
    slug: str,
    device: Device,
    identity: tuple[str, str],
    caps: Sequence[str],
) -> RawClient:
    gateway, (client_id, mode) = house.gateway, identity
    headers = {} if gateway.token else _proxied(house, slug, identity)
    client = await stack.enter_async_context(RawClient.open(gateway.url, headers))
    challenge = (await client.wait_for(lambda frame: frame.get("event") == "connect.challenge"))["payload"]
    params = connect_params(
        {"token": gateway.token} if gateway.token else None,
        client={"id": client_id, "version": "1.0.0", "platform": "linux", "mode": mode},
        caps=list(caps),
        scopes=list(USER_SCOPES),
    )
    claim = Claim(client_id, mode, "operator", USER_SCOPES, gateway.token, challenge["nonce"], challenge["ts"])
    client.hello = await client.request("connect", params | {"device": device.sign(claim)})
    return client


def _proxied(house: House, slug: str, identity: tuple[str, str]) -> dict[str, str]:
    headers = {
        USER_HEADER: slug,
        "x-forwarded-for": forwarded_address(slug),
        "x-openclaw-scopes": ",".join(USER_SCOPES),
    }
    origins = house.gateway.options.allowed_origins
    return headers | ({"origin": origins[0]} if needs_origin(*identity) and origins else {})
