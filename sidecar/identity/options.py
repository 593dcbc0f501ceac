"""Which issuers are trusted, and for what; and everything that can be wrong with saying so."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sidecar.errors import Problem

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""Signature algorithms that may be configured (RFC 7518 §3.1, RFC 8037, RFC 9864): none whose key is a shared
secret."""

MAX_LEEWAY = 300.0

_NAME = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class IssuerOptions:
    """One issuer of access tokens."""

    name: str
    """`[a-z0-9-]+`; the first half of every user id of this issuer."""

    issuer: str
    """Compared with the token's `iss` character by character."""

    audience: tuple[str, ...]
    """A token is for us if its `aud` names one of these."""

    jwks_url: str = ""
    """Where the keys are; empty: what `<issuer>/.well-known/openid-configuration` says."""

    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    """Of `ALGORITHMS`."""

    user_claim: str = "sub"
    """The claim that names the user; must be one that the issuer never gives to a second person."""

    roles_claim: str = "roles"
    """A claim, or a dotted path (`realm_access.roles`), with a list or a space-separated string."""

    leeway_seconds: float = 30.0
    """How far the issuer's clock may be ahead of ours, for `nbf` and `iat`. A token ends at `exp`, without
    leeway."""

    readable_ids: bool = False
    """Subjects may be shown as they are in agent and folder names; true for at most one issuer."""


def problems(issuers: Sequence[IssuerOptions], section: str = "identity.issuers") -> list[Problem]:
    """All that is wrong, each under its setting's name (`identity.issuers[0].audience`)."""
    found = [problem for index, one in enumerate(issuers) for problem in _of_one(one, f"{section}[{index}]")]
    if not issuers:
        found.append(Problem(section, "no issuer is configured", "name at least one that signs your users' tokens"))
    found += _repeated(section, "name", (one.name for one in issuers))
    found += _repeated(section, "issuer", (one.issuer for one in issuers))
    if sum(one.readable_ids for one in issuers) > 1:
        mend = "keep it for one issuer: users of the same subject would share an agent"
        found.append(Problem(section, "readable_ids is true for more than one issuer", mend))
    return found


def url_problem(url: str) -> str:
    """Why keys may not be fetched from `url`, or the empty string."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password"
    if not parts.hostname or parts.scheme not in {"http", "https"}:
        return "is not an https:// URL"
    if parts.scheme == "http" and not is_loopback(url):
        return "must begin with https://: whoever can change the keys on the way can sign as anybody"
    return ""


def is_loopback(url: str) -> bool:
    """Does `url` name this host: `localhost`, 127.0.0.0/8 or ::1?"""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_one(one: IssuerOptions, where: str) -> Iterable[Problem]:
    if not _NAME.fullmatch(one.name):
        yield Problem(f"{where}.name", "is not a name", "use lower-case letters, digits and '-', at most 64")
    if not one.issuer:
        yield Problem(f"{where}.issuer", "is empty", "copy the `iss` of your tokens exactly")
    if not one.audience or not all(one.audience):
        mend = "name the audience that your issuer puts into tokens for this service"
        yield Problem(f"{where}.audience", "is empty: tokens meant for any other service would pass", mend)
    if not one.user_claim:
        yield Problem(f"{where}.user_claim", "is empty", "use 'sub'")
    if not 0 <= one.leeway_seconds <= MAX_LEEWAY:
        yield Problem(f"{where}.leeway_seconds", "is out of range", f"use 0 to {MAX_LEEWAY:g}")
    yield from _of_algorithms(one, f"{where}.algorithms")
    yield from _of_urls(one, where)


def _of_algorithms(one: IssuerOptions, where: str) -> Iterable[Problem]:
    if not one.algorithms:
        yield Problem(where, "is empty", "name what your issuer signs with, for instance RS256")
    for algorithm in one.algorithms:
        if algorithm.upper().startswith("HS") or algorithm.lower() == "none":
            what = f"{algorithm} is refused: whoever can check such a token can also make one"
            yield Problem(where, what, "let the issuer sign with RS256, ES256 or EdDSA")
        elif algorithm not in ALGORITHMS:
            yield Problem(where, f"{algorithm} is not known", f"use some of {', '.join(sorted(ALGORITHMS))}")


def _of_urls(one: IssuerOptions, where: str) -> Iterable[Problem]:
    """`issuer` is fetched from only where `jwks_url` is empty; else it may be any string that tokens
    carry."""
    setting, url = ("jwks_url", one.jwks_url) if one.jwks_url else ("issuer", one.issuer)
    why = url_problem(url)
    if not one.jwks_url and ("?" in url or "#" in url):
        why = "has a query, below which nothing can be discovered"
        yield Problem(f"{where}.issuer", why, "set jwks_url to where the issuer's keys are")
    elif why and url:
        yield Problem(f"{where}.{setting}", why, "plain http:// is for this host alone (127.0.0.1, localhost)")


def _repeated(section: str, setting: str, values: Iterable[str]) -> list[Problem]:
    mend = "give each issuer one entry; an entry takes several audiences"
    return [
        Problem(section, f"{setting} '{value}' stands in {times} entries", mend)
        for value, times in Counter(values).items()
        if value and times > 1
    ]
