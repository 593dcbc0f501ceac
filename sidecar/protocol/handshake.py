"""The handshake, both halves: what a client said, what we say to the gateway, and the `hello-ok` that the client gets.

The sidecar is a terminus: upstream `connect` params are built from what is allowed, never copied from the client and patched.
Shapes as in the `ConnectParams` and `HelloOk` schemas of gateway 2026.9.6.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.domain.namespace import Namespace
from sidecar.errors import MalformedFrame
from sidecar.protocol.device import Claim, Device

MAX_CONNECT_BYTES = 64 * 1024
MAX_FRAME_BYTES = 25 * 1024 * 1024
MAX_ADMIN_FRAME_BYTES = 4 * 1024 * 1024
"""Of a request that the sidecar's own connection sends for a user: it is shared by all of them, the gateway closes it at
`MAX_FRAME_BYTES`, and an answer may hold as much again. A file of an agent has 2 MiB at most (2026.9.6)."""

SCOPES = ("operator.read", "operator.write", "operator.approvals", "operator.questions")
"""All that a user's connection ever asks for. Never `operator.admin`: slash commands would then be theirs."""

GUEST_SCOPES = SCOPES[:2]
"""The same for who is a guest and nothing more."""

BROWSER_CLIENTS = frozenset({"webchat-ui", "openclaw-control-ui"})
_BROWSER_MODE = "webchat"

_CLIENTS = BROWSER_CLIENTS | {
    "webchat",
    "openclaw-tui",
    "cli",
    "gateway-client",
    "openclaw-macos",
    "openclaw-linux",
    "openclaw-ios",
    "openclaw-watchos",
    "openclaw-android",
    "openclaw-browser-copilot",
    "test",
}
_MODES = frozenset({"webchat", "ui", "cli", "backend", "test"})
_FALLBACK = ("gateway-client", "backend")
PAIRING_CLIENTS = (("openclaw-linux", "ui"), ("webchat-ui", "webchat"))
"""Identities under which a gateway behind a trusted proxy approves a new device by itself: the first without any `Origin`, from
2026.9 on; the second with an `Origin` that it allows, also 2026.8.2. Once paired, the same key connects as any client."""

_WORD = re.compile(r"[\x20-\x7e]{1,128}")
_CAP = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_CAPS = 64
_CLIENT_TEXT = ("version", "buildId", "displayName", "timeZone")


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client's `connect` said, as far as it may count."""

    client_id: str
    client_mode: str
    client: Mapping[str, str]
    """Its `version`, `buildId`, `displayName`, `timeZone`, where given."""

    min_protocol: int
    max_protocol: int
    caps: Sequence[str]
    scopes: Sequence[str]
    locale: str
    user_agent: str
    auth: Mapping[str, Any]
    session_key: str
    """Where a client written for a patched gateway says which session it opens in; empty: its main one."""


def read_connect(params: Mapping[str, Any]) -> ClientHello:
    """`connect.params` of a client. Raises MalformedFrame; fields that are not listed here are not looked at."""
    client = params.get("client")
    if not isinstance(client, dict):
        raise MalformedFrame("connect needs params.client {id, version, platform, mode}")
    if params.get("role", "operator") != "operator":
        raise MalformedFrame("only the role 'operator' connects through the sidecar")
    client_id, mode = _word(client.get("id")), _word(client.get("mode"))
    if client_id not in _CLIENTS or mode not in _MODES:
        client_id, mode = _FALLBACK
    caps = params.get("caps", [])
    if not isinstance(caps, list) or len(caps) > _MAX_CAPS or not all(_matches(_CAP, cap) for cap in caps):
        raise MalformedFrame("caps is a list of capability names")
    asked = params.get("scopes", list(SCOPES))
    if not isinstance(asked, list):
        raise MalformedFrame("scopes is a list of scope names")
    auth = params.get("auth", {})
    if not isinstance(auth, dict):
        raise MalformedFrame("auth is an object that holds a token or a password")
    session_key = params.get("sessionKey", "")
    return ClientHello(
        client_id=client_id,
        client_mode=mode,
        client={name: client[name] for name in _CLIENT_TEXT if _matches(_WORD, client.get(name))},
        min_protocol=_protocol(params.get("minProtocol")),
        max_protocol=_protocol(params.get("maxProtocol")),
        caps=tuple(caps),
        scopes=tuple(scope for scope in SCOPES if scope in asked or "operator.admin" in asked),
        locale=_word(params.get("locale")),
        user_agent=_word(params.get("userAgent")),
        auth=auth,
        session_key=session_key if isinstance(session_key, str) else "",
    )


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _word(value: Any) -> str:
    return value if _matches(_WORD, value) else ""


def _protocol(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
        raise MalformedFrame("connect needs minProtocol and maxProtocol: whole numbers from 1")
    return value


@dataclass(frozen=True, slots=True)
class Challenge:
    """The gateway's `connect.challenge`: `ts` in milliseconds."""

    nonce: str
    ts: int


def connect_params(
    hello: ClientHello, challenge: Challenge, *, device: Device | None, auth: Mapping[str, str], scopes: Sequence[str]
) -> dict[str, Any]:
    """`connect.params` towards the gateway. `auth`: `{token: …}`, `{password: …}` or empty (the user header says who it is)."""
    params: dict[str, Any] = {
        "minProtocol": hello.min_protocol,
        "maxProtocol": hello.max_protocol,
        "client": {
            "version": "0",
            **hello.client,
            "id": hello.client_id,
            "mode": hello.client_mode,
            "platform": "linux",
        },
        "caps": list(hello.caps),
        "role": "operator",
        "scopes": list(scopes),
    }
    if hello.locale:
        params["locale"] = hello.locale
    if hello.user_agent:
        params["userAgent"] = hello.user_agent
    if auth:
        params["auth"] = dict(auth)
    if device is not None:
        claim = Claim(
            hello.client_id, hello.client_mode, "operator", scopes, auth.get("token", ""), challenge.nonce, challenge.ts
        )
        params["device"] = device.sign(claim)
    return params


def needs_origin(client_id: str, client_mode: str) -> bool:
    """Does a gateway accept this client only with an `Origin` that it allows (2026.8.2 and 2026.9.6)?"""
    return client_id in BROWSER_CLIENTS or client_mode == _BROWSER_MODE


def forwarded_address(slug: str) -> str:
    """An address that stands for a user in `X-Forwarded-For`, so that a gateway's limits per address are limits per user.

    From the range for documentation (RFC 3849): never loopback, which the gateway refuses, never a real person's.
    """
    digest = hashlib.sha256(slug.encode()).hexdigest()
    return "2001:db8:" + ":".join(digest[at : at + 4] for at in range(0, 24, 4))


def rewrite_hello(
    hello: Mapping[str, Any],
    namespace: Namespace,
    *,
    open_in: str,
    passes_method: Callable[[str], bool],
    passes_event: Callable[[str], bool],
    connection_id: str,
) -> dict[str, Any]:
    """The `hello-ok` that a client gets: a gateway with one user and one agent, without paths, tokens or anybody else.

    Built from the members named here; whatever a later gateway adds stays behind until it is added here.
    """
    server, features = _object(hello, "server"), _object(hello, "features")
    snapshot, auth = _object(hello, "snapshot"), _object(hello, "auth")
    return {
        "type": "hello-ok",
        "protocol": hello.get("protocol"),
        "server": {**_only(server, "version", "buildId", "bootId", "controlUiBuildSource"), "connId": connection_id},
        "features": {
            "methods": [name for name in _list(features, "methods") if passes_method(name)],
            "events": [name for name in _list(features, "events") if passes_event(name)],
            **_only(features, "capabilities"),
        },
        "snapshot": {
            "presence": [],
            "health": own_health(_object(snapshot, "health"), namespace),
            "sessionDefaults": {
                **_only(_object(snapshot, "sessionDefaults"), "mainKey", "scope"),
                "defaultAgentId": namespace.agent_id,
                "mainSessionKey": open_in,
            },
            **_only(snapshot, "stateVersion", "uptimeMs", "authMode", "suspension"),
        },
        "auth": _only(auth, "role", "scopes"),
        "policy": _only(_object(hello, "policy"), "maxPayload", "maxBufferedBytes", "tickIntervalMs", "attachments"),
    }


def own_health(health: Mapping[str, Any], namespace: Namespace) -> dict[str, Any]:
    """A health snapshot or `health` answer that knows of the user's own agent alone: no path, channel, host or other agent."""
    own = [
        _only(agent, "agentId", "name", "isDefault") | {"isDefault": True}
        for agent in _list(health, "agents")
        if isinstance(agent, dict) and agent.get("agentId") == namespace.agent_id
    ]
    told = _only(health, "ok", "ts", "durationMs")
    return {
        **{name: value for name, value in told.items() if isinstance(value, (int, float))},
        "channels": {},
        "channelOrder": [],
        "channelLabels": {},
        "defaultAgentId": namespace.agent_id,
        "agents": own or [{"agentId": namespace.agent_id, "isDefault": True}],
        "sessions": {"count": 0, "recent": []},
    }


def _object(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _list(parent: Mapping[str, Any], name: str) -> list[Any]:
    value = parent.get(name)
    return value if isinstance(value, list) else []


def _only(parent: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: parent[name] for name in names if name in parent}
