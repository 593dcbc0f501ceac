"""HTTP as it is: redirects, cookies, certificates, sessions."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.errors import IdentityAway
from sidecar.identity.fetch import HttpFetch
from tests.identity.issuer import KeyServer


@pytest.fixture
async def fetch() -> AsyncIterator[HttpFetch]:
    fetch = HttpFetch()
    yield fetch
    await fetch.aclose()
    await fetch.aclose()


async def test_a_body_up_to_the_limit(server: KeyServer) -> None:
    async def body(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * int(request.query["size"]))

    server.misbehave = body
    fetch = HttpFetch(max_bytes=1000)
    assert len(await fetch(f"{server.jwks_url}?size=1000")) == 1000
    with pytest.raises(IdentityAway, match="more than"):
        await fetch(f"{server.jwks_url}?size=1001")
    await fetch.aclose()


async def test_it_sends_nothing_of_ours(fetch: HttpFetch, server: KeyServer) -> None:
    """No cookie that an issuer set, no credentials from the environment."""
    seen: list[dict[str, str]] = []

    async def cookie(request: web.Request) -> web.StreamResponse:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(headers={"Set-Cookie": "tracking=1; Path=/"})

    server.misbehave = cookie
    by_name = server.jwks_url.replace("127.0.0.1", "localhost")
    await fetch(by_name)
    await fetch(by_name)
    assert not {"cookie", "authorization", "referer"} & (seen[0].keys() | seen[1].keys())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(fetch: HttpFetch, server: KeyServer, status: int) -> None:
    async def away(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": f"{server.url}/elsewhere"})

    server.misbehave = away
    with pytest.raises(IdentityAway, match="set jwks_url"):
        await fetch(server.jwks_url)
    assert server.requests["/elsewhere"] == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "nonsense://x", "127.0.0.1/jwks", ""])
async def test_what_cannot_be_asked(fetch: HttpFetch, url: str) -> None:
    with pytest.raises(IdentityAway):
        await fetch(url)


def own_certificate(folder: Path) -> Path:
    """For 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, SHA256())
    )
    path = folder / "own.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


async def test_a_certificate_that_nobody_vouches_for(fetch: HttpFetch, server: KeyServer, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own_certificate(tmp_path))
    app = web.Application()
    app.router.add_get("/jwks", server.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    port = runner.addresses[0][1]
    with pytest.raises(IdentityAway, match="certificate"):
        await fetch(f"https://127.0.0.1:{port}/jwks")
    await runner.cleanup()
    assert server.requests["/jwks"] == 0
