"""The Ed25519 device that the sidecar shows to a gateway in a user's stead.

Derived from `storage.secret`, so that every replica, and a sidecar that lost its database, is the same device to a gateway. A
device id is the SHA-256 (hex) of the raw public key, keys and signatures travel as unpadded base64url, and the signed text is
the gateway's payload v2, which every version from 2026.2.6 to 2026.9.6 takes (v3 adds platform and family, which we fix anyway).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


@dataclass(frozen=True, slots=True)
class Claim:
    """What a device signs: who connects, as what, with which scopes, in answer to which challenge."""

    client_id: str
    client_mode: str
    role: str
    scopes: Sequence[str]
    token: str
    """The shared token that travels in `auth.token`; empty where none does."""

    nonce: str
    signed_at: int
    """Milliseconds: the challenge's `ts`, so that the gateway's clock is compared with itself."""


class Device:
    """One user's key on one gateway."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._key = private_key
        public = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = hashlib.sha256(public).hexdigest()
        self.public_key = _unpadded(public)

    @classmethod
    def derive(cls, secret: bytes, gateway_id: str, slug: str) -> Device:
        """The device of `slug` on `gateway_id`: HMAC-SHA256 under `secret`, with a label that separates it from other uses."""
        seed = hmac.digest(secret, f"openclaw-sidecar/device/v1\0{gateway_id}\0{slug}".encode(), "sha256")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, claim: Claim) -> dict[str, Any]:
        """The `device` member of `connect.params`."""
        text = "|".join(
            (
                "v2",
                self.id,
                claim.client_id,
                claim.client_mode,
                claim.role,
                ",".join(claim.scopes),
                str(claim.signed_at),
                claim.token,
                claim.nonce,
            )
        )
        return {
            "id": self.id,
            "publicKey": self.public_key,
            "signature": _unpadded(self._key.sign(text.encode())),
            "signedAt": claim.signed_at,
            "nonce": claim.nonce,
        }


def _unpadded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
