"""A real OpenID provider as a child process: the certified npm package `oidc-provider`.

It takes any login name. Access tokens are JWTs (`typ: at+jwt`) for the audience `openclaw`, signed RS256 or,
when asked, ES256; `sub` is the login name, `roles` follows from it: `admin-…` is an administrator, `guest-…` a guest,
anybody else a user. The client id is `openclaw` too, so that an ID token has the same audience as an access token: only
its `typ` and claims tell them apart.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
from yarl import URL

from tests.stack.driver import Driver
from tests.stack.node import Progress, ensure_packages, silent
from tests.stack.process import StackError

SCRIPT = Path(__file__).with_suffix(".mjs")
CLIENT_ID = "openclaw"
AUDIENCE = "openclaw"
REDIRECT_URI = "http://127.0.0.1/callback"
SCOPE = "openid profile email"
MAX_REDIRECTS = 8


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one login brings. `refresh_token` is empty unless asked for."""

    access_token: str
    id_token: str
    refresh_token: str
    expires_in: int


class IdentityProvider:
    """`async with IdentityProvider(folder) as provider:` or `start()` and `stop()`."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        lifetime: int = 3600,
        redirect_uris: Sequence[str] = (),
        progress: Progress = silent,
    ) -> None:
        self.port = port
        """Taken by the first start when 0, and kept."""
        self._folder = folder
        self._lifetime = lifetime
        self._redirect_uris = list(redirect_uris)
        self._progress = progress
        self._keys: list[dict[str, Any]] = []
        self._driver: Driver | None = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.issuer}/jwks"

    async def __aenter__(self) -> IdentityProvider:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start, or come back: same port, same keys. Raises StackError, CommandError (the port is taken)."""
        driver = Driver(SCRIPT, await ensure_packages(progress=self._progress), self._folder, lambda _: None)
        await driver.start()
        self._driver = driver
        try:
            started = await driver.call(
                "start",
                port=self.port,
                keys=self._keys,
                lifetime=self._lifetime,
                redirectUris=self._redirect_uris,
            )
        except BaseException:
            await driver.kill()
            raise
        self.port, self._keys = started["port"], started["keys"]

    async def stop(self) -> None:
        """Go away; `start()` brings the same provider back."""
        if self._driver is not None:
            await self._driver.stop()
            self._driver = None

    async def rotate_keys(self, *, keep_old: bool = True) -> None:
        """Sign with new keys from now on; the old ones stay published, or are taken back. Sessions end."""
        if self._driver is None:
            raise StackError("the OpenID provider is not running")
        self._keys = (await self._driver.call("rotate", keep=keep_old))["keys"]

    async def token_for(self, user: str, *, lifetime: int | None = None, algorithm: str = "RS256") -> str:
        """An access token of `user`, living `lifetime` seconds (default: the provider's)."""
        return (await self.login(user, lifetime=lifetime, algorithm=algorithm)).access_token

    async def id_token_for(self, user: str) -> str:
        return (await self.login(user)).id_token

    async def login(
        self, user: str, *, lifetime: int | None = None, algorithm: str = "RS256", refresh: bool = False
    ) -> Tokens:
        """Authorization code with PKCE, as a browser would walk it. Raises StackError when it is refused."""
        verifier = secrets.token_urlsafe(48)
        # The provider's cookies belong to an IP address, which aiohttp ignores by default.
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            code = await self._authorize(session, user, verifier, refresh)
            form = {
                "grant_type": "authorization_code",
                "client_id": CLIENT_ID,
                "code": code,
                "redirect_uri": REDIRECT_URI,
                "code_verifier": verifier,
                "stack_algorithm": algorithm,
            } | ({} if lifetime is None else {"stack_lifetime": str(lifetime)})
            return await self._exchange(session, form)

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens for a refresh token. Raises StackError when it is refused."""
        form = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": refresh_token}
        async with aiohttp.ClientSession() as session:
            return await self._exchange(session, form)

    async def _authorize(self, session: aiohttp.ClientSession, user: str, verifier: str, refresh: bool) -> str:
        query = {
            "client_id": CLIENT_ID,
            "response_type": "code",
            "redirect_uri": REDIRECT_URI,
            "scope": SCOPE + (" offline_access" if refresh else ""),
            "code_challenge": _unpadded(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
            "login_hint": user,
            "nonce": secrets.token_urlsafe(16),
        } | ({"prompt": "consent"} if refresh else {})
        location = f"{self.issuer}/auth?{urlencode(query)}"
        for _ in range(MAX_REDIRECTS):
            async with session.get(location, allow_redirects=False) as response:
                if response.status not in {302, 303}:
                    raise StackError(f"login of a user: HTTP {response.status}: {await response.text()}")
                location = str(response.url.join(URL(response.headers["Location"])))
            if location.startswith(REDIRECT_URI):
                return _code(location)
        raise StackError(f"login of a user: more than {MAX_REDIRECTS} redirects")

    async def _exchange(self, session: aiohttp.ClientSession, form: dict[str, str]) -> Tokens:
        async with session.post(f"{self.issuer}/token", data=form) as response:
            answer = await response.json()
            if response.status != 200:
                raise StackError(f"token request: HTTP {response.status}: {answer}")
        return Tokens(answer["access_token"], answer["id_token"], answer.get("refresh_token", ""), answer["expires_in"])


def _code(location: str) -> str:
    query = parse_qs(urlsplit(location).query)
    if "code" not in query:
        raise StackError(f"login of a user was refused: {query}")
    return query["code"][0]


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
