"""A user's connection to the gateway itself, beside the sidecar: the same user, as the gateway knows them, with another device.

What a client of a gateway of one's own gets is what the gateway sends it where nothing is in between.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence

from sidecar.protocol.device import Claim, Device
from sidecar.protocol.handshake import PAIRING_CLIENTS, forwarded_address, needs_origin
from tests.stack.gateway import USER_HEADER, USER_SCOPES, Gateway
from tests.stack.raw import RawClient, RequestError, connect_params

_SEAL = secrets.token_bytes(32)


@contextlib.asynccontextmanager
async def direct(
    gateway: Gateway, slug: str, caps: Sequence[str] = (), *, device: Device | None = None
) -> AsyncIterator[RawClient]:
    """`slug` in person, past hello, as `gateway-client`/`backend`; pairs the device on the first time.

    With a shared token a gateway knows nobody by name, and `slug` is but the name of a device.
    """
    device = device or Device.derive(_SEAL, gateway.url, slug)
    async with contextlib.AsyncExitStack() as stack:
        try:
            client = await _greeted(stack, gateway, slug, device, ("gateway-client", "backend"), caps)
        except RequestError:
            for identity in PAIRING_CLIENTS:
                with contextlib.suppress(RequestError):
                    async with contextlib.AsyncExitStack() as pairing:
                        await _greeted(pairing, gateway, slug, device, identity, ())
                    break
            client = await _greeted(stack, gateway, slug, device, ("gateway-client", "backend"), caps)
        yield client


async def _greeted(
    stack: contextlib.AsyncExitStack,
    gateway: Gateway,
    slug: str,
    device: Device,
    identity: tuple[str, str],
    caps: Sequence[str],
) -> RawClient:
    headers = (
        {}
        if gateway.token
        else {
            USER_HEADER: slug,
            "x-forwarded-for": forwarded_address(slug),
            "x-openclaw-scopes": ",".join(USER_SCOPES),
        }
    )
    if needs_origin(*identity):
        headers["origin"] = gateway.options.allowed_origins[0] if gateway.options.allowed_origins else ""
    client = await stack.enter_async_context(RawClient.open(gateway.url, headers))
    challenge = (await client.wait_for(lambda frame: frame.get("event") == "connect.challenge"))["payload"]
    client_id, mode = identity
    params = connect_params(
        {"token": gateway.token} if gateway.token else None,
        client={"id": client_id, "version": "1.0.0", "platform": "linux", "mode": mode},
        caps=list(caps),
        scopes=list(USER_SCOPES),
    )
    claim = Claim(client_id, mode, "operator", USER_SCOPES, gateway.token, challenge["nonce"], challenge["ts"])
    params["device"] = device.sign(claim)
    client.hello = await client.request("connect", params)
    return client
