"""An issuer of access tokens on this host: a real RSA key, a discovery document, a JWKS."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

AUDIENCE = "openclaw"
LIFETIME_S = 6 * 3600
_KEY_ID = "loadtest"


class Issuer:
    """Its tokens are RS256, each another one, even for the same user."""

    def __init__(self) -> None:
        self.url = ""
        self._key = rsa.generate_private_key(65537, 2048)

    def token(self, subject: str) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + LIFETIME_S}
        headers = {"typ": "at+jwt", "kid": _KEY_ID}
        return jwt.encode(claims | {"jti": secrets.token_hex(8)}, self._key, "RS256", headers)

    def keys(self) -> dict[str, object]:
        published = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [published | {"kid": _KEY_ID, "use": "sig", "alg": "RS256"}]}


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Issuer]:
    """An issuer that answers as long as the context lasts."""
    issuer = Issuer()

    async def discovery(_: web.Request) -> web.Response:
        return web.json_response({"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"})

    async def keys(_: web.Request) -> web.Response:
        return web.json_response(issuer.keys())

    application = web.Application()
    application.add_routes([web.get("/.well-known/openid-configuration", discovery), web.get("/jwks", keys)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield issuer
    finally:
        await runner.cleanup()
