"""What a verified token says about its bearer."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.domain.slug import slug_of
from sidecar.errors import TokenRefused
from sidecar.identity.claims import ROLES, principal_of, roles_of
from sidecar.identity.jwt import ParsedToken
from sidecar.identity.options import IssuerOptions
from sidecar.identity.refusals import SENTENCES
from sidecar.identity.verifier import Verifier
from tests.identity.conftest import MakeVerifier
from tests.identity.issuer import AUDIENCE, ISSUER, NOW, claims, make_key, token

RSA = make_key()


async def test_everything(verifier: Verifier) -> None:
    made = token(
        RSA,
        claims(
            aud=["account", "openclaw"], sub="Al|ice", name="Alice A.", email="Alice@example.com",
            picture="https://example.com/a.png", roles=["administrator", "other"], exp=NOW + 60.5,
        ),
    )  # fmt: skip
    principal = await verifier.verify(made)
    assert principal.user_id == "example|Al|ice"
    assert (principal.issuer, principal.subject) == ("example", "Al|ice")
    assert principal.token_id == hashlib.sha256(made.encode()).hexdigest()
    assert principal.expires_at == NOW + 60.5
    assert (principal.name, principal.email) == ("Alice A.", "Alice@example.com")
    assert principal.avatar_url == "https://example.com/a.png"
    assert principal.roles == {"administrator"}


async def test_nothing_but_what_must_be(verifier: Verifier) -> None:
    principal = await verifier.verify(token(RSA, claims(scope=...)))
    assert (principal.name, principal.email, principal.avatar_url) == ("", "", "")
    assert principal.roles == {"user"}


async def test_another_user_claim(make_verifier: MakeVerifier, issuer: IssuerOptions) -> None:
    for claim in ("employee", "https://example.com/id"):
        async with make_verifier(replace(issuer, user_claim=claim)) as verifier:
            principal = await verifier.verify(token(RSA, claims(**{claim: "e-17"})))
            assert principal.user_id == "example|e-17"
            with pytest.raises(TokenRefused) as refusal:
                await verifier.verify(token(RSA))
            assert refusal.value.reason == "subject"


@pytest.mark.parametrize(
    ("said", "path", "roles"),
    [
        ({"roles": ["administrator"]}, "roles", {"administrator"}),
        ({"roles": ["guest", "user", "x", 7, None, ["administrator"]]}, "roles", {"guest", "user"}),
        ({"roles": "guest administrator"}, "roles", {"guest", "administrator"}),
        ({"roles": "administrators"}, "roles", {"user"}),
        ({"roles": ["Administrator", "ADMINISTRATOR", " administrator"]}, "roles", {"user"}),
        ({"roles": []}, "roles", {"user"}),
        ({"roles": {"administrator": True}}, "roles", {"user"}),
        ({"roles": True}, "roles", {"user"}),
        ({"roles": None}, "roles", {"user"}),
        ({}, "roles", {"user"}),
        ({"realm_access": {"roles": ["administrator"]}}, "realm_access.roles", {"administrator"}),
        ({"realm_access": ["roles"]}, "realm_access.roles", {"user"}),
        ({"realm_access": {}}, "realm_access.roles.deep", {"user"}),
        ({"https://example.com/roles": ["guest"]}, "https://example.com/roles", {"guest"}),
        ({"a": {"b": {"c": "guest"}}}, "a.b.c", {"guest"}),
        ({"roles": ["administrator"]}, "", {"user"}),
    ],
)
def test_roles(said: dict[str, object], path: str, roles: set[str]) -> None:
    assert roles_of(said, path) == roles


@pytest.mark.parametrize(
    ("said", "name", "email", "avatar_url"),
    [
        ({"preferred_username": "ali"}, "ali", "", ""),
        ({"name": "", "preferred_username": "ali"}, "ali", "", ""),
        ({"name": "\x00\n", "preferred_username": "ali"}, "ali", "", ""),
        ({"name": 7, "email": ["a@b"], "picture": {}}, "", "", ""),
        ({"name": "A\x1b[31m\u202eB\u2066\ud800\x85\u2028 "}, "A[31mB", "", ""),
        ({"name": "é" * 300, "email": "e" * 400}, "é" * 200, "e" * 320, ""),
        ({"name": "👩\u200d💻"}, "👩\u200d💻", "", ""),
        ({"picture": "javascript:alert(1)"}, "", "", ""),
        ({"picture": "data:text/html,x"}, "", "", ""),
        ({"picture": "https://example.com/a\n.png"}, "", "", ""),
        ({"picture": "https://example.com/" + "a" * 2048}, "", "", ""),
        ({"picture": "http://127.0.0.1/a.png"}, "", "", "http://127.0.0.1/a.png"),
    ],
)
async def test_display(verifier: Verifier, said: dict[str, Any], name: str, email: str, avatar_url: str) -> None:
    principal = await verifier.verify(token(RSA, claims(**said)))
    assert (principal.name, principal.email, principal.avatar_url) == (name, email, avatar_url)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just(NOW + 60)
anything = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=5), scalars, max_size=2)
CLAIMS = ["iss", "aud", "sub", "exp", "nbf", "iat", "roles", "name", "email", "picture", "azp", "typ", "token_use", "x"]
claim_names = st.sampled_from(CLAIMS)


@settings(deadline=None)
@given(st.dictionaries(claim_names, anything, max_size=5), st.sampled_from(["", "jwt", "at+jwt"]))
def test_any_claims_make_a_principal_or_a_refusal(said: dict[str, Any], kind: str) -> None:
    issuer = IssuerOptions("example", ISSUER, (AUDIENCE,))
    made = ParsedToken("RS256", "k1", kind, {**claims(), **said}, b"", b"")
    try:
        principal = principal_of(made, issuer, "id", NOW)
    except TokenRefused as refusal:
        reason = refusal.reason
        allowed = {"type", "audience", "expiry", "expired", "not-yet-valid", "malformed", "subject"}
        if reason not in allowed:
            raise
        return
    assert NOW < principal.expires_at < 253_402_300_800
    assert principal.user_id == f"example|{principal.subject}"
    assert slug_of(principal.user_id, True).startswith("u-")
    assert principal.roles
    assert principal.roles <= ROLES
    assert not re.search(r"[\x00-\x1f\x7f]", principal.name + principal.email + principal.avatar_url)


def test_every_reason_has_a_sentence_that_ends() -> None:
    for reason, sentence in SENTENCES.items():
        assert re.fullmatch(r"[a-z-]+", reason)
        assert sentence.endswith(".")
        assert len(sentence) < 220
