"""Fetching an issuer's documents over HTTP: small, soon, from where we asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import aiohttp

from sidecar.errors import IdentityAway

Fetch = Callable[[str], Awaitable[bytes]]
"""URL → body. Raises IdentityAway, with a sentence for the operator."""

MAX_BYTES = 256 * 1024


class HttpFetch:
    """A `Fetch` by aiohttp. Follows no redirect, keeps no cookie, reads no proxy settings; close with
    `aclose`.

    The session is made at the first call, in the loop that calls.
    """

    def __init__(self, *, timeout_seconds: float = 5.0, max_bytes: int = MAX_BYTES) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, url: str) -> bytes:
        host = urlsplit(url).netloc
        try:
            return await self._get(url, host)
        except TimeoutError:
            raise IdentityAway(f"{host} did not answer in {self._timeout.total:g} s") from None
        except aiohttp.ClientConnectorCertificateError:
            raise IdentityAway(f"the TLS certificate of {host} is not trusted (SSL_CERT_FILE names a CA)") from None
        except (aiohttp.ClientError, OSError) as error:
            raise IdentityAway(f"{host} cannot be reached: {type(error).__name__}") from None

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _get(self, url: str, host: str) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar())
        headers = {"Accept": "application/json"}
        async with self._session.get(url, allow_redirects=False, headers=headers) as response:
            if 300 <= response.status < 400:
                raise IdentityAway(f"{host} answers with a redirect: set jwks_url to where the keys are")
            if response.status != 200:
                raise IdentityAway(f"{host} answers with status {response.status}")
            return await self._read(response, host)

    async def _read(self, response: aiohttp.ClientResponse, host: str) -> bytes:
        """Counts what was unpacked, so that a small compressed answer cannot grow past the limit."""
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_bytes:
                raise IdentityAway(f"{host} answers with more than {self._max_bytes // 1024} KiB")
        return bytes(body)
