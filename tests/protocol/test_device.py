"""A device is the same wherever it is derived, is a user's own, and signs what a gateway checks."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol.device import Claim, Device

SECRET = bytes(range(32))
CLAIM = Claim(
    client_id="openclaw-control-ui",
    client_mode="webchat",
    role="operator",
    scopes=("operator.read", "operator.write"),
    token="shared",
    nonce="b3c1f0de-8b8e-4c58-a8a5-0e1f5f6a7b8c",
    signed_at=1795219909518,
)
GOLDEN = "49d637dd2491c9ed1d47f6e69b32efa7f2a0c6fd307af1050beedd40cd801e1f"
"""Of `SECRET`, gateway `main`, user `u-bob`. Gateways keep these ids as paired devices: it must never change."""


def unpadded(text: str) -> bytes:
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(signed: dict[str, Any], text: str) -> None:
    key = Ed25519PublicKey.from_public_bytes(unpadded(signed["publicKey"]))
    key.verify(unpadded(signed["signature"]), text.encode())


def test_golden() -> None:
    assert Device.derive(SECRET, "main", "u-bob").id == GOLDEN


def test_the_id_is_the_digest_of_the_key() -> None:
    device = Device.derive(SECRET, "main", "u-bob")
    assert hashlib.sha256(unpadded(device.public_key)).hexdigest() == device.id


def test_the_documented_payload_is_what_is_signed() -> None:
    device = Device.derive(SECRET, "main", "u-bob")
    signed = device.sign(CLAIM)
    assert signed["id"] == device.id
    assert (signed["publicKey"], signed["signedAt"], signed["nonce"]) == (
        device.public_key,
        CLAIM.signed_at,
        CLAIM.nonce,
    )
    assert set(signed) == {"id", "publicKey", "signature", "signedAt", "nonce"}
    verify(
        signed,
        f"v2|{device.id}|openclaw-control-ui|webchat|operator|operator.read,operator.write|1795219909518|shared|{CLAIM.nonce}",
    )


def test_without_a_token_or_scopes_their_places_stay_empty() -> None:
    device = Device.derive(SECRET, "main", "u-bob")
    signed = device.sign(dataclasses.replace(CLAIM, token="", scopes=()))
    verify(signed, f"v2|{device.id}|openclaw-control-ui|webchat|operator||1795219909518||{CLAIM.nonce}")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Claim)])
def test_every_part_of_the_claim_is_signed(name: str) -> None:
    device = Device.derive(SECRET, "main", "u-bob")
    value: Any = {"scopes": ("operator.admin",), "signed_at": 1}.get(name, "other")
    changed = dataclasses.replace(CLAIM, **{name: value})
    text = f"v2|{device.id}|openclaw-control-ui|webchat|operator|operator.read,operator.write|1795219909518|shared|{CLAIM.nonce}"
    with pytest.raises(InvalidSignature):
        verify(device.sign(changed), text)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
places = st.tuples(st.binary(min_size=1, max_size=40), words, words)


@given(places, places)
def test_a_device_belongs_to_one_secret_gateway_and_user(
    one: tuple[bytes, str, str], other: tuple[bytes, str, str]
) -> None:
    ids = {Device.derive(*place).id for place in (one, other, one)}
    assert len(ids) == len({one, other})


def test_gateway_and_user_do_not_run_together() -> None:
    assert Device.derive(SECRET, "main-u", "bob").id != Device.derive(SECRET, "main", "-ubob").id
    assert Device.derive(SECRET, "a", "bc").id != Device.derive(SECRET, "ab", "c").id


def test_nothing_of_the_secret_is_shown() -> None:
    shown = json.dumps(Device.derive(b"a secret of ours", "main", "u-bob").sign(CLAIM))
    assert "secret" not in shown
