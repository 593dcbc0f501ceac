"""An issuer for tests: real keys, tokens made by hand (wrong ones too), a real JWKS server."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.telemetry.facts import Fact, KeysFetched

NOW = 1_800_000_000.0
ISSUER = "https://login.example.com/"
AUDIENCE = "openclaw"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class Key:
    """A key pair as an issuer has it."""

    kid: str | None
    algorithm: str
    private: PrivateKey

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half, as it is published."""
        name = {"Ed25519": "EdDSA"}.get(self.algorithm, self.algorithm)
        published: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(name).to_jwk(self.private.public_key()))
        published.pop("key_ops", None)
        return {**published, "use": "sig", **({} if self.kid is None else {"kid": self.kid})}

    @property
    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def signature(self, signed: bytes, algorithm: str | None = None) -> bytes:
        name = algorithm or self.algorithm
        return jwt.get_algorithm_by_name({"Ed25519": "EdDSA"}.get(name, name)).sign(signed, self.private)


@functools.cache
def make_key(kid: str | None = "k1", algorithm: str = "RS256", bits: int = 2048) -> Key:
    """The same key for the same arguments: RSA keys take long to make."""
    if algorithm.startswith(("RS", "PS")):
        return Key(kid, algorithm, rsa.generate_private_key(65537, bits))
    if algorithm in _CURVES:
        return Key(kid, algorithm, ec.generate_private_key(_CURVES[algorithm]))
    return Key(kid, algorithm, ed25519.Ed25519PrivateKey.generate())


def claims(**changes: Any) -> dict[str, Any]:
    """What a good access token says; a change to `...` takes the claim out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 3600, "iat": NOW, "scope": "openid"}
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def token(
    key: Key,
    body: Mapping[str, Any] | bytes | None = None,
    header: Mapping[str, Any] | None = None,
    sign_with: str | None = None,
) -> str:
    """A signed token. `header` adds to the usual one, `...` takes away; `sign_with` is the true `alg`."""
    wanted = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid, **(header or {})}
    kept = {name: value for name, value in wanted.items() if value is not ... and value is not None}
    payload = body if isinstance(body, bytes) else json.dumps(claims() if body is None else body).encode()
    return joined(key, json.dumps(kept).encode(), payload, sign_with)


def joined(key: Key, header: bytes, payload: bytes, sign_with: str | None = None) -> str:
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(key.signature(signed.encode(), sign_with))}"


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Facts:
    """A `Report` that remembers."""

    seen: list[Fact] = field(default_factory=list)

    def __call__(self, fact: Fact) -> None:
        self.seen.append(fact)

    @property
    def fetches(self) -> list[KeysFetched]:
        return [fact for fact in self.seen if isinstance(fact, KeysFetched)]


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class KeyServer:
    """Publishes `keys` at `/jwks` and a discovery document; counts what it is asked for."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    discovery: dict[str, Any] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    misbehave: Handler | None = None
    """Answers in place of the JWKS."""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.path] += 1
        if request.path.endswith("/.well-known/openid-configuration"):
            return web.json_response({"issuer": self.url, "jwks_uri": self.jwks_url, **self.discovery})
        if self.misbehave is not None:
            return await self.misbehave(request)
        return web.json_response({"keys": self.keys})

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/jwks"

    @property
    def jwks_requests(self) -> int:
        return self.requests["/jwks"]


@asynccontextmanager
async def key_server(port: int = 0) -> AsyncIterator[KeyServer]:
    server = KeyServer()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    address = runner.addresses[0]
    server.url = f"http://127.0.0.1:{address[1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


async def settled(rounds: int = 20) -> None:
    """Lets everything run that needs no I/O."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def refreshed(facts: Facts, fetches: int) -> None:
    """Waits for fetches beside the use."""
    for _ in range(500):
        if len(facts.fetches) >= fetches:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{len(facts.fetches)} fetches, not {fetches}")


def answers(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return handler
