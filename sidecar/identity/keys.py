"""A JWKS document → public keys, each with the algorithms that fit it (RFC 7517, RFC 7518 §6, RFC 8037).

A key that cannot be used here (a secret, a private key, an encryption key, an unknown curve, a broken number)
is passed over: issuers publish keys for others too, and one bad entry must not lock everybody out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.identity.strict_json import parse_object

MAX_KEYS = 64
MAX_KEY_ID = 256
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""Above it, checking a signature costs more than an anonymous caller should be able to ask for."""

_FITTING: Mapping[tuple[str, str], frozenset[str]] = {
    ("RSA", ""): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
}
_MATERIAL = ("kty", "crv", "n", "e", "x", "y")
_PYJWT_NAMES = {"Ed25519": "EdDSA"}

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key of an issuer."""

    key_id: str | None
    algorithms: frozenset[str]
    """What it may verify: what fits its type, narrowed by its own `alg`."""

    public: PublicKey

    @property
    def identity(self) -> tuple[str | None, frozenset[str], bytes]:
        """Equal for two that verify the same tokens."""
        der = self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return (self.key_id, self.algorithms, der)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Is `signature` this key's over `signed`? False, too, for an algorithm that does not fit the key."""
        if algorithm not in self.algorithms:
            return False
        return jwt.get_algorithm_by_name(_PYJWT_NAMES.get(algorithm, algorithm)).verify(signed, self.public, signature)


def parse_keys(document: bytes) -> tuple[VerificationKey, ...]:
    """The usable keys of a JWKS, at most `MAX_KEYS`. Raises ValueError if it is no JWKS."""
    entries = parse_object(document).get("keys")
    if not isinstance(entries, list):
        raise ValueError("no 'keys' list")  # noqa: TRY004  one kind of error for all documents that are not meant
    usable = (_parse_key(entry) for entry in entries if isinstance(entry, dict))
    return tuple(key for key in usable if key is not None)[:MAX_KEYS]


def _parse_key(entry: dict[str, object]) -> VerificationKey | None:
    if not _for_verifying(entry):
        return None
    fitting = _fitting(entry)
    public = _public_key(entry) if fitting else None
    key_id = entry.get("kid")
    if public is None or not (key_id is None or isinstance(key_id, str)):
        return None
    return VerificationKey(key_id, fitting, public)


def _for_verifying(entry: dict[str, object]) -> bool:
    """Not for encryption, and not a private key: whoever publishes one has lost it."""
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and "d" not in entry
    )


def _fitting(entry: dict[str, object]) -> frozenset[str]:
    kty, curve, own = entry.get("kty"), entry.get("crv", ""), entry.get("alg")
    if not isinstance(kty, str) or not isinstance(curve, str):
        return frozenset()
    fitting = _FITTING.get((kty, curve), frozenset())
    if own is None:
        return fitting
    if own in ("EdDSA", "Ed25519"):
        return fitting & {"EdDSA", "Ed25519"}
    return frozenset(one for one in fitting if one == own)


def _public_key(entry: dict[str, object]) -> PublicKey | None:
    material = {name: entry[name] for name in _MATERIAL if name in entry}
    try:
        key = jwt.PyJWK(material).key
    except (jwt.PyJWTError, ValueError, UnsupportedAlgorithm):
        return None
    if isinstance(key, RSAPublicKey):
        return key if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS else None
    return key if isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey) else None
