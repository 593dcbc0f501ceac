"""Where a token may stand, and what happens when it stands in two places.

    upgrade    Authorization: Bearer <token>
               Sec-WebSocket-Protocol: openclaw, bearer.<token>      browsers cannot set Authorization
    connect    params.auth.token, else params.auth.password          what `openclaw` and its clients send
    request    Authorization: Bearer <token>                         of our own HTTP API

Never in the address: it ends in access logs, histories and Referer headers. The subprotocol that carries a
token is never echoed; the plain one beside it is.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from sidecar.identity.refusals import refused

MAX_TOKEN = 16 * 1024
"""Bytes."""

_BEARER = re.compile(r"bearer[ \t]+(?P<token>.*)", re.IGNORECASE | re.DOTALL)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SUBPROTOCOL = "bearer."
_QUERY_NAMES = frozenset(
    {
        "accesstoken", "apikey", "auth", "authorization", "authtoken", "bearer", "bearertoken", "credential",
        "credentials", "idtoken", "jwt", "password", "refreshtoken", "sessiontoken", "token",
    }
)  # fmt: skip
_LOOKS_LIKE_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.")


@dataclass(frozen=True, slots=True)
class Credential:
    """What an upgrade request brought. Not verified; never to be logged."""

    token: str
    echo_protocol: str | None
    """The subprotocol to answer with, never the one that held the token; None: none was offered."""

    def __repr__(self) -> str:
        return f"Credential(token=…, echo_protocol={self.echo_protocol!r})"


def credential_from_upgrade(headers: Mapping[str, str], query: str = "") -> Credential | None:
    """The credential of an upgrade request, or None if it has none (then `connect` must have one).

    `headers` in any case, repeated fields as repeated items (aiohttp's multidict); `query` is the raw query
    string. Raises TokenRefused: `query`, `carrier`, `malformed`, `oversized`, `ambiguous`.
    """
    _refuse_query(query)
    tokens = [*_from_authorization(headers), *_from_subprotocols(headers)]
    if not tokens:
        return None
    return Credential(_one(tokens), echo_protocol(headers))


def echo_protocol(headers: Mapping[str, str]) -> str | None:
    """The first plain subprotocol that the client offered: the one to echo, with or without a token."""
    return next((name for name in _subprotocols(headers) if not _carries_token(name)), None)


def credential_from_connect(params: Mapping[str, object]) -> str | None:
    """The token in `connect` params, or None. Raises TokenRefused: `malformed`, `oversized`, `ambiguous`."""
    auth = params.get("auth")
    if auth is None:
        return None
    if not isinstance(auth, Mapping):
        raise refused("malformed")
    tokens = [_checked(text) for text in (_text(auth, "token"), _text(auth, "password")) if text]
    return _one(tokens) if tokens else None


def token_from_request(headers: Mapping[str, str], query: str = "") -> str:
    """The token of a plain HTTP request, which may stand in `Authorization` alone.

    Raises TokenRefused: `query`, `missing`, `malformed`, `oversized`, `ambiguous`.
    """
    _refuse_query(query)
    tokens = [*_from_authorization(headers)]
    if not tokens:
        raise refused("missing")
    return _one(tokens)


def agreed_token(upgrade: Credential | None, connect: str | None) -> str:
    """The one token of a connection. Raises TokenRefused: `missing` where there is none, `ambiguous` where
    there are two."""
    brought = (upgrade.token if upgrade else None, connect)
    tokens = [_checked(token) for token in brought if token is not None]
    if not tokens:
        raise refused("missing")
    return _one(tokens)


def _refuse_query(query: str) -> None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if re.sub(r"[^a-z]", "", name.lower()) in _QUERY_NAMES or _LOOKS_LIKE_JWT.search(name + value):
            raise refused("query")


def _from_authorization(headers: Mapping[str, str]) -> Iterable[str]:
    """Other schemes (a proxy's Basic) are not ours to judge."""
    for value in _values(headers, "authorization"):
        bearer = _BEARER.fullmatch(value.strip(" \t"))
        if bearer or value.strip(" \t").lower() == "bearer":
            yield _checked(bearer["token"] if bearer else "")


def _from_subprotocols(headers: Mapping[str, str]) -> Iterable[str]:
    carriers = [name for name in _subprotocols(headers) if _carries_token(name)]
    if carriers and echo_protocol(headers) is None:
        raise refused("carrier")
    for name in carriers:
        yield _checked(name[len(_SUBPROTOCOL) :])


def _subprotocols(headers: Mapping[str, str]) -> list[str]:
    listed = ",".join(_values(headers, "sec-websocket-protocol")).split(",")
    return [name for name in (item.strip(" \t") for item in listed) if name]


def _carries_token(subprotocol: str) -> bool:
    return subprotocol.lower().startswith(_SUBPROTOCOL)


def _values(headers: Mapping[str, str], wanted: str) -> list[str]:
    return [value for name, value in headers.items() if name.lower() == wanted]


def _text(auth: Mapping[object, object], name: str) -> str:
    value = auth.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refused("malformed")
    return value


def _checked(token: str) -> str:
    if len(token) > MAX_TOKEN:
        raise refused("oversized")
    if not _TOKEN68.fullmatch(token):
        raise refused("malformed")
    return token


def _one(tokens: list[str]) -> str:
    first, *others = tokens
    if not all(hmac.compare_digest(first, other) for other in others):
        raise refused("ambiguous")
    return first
