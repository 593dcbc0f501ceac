"""Dial a gateway and go through its handshake: challenge, `connect`, `hello-ok`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sidecar.errors import GatewayAway, Refusal
from sidecar.gateways.options import GatewayOptions
from sidecar.protocol import frames
from sidecar.protocol.device import Device
from sidecar.protocol.handshake import (
    MAX_FRAME_BYTES,
    PAIRING_CLIENTS,
    SCOPES,
    Challenge,
    ClientHello,
    connect_params,
)
from sidecar.protocol.requests import OWN_ID_PREFIX, encode
from sidecar.protocol.session_events import SESSION_SCOPED
from sidecar.wire.dial import Dialled, dial

GREETING_SECONDS = 15.0
_CONNECT_ID = OWN_ID_PREFIX + "connect"

Failed = Callable[[Exception], None]


@dataclass(frozen=True, slots=True)
class Upstream:
    """An open connection to a gateway, past hello. What came behind hello waits in the inbox."""

    link: Dialled
    hello: Mapping[str, Any]


class ProtocolRefused(Refusal):
    """The gateway does not speak the protocol versions that the client named; the message is the gateway's."""

    detail_code = "PROTOCOL_MISMATCH"


async def greet_as_user(
    gateway: GatewayOptions, slug: str, device: Device, hello: ClientHello, failed: Failed, *, first_time: bool = False
) -> Upstream:
    """Connect as a user, with the device that stands for them; pairs the device where the gateway does not know it.

    `first_time` pairs at once: an attempt that must fail would leave a request to approve the device behind.
    Raises GatewayAway, ProtocolRefused.
    """
    if not first_time:
        with contextlib.suppress(_NotPaired):
            return await _greet_user(gateway, slug, device, hello, failed)
    for client_id, mode in PAIRING_CLIENTS:
        with contextlib.suppress(_NotPaired):
            paired = await _greet_user(gateway, slug, device, _pairing(client_id, mode, hello), failed)
            paired.link.wire.close(1000)
            return await _greet_user(gateway, slug, device, hello, failed)
    raise GatewayAway(
        "the gateway does not approve the sidecar's device: enable gateway.auth.trustedProxy.deviceAutoApprove with the "
        f"scopes {', '.join(SCOPES)}, and name server.public_url in gateway.controlUi.allowedOrigins"
    )


def _pairing(client_id: str, mode: str, hello: ClientHello) -> ClientHello:
    return replace(
        hello,
        client_id=client_id,
        client_mode=mode,
        client={},
        caps=(),
        scopes=SCOPES,
        locale="",
        user_agent="",
        auth={},
    )


async def _greet_user(
    gateway: GatewayOptions, slug: str, device: Device, hello: ClientHello, failed: Failed
) -> Upstream:
    return await _greet(
        gateway.url,
        gateway.user_headers(slug, hello.client_id, hello.client_mode),
        lambda challenge: connect_params(
            hello, challenge, device=device, auth=gateway.user_auth(), scopes=hello.scopes
        ),
        failed,
    )


async def greet_as_admin(gateway: GatewayOptions, scopes: Sequence[str], failed: Failed) -> Upstream:
    """The sidecar's own connection. Raises GatewayAway."""
    ours = ClientHello(
        client_id="gateway-client",
        client_mode="backend",
        client={"displayName": "openclaw-sidecar"},
        min_protocol=3,
        max_protocol=4,
        caps=(SESSION_SCOPED,),
        scopes=scopes,
        locale="",
        user_agent="",
        auth={},
        session_key="",
    )
    try:
        return await _greet(
            gateway.url,
            gateway.admin_headers(),
            lambda challenge: connect_params(ours, challenge, device=None, auth=gateway.admin_auth(), scopes=scopes),
            failed,
        )
    except (_NotPaired, ProtocolRefused) as error:
        raise GatewayAway(f"the gateway refused the sidecar's own connection: {error.message}") from None


class _NotPaired(GatewayAway):
    pass


async def _greet(
    url: str, headers: Mapping[str, str], params: Callable[[Challenge], dict[str, Any]], failed: Failed
) -> Upstream:
    link = await dial(url, headers, max_size=MAX_FRAME_BYTES, timeout=GREETING_SECONDS, failed=failed)
    try:
        challenge = _challenge(await link.inbox.next(GREETING_SECONDS))
        link.wire.send(encode(_CONNECT_ID, "connect", params(challenge)))
        while True:
            raw = await link.inbox.next(GREETING_SECONDS)
            if frames.response_id(raw) == _CONNECT_ID:
                return Upstream(link, _hello(raw))
    except (TimeoutError, ConnectionResetError) as error:
        link.wire.abort()
        raise GatewayAway(f"the gateway did not finish the handshake: {type(error).__name__}") from None
    except BaseException:
        link.wire.abort()
        raise


def _challenge(raw: bytes) -> Challenge:
    payload = (frames.parse(raw) or {}).get("payload")
    if isinstance(payload, dict):
        nonce, ts = payload.get("nonce"), payload.get("ts")
        if isinstance(nonce, str) and isinstance(ts, int):
            return Challenge(nonce, ts)
    raise GatewayAway("the gateway did not begin with a challenge")


def _hello(raw: bytes) -> Mapping[str, Any]:
    frame = frames.parse(raw) or {}
    payload, error = frame.get("payload"), frame.get("error")
    if frame.get("ok") is True and isinstance(payload, dict):
        return payload
    error = error if isinstance(error, dict) else {}
    details = error.get("details")
    details = details if isinstance(details, dict) else {}
    code = str(error.get("code", "?"))
    if code == "NOT_PAIRED" and details.get("reason") in {None, "not-paired", "scope-upgrade"}:
        raise _NotPaired("the gateway does not know the sidecar's device")
    if error.get("retryable") is True:
        after = error.get("retryAfterMs")
        raise GatewayAway("the gateway is starting", retry_after_ms=after if isinstance(after, int) else 500)
    word = str(details.get("code", code))
    if "PROTOCOL" in word:
        raise ProtocolRefused(str(error.get("message", "protocol mismatch")))
    raise GatewayAway(f"the gateway refused the sidecar ({word}); `gateways` in its configuration and ours must agree")
