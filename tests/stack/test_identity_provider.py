"""The OpenID provider issues what a resource server can verify, and turns its keys."""

from __future__ import annotations

from typing import Any

import aiohttp
import jwt
import pytest

from tests.stack.identity_provider import AUDIENCE, IdentityProvider
from tests.stack.process import StackError

pytestmark = pytest.mark.live


async def verified(provider: IdentityProvider, token: str) -> dict[str, Any]:
    """Check a token against the provider's published keys, as a resource server would."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{provider.issuer}/.well-known/openid-configuration") as response:
            discovered = await response.json()
        assert discovered["issuer"] == provider.issuer
        assert discovered["jwks_uri"] == provider.jwks_url
        async with session.get(discovered["jwks_uri"]) as response:
            keys = jwt.PyJWKSet.from_dict(await response.json())
    header = jwt.get_unverified_header(token)
    claims: dict[str, Any] = jwt.decode(
        token, keys[header["kid"]].key, algorithms=[header["alg"]], audience=AUDIENCE, issuer=provider.issuer
    )
    return claims


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
@pytest.mark.parametrize(
    ("user", "role"),
    [("alice", "user"), ("admin-carol", "administrator"), ("guest-dan", "guest"), ("Ünï |x@y", "user")],
)
async def test_access_tokens(identity_provider: IdentityProvider, user: str, role: str, algorithm: str) -> None:
    token = await identity_provider.token_for(user, lifetime=77, algorithm=algorithm)
    claims = await verified(identity_provider, token)
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    assert (claims["sub"], claims["roles"]) == (user, [role])
    assert claims["exp"] - claims["iat"] == 77


async def test_id_tokens_look_alike_but_for_their_type(identity_provider: IdentityProvider) -> None:
    token = await identity_provider.id_token_for("alice")
    assert (await verified(identity_provider, token))["sub"] == "alice"
    assert "typ" not in jwt.get_unverified_header(token)


async def test_refresh_tokens(identity_provider: IdentityProvider) -> None:
    tokens = await identity_provider.login("alice", refresh=True)
    renewed = await identity_provider.refresh(tokens.refresh_token)
    assert renewed.access_token != tokens.access_token
    assert (await verified(identity_provider, renewed.access_token))["sub"] == "alice"
    with pytest.raises(StackError, match="invalid_grant"):
        await identity_provider.refresh("made-up")


async def test_keys_rotate_and_outlive_a_stop(identity_provider: IdentityProvider) -> None:
    before = await identity_provider.token_for("alice")
    await identity_provider.rotate_keys()
    after = await identity_provider.token_for("alice")
    assert jwt.get_unverified_header(before)["kid"] != jwt.get_unverified_header(after)["kid"]
    assert (await verified(identity_provider, before))["sub"] == "alice"
    await identity_provider.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await verified(identity_provider, after)
    await identity_provider.start()
    assert (await verified(identity_provider, after))["sub"] == "alice"
    await identity_provider.rotate_keys(keep_old=False)
    with pytest.raises(KeyError):
        await verified(identity_provider, after)
