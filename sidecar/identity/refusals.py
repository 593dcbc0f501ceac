"""Why a credential is refused: a fixed word for logs and metrics, and a sentence for the person who reads
it."""

from __future__ import annotations

from sidecar.errors import TokenRefused

SIGN_IN = "AUTH_IDENTITY_HEADER_REQUIRED"
"""The `detail_code` on which the Control UI stops and says to sign in, instead of reconnecting (gateway
2026.9.6)."""

SENTENCES = {
    "missing": (
        "No access token: sign in, then send it as 'Authorization: Bearer <token>' or in connect params.auth.token."
    ),
    "ambiguous": "The request holds two different tokens: send one.",
    "oversized": "The token is larger than 16 KiB: ask for one with fewer claims.",
    "query": (
        "A token in the address is refused, since addresses are logged: "
        "send it as 'Authorization: Bearer <token>', as the WebSocket subprotocol 'bearer.<token>', "
        "or in connect params.auth.token."
    ),
    "carrier": (
        "The subprotocol 'bearer.<token>' needs a plain one beside it, for instance "
        "'Sec-WebSocket-Protocol: openclaw, bearer.<token>'."
    ),
    "malformed": "This is not a signed access token (JWT): sign in again, or check what the client sends.",
    "header": "The token's header asks for what is not supported here: check how the issuer makes tokens.",
    "algorithm": "The token is signed with an algorithm that is not allowed for its issuer.",
    "type": "This is not an access token: send the access token, not the ID or refresh token.",
    "issuer": "The token is of an issuer that is not trusted here: sign in where this service says.",
    "unknown-key": "The token is signed with a key that its issuer does not publish: sign in again.",
    "signature": "The token's signature is wrong: sign in again.",
    "audience": "The token is meant for another service: ask for one with this service's audience.",
    "expiry": "The token does not say when it ends ('exp', in seconds): check how the issuer makes tokens.",
    "expired": "Your sign-in has ended: sign in again.",
    "not-yet-valid": "The token is not valid yet: try again soon, or check the clocks.",
    "subject": "The token does not say whose it is: check the issuer's user claim.",
}
"""Every reason that this room gives."""

_SIGN_IN_AGAIN = frozenset({"missing", "expired"})


def refused(reason: str) -> TokenRefused:
    """The error for one of `SENTENCES`."""
    detail_code = SIGN_IN if reason in _SIGN_IN_AGAIN else None
    return TokenRefused(SENTENCES[reason], reason=reason, detail_code=detail_code)
