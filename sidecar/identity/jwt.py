"""The token as text → its parts, with everything refused that can be before a key is looked up (RFC 7515, RFC
8725).

Read here rather than by a library because a token must mean one thing: canonical base64url without padding,
no JSON name twice. Only the signature itself is left to PyJWT and cryptography
(`keys.VerificationKey.verifies`).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from sidecar.identity.keys import MAX_KEY_ID
from sidecar.identity.options import ALGORITHMS
from sidecar.identity.refusals import refused
from sidecar.identity.strict_json import parse_object

MAX_HEADER = 4096
"""Characters of the encoded header."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")

_UNSUPPORTED = frozenset({"crit", "b64", "cty", "enc", "zip", "jwk", "jku", "x5c", "x5u"})
"""Extensions, nesting and encryption, and keys that a token brings along: following one lets its sender sign
as anybody."""

ACCESS_TOKEN_TYPE = "at+jwt"  # noqa: S105  RFC 9068 §2.1, no password
_TYPES = frozenset({"", "jwt", ACCESS_TOKEN_TYPE})


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A token's parts, none of them verified."""

    algorithm: str
    key_id: str | None
    type: str
    """`typ` in lower case without `application/`: empty, `jwt` or `at+jwt`."""

    claims: dict[str, object]
    signed: bytes
    signature: bytes


def parse(token: str) -> ParsedToken:
    """Takes a token of a size that was checked apart. Raises TokenRefused: `malformed`, `header`, `algorithm`, `type`."""
    parts = token.split(".")
    if len(parts) != 3 or len(parts[0]) > MAX_HEADER:
        raise refused("malformed")
    header, claims = _object(parts[0]), _object(parts[1])
    if _UNSUPPORTED & header.keys():
        raise refused("header")
    algorithm, type_ = _algorithm(header), _type(header)
    signed = f"{parts[0]}.{parts[1]}".encode()
    return ParsedToken(algorithm, _key_id(header), type_, claims, signed, _decode(parts[2]))


def _algorithm(header: dict[str, object]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise refused("malformed")
    if algorithm not in ALGORITHMS:
        raise refused("algorithm")
    return algorithm


def _type(header: dict[str, object]) -> str:
    type_ = header.get("typ", "")
    if not isinstance(type_, str):
        raise refused("malformed")
    plain = type_.lower().removeprefix("application/")
    if plain not in _TYPES:
        raise refused("type")
    return plain


def _key_id(header: dict[str, object]) -> str | None:
    key_id = header.get("kid")
    if key_id is None or (isinstance(key_id, str) and len(key_id) <= MAX_KEY_ID):
        return key_id
    raise refused("malformed")


def _object(part: str) -> dict[str, object]:
    try:
        return parse_object(_decode(part))
    except ValueError:
        raise refused("malformed") from None


def _decode(part: str) -> bytes:
    """Canonical base64url only: else a changed token could carry the same signature."""
    if not _BASE64URL.fullmatch(part):
        raise refused("malformed")
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise refused("malformed") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        raise refused("malformed")
    return decoded
