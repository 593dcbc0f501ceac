"""Who is calling. Comes out of `identity`; nothing else decides who somebody is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller."""

    user_id: str
    """`<issuer name>|<subject>`: scoped by the issuer, never an e-mail address. Case-sensitive."""

    issuer: str
    """The issuer's configured name (`[a-z0-9-]+`), not its URL."""

    subject: str
    """The token's `sub` (or the configured `user_claim`), as the issuer wrote it."""

    token_id: str
    """SHA-256 of the whole token, hex: names the token in a cache or a revocation, and gives nothing away."""

    expires_at: float
    """Unix seconds at which the token, and with it every socket that it opened, ends."""

    name: str = ""
    """For display; claims `name`, else `preferred_username`, else empty."""

    email: str = ""
    """For display and for the record; never identifies."""

    avatar_url: str = ""
    """Claim `picture`."""

    roles: frozenset[str] = field(default_factory=frozenset)
    """From the issuer's `roles_claim`, cut down to `administrator`, `user`, `guest`; `{"user"}` where none is named."""
