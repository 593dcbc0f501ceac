"""Verified claims → Principal, or why not (RFC 7519 §4.1, RFC 9068 §4)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from sidecar.domain.principal import Principal
from sidecar.identity.jwt import ACCESS_TOKEN_TYPE, ParsedToken
from sidecar.identity.options import IssuerOptions
from sidecar.identity.refusals import refused

MAX_SUBJECT = 255
"""Characters; OpenID Connect Core §2 allows no more."""

ROLES = frozenset({"administrator", "user", "guest"})

_YEAR_10000 = 253_402_300_800.0
"""Beyond it a number is milliseconds, or nonsense."""

_ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})
_ACCESS_TOKEN_CLAIMS = frozenset({"scope", "scp", "client_id"})
_OTHER_USES = frozenset({"id", "id_token", "refresh", "offline", "logout"})
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks, lone surrogates, and the marks that turn text around."""


def principal_of(token: ParsedToken, issuer: IssuerOptions, token_id: str, now: float) -> Principal:
    """Whose token it is, its signature and issuer having been checked. `now` in Unix seconds.

    Raises TokenRefused: `type`, `audience`, `expiry`, `expired`, `not-yet-valid`, `malformed`, `subject`.
    """
    claims = token.claims
    _refuse_other_tokens(token)
    if not _strings(claims.get("aud")).intersection(issuer.audience):
        raise refused("audience")
    expires_at = _check_time(claims, now, issuer.leeway_seconds)
    subject = _subject(claims.get(issuer.user_claim))
    return Principal(
        user_id=f"{issuer.name}|{subject}",
        issuer=issuer.name,
        subject=subject,
        token_id=token_id,
        expires_at=expires_at,
        name=_display(claims, "name", 200) or _display(claims, "preferred_username", 200),
        email=_display(claims, "email", 320),
        avatar_url=_web_address(claims, "picture"),
        roles=roles_of(claims, issuer.roles_claim),
    )


def roles_of(claims: Mapping[str, object], path: str) -> frozenset[str]:
    """The roles below `path` that mean something here; `{"user"}` where none does."""
    found: object = claims.get(path)
    if found is None:
        found = claims
        for step in path.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
    named = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    return frozenset(role for role in named if isinstance(role, str)) & ROLES or frozenset({"user"})


def _refuse_other_tokens(token: ParsedToken) -> None:
    """Tokens that an issuer signs for other ends. `at+jwt` says what it is; the rest is told by its claims.

    ID tokens carry `nonce`, `at_hash`, `c_hash` (OpenID Connect Core §2, §3.3.2.11) or, at the least, are
    meant for the very client that asked (`azp` is the only `aud`) and have no scope. Keycloak says `typ: ID |
    Bearer | Refresh`, Cognito `token_use: id | access`; logout and security event tokens have `events` (RFC
    8417 §2.2).
    """
    if token.type == ACCESS_TOKEN_TYPE:
        return
    claims = token.claims
    uses = {str(claims.get(name, "")).lower() for name in ("typ", "token_use")}
    if uses & _OTHER_USES or "events" in claims:
        raise refused("type")
    if not uses & {"bearer", "access"} and _looks_like_id_token(claims):
        raise refused("type")


def _looks_like_id_token(claims: Mapping[str, object]) -> bool:
    if _ID_TOKEN_CLAIMS & claims.keys():
        return True
    for_its_client_only = _strings(claims.get("aud")) == _strings(claims.get("azp"))
    return for_its_client_only and not _ACCESS_TOKEN_CLAIMS & claims.keys()


def _check_time(claims: Mapping[str, object], now: float, leeway: float) -> float:
    """Returns `exp`. It has no leeway: cache, sockets and this check end a token at one moment."""
    expires_at = _seconds(claims.get("exp"))
    if expires_at is None:
        raise refused("expiry")
    if now >= expires_at:
        raise refused("expired")
    for name in ("nbf", "iat"):
        if name in claims:
            begins = _seconds(claims[name])
            if begins is None:
                raise refused("malformed")
            if begins > now + leeway:
                raise refused("not-yet-valid")
    return expires_at


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < _YEAR_10000 else None


def _subject(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_SUBJECT or not value.strip():
        raise refused("subject")
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value):
        raise refused("subject")
    return value


def _strings(value: object) -> frozenset[str]:
    """A claim that may be a string or a list of strings."""
    listed = value if isinstance(value, list) else [value]
    return frozenset(one for one in listed if isinstance(one, str))


def _display(claims: Mapping[str, object], name: str, length: int) -> str:
    value = claims.get(name)
    return _INVISIBLE.sub("", value)[:length].strip() if isinstance(value, str) else ""


def _web_address(claims: Mapping[str, object], name: str) -> str:
    """A picture's address may end in a page: only what a browser would load as one."""
    value = claims.get(name)
    if not isinstance(value, str) or len(value) > 2048 or _INVISIBLE.search(value):
        return ""
    return value if value.startswith(("https://", "http://")) else ""
