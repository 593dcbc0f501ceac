"""A user id in names: the slug is the user's agent on the gateway, and the user's folder.

    readable   u-<sub>             3–24 characters; only for the one issuer declared to have readable ids
    hashed     u-<stem><digest>   34–50 characters; the digest alone keeps two users apart

No length belongs to both forms, and within each the slug tells the user (the digest is 160 bits of
SHA-256), so two users never share one. A slug is `[a-z0-9-]` throughout: the gateway's trimming,
lower-casing and Unicode normalisation leave it as it is, and no path, drive or option can be spelt with it.
Its prefix keeps it away from the gateway's own ids (`main`, `global`), so no subject needs to be reserved.

Folders and agents on disk carry these names: what this module returns for a user id can never change.
"""

from __future__ import annotations

import base64
import hashlib
import re

MAX_SLUG = 50
"""Characters of the longest slug; a gateway's agent id may have 64."""

_USER_ID = re.compile(r"[a-z0-9-]+\|(?P<subject>.+)", re.DOTALL)
_READABLE = re.compile(r"[a-z0-9]{1,22}")
_NOT_IN_STEM = re.compile(rb"[^a-z0-9]")
_STEM = 16
_DIGEST_BYTES = 20


def slug_of(user_id: str, readable: bool) -> str:
    """The slug of `<issuer name>|<subject>`; always `u-[a-z0-9]+`, at most `MAX_SLUG` characters.

    `readable` says that the id's issuer is the one whose subjects may be shown as they are; true for more
    than one issuer, it would give their users of the same subject one slug. Raises ValueError for what is no
    user id, or holds a lone surrogate (which no UTF-8 can say).
    """
    wanted = _USER_ID.fullmatch(user_id)
    if wanted is None:
        raise ValueError("a user id is <issuer name>|<subject>")
    exact = user_id.encode()
    subject = wanted["subject"]
    if readable and _READABLE.fullmatch(subject):
        return f"u-{subject}"
    return f"u-{_stem(subject)}{_digest(exact)}"


def _stem(subject: str) -> str:
    """What a person recognises. ASCII only, so that no later Unicode table moves anybody."""
    return _NOT_IN_STEM.sub(b"", subject.encode("ascii", "ignore").lower())[:_STEM].decode()


def _digest(exact: bytes) -> str:
    """32 characters of `[a-z2-7]`."""
    return base64.b32encode(hashlib.sha256(exact).digest()[:_DIGEST_BYTES]).decode().lower()
