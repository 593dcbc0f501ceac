"""Token → Principal over all issuers, with a cache of what was verified.

The cache is keyed by the SHA-256 of the whole token (a token with another signature is another token) and
holds an entry no longer than the token's `exp`, and no longer than its issuer's keys stay what they were.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.domain.principal import Principal
from sidecar.errors import ConfigurationError, TokenRefused
from sidecar.identity.carriers import MAX_TOKEN
from sidecar.identity.claims import principal_of
from sidecar.identity.fetch import Fetch
from sidecar.identity.jwks import IssuerStatus, KeySet, KeyTiming
from sidecar.identity.jwt import ParsedToken, parse
from sidecar.identity.keys import VerificationKey
from sidecar.identity.options import IssuerOptions, problems
from sidecar.identity.refusals import refused
from sidecar.telemetry.facts import Report, TokenRejected

MAX_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class _Trust:
    options: IssuerOptions
    keys: KeySet


@dataclass(frozen=True, slots=True)
class _Verified:
    principal: Principal
    keys: KeySet
    generation: int


class Verifier:
    """Says who a token's bearer is. Use within one event loop; close with `aclose` (the `fetch` is its
    giver's to close)."""

    def __init__(
        self,
        issuers: Sequence[IssuerOptions],
        fetch: Fetch,
        clock: Callable[[], float],
        report: Report,
        *,
        timing: KeyTiming | None = None,
        max_cached: int = MAX_CACHED,
    ) -> None:
        """`clock` in Unix seconds. Raises ConfigurationError with all that is wrong with `issuers`."""
        found = problems(issuers)
        if found:
            raise ConfigurationError(found)
        self._trusts = {one.issuer: _Trust(one, KeySet(one, fetch, clock, report, timing)) for one in issuers}
        self._clock = clock
        self._report = report
        self._max_cached = max_cached
        self._verified: OrderedDict[str, _Verified] = OrderedDict()

    async def verify(self, token: str, connection_id: str = "") -> Principal:
        """Who bears `token`. Raises TokenRefused (and states it as a fact) or IdentityAway."""
        issuer = ""
        try:
            token_id = _token_id(token)
            known = await self._known(token_id)
            if known is not None:
                return known
            parsed = parse(token)
            trust = self._trust(parsed)
            issuer = trust.options.name
            return await self._check(parsed, trust, token_id)
        except TokenRefused as refusal:
            self._report(TokenRejected(connection_id, issuer, refusal.reason))
            raise

    async def warm(self) -> None:
        """Fetches every issuer's keys once; an issuer that is away is seen in `status`, not here."""
        await asyncio.gather(*(trust.keys.warm() for trust in self._trusts.values()))

    def ready(self) -> bool:
        """Can anybody sign in? Starts what is due, so that asking again finds an issuer that came back."""
        for trust in self._trusts.values():
            trust.keys.refresh_if_due()
        return any(trust.keys.usable for trust in self._trusts.values())

    def status(self) -> list[IssuerStatus]:
        """One entry per issuer, in the order of the configuration."""
        return [trust.keys.status() for trust in self._trusts.values()]

    async def aclose(self) -> None:
        await asyncio.gather(*(trust.keys.aclose() for trust in self._trusts.values()))

    async def _known(self, token_id: str) -> Principal | None:
        entry = self._verified.get(token_id)
        if entry is None:
            return None
        generation = await entry.keys.freshen()
        if generation == entry.generation and self._clock() < entry.principal.expires_at:
            self._remember(token_id, entry)
            return entry.principal
        self._verified.pop(token_id, None)
        return None

    def _trust(self, parsed: ParsedToken) -> _Trust:
        """By the token's own word; the signature then shows whether it is true."""
        issuer = parsed.claims.get("iss")
        trust = self._trusts.get(issuer) if isinstance(issuer, str) else None
        if trust is None:
            raise refused("issuer")
        return trust

    async def _check(self, parsed: ParsedToken, trust: _Trust, token_id: str) -> Principal:
        if parsed.algorithm not in trust.options.algorithms:
            raise refused("algorithm")
        if not await self._is_signed(parsed, trust.keys):
            raise refused("signature")
        generation = trust.keys.generation
        principal = principal_of(parsed, trust.options, token_id, self._clock())
        self._remember(token_id, _Verified(principal, trust.keys, generation))
        return principal

    def _remember(self, token_id: str, entry: _Verified) -> None:
        """As the one used last; the one not used for longest makes room."""
        self._verified[token_id] = entry
        self._verified.move_to_end(token_id)
        while len(self._verified) > self._max_cached:
            self._verified.popitem(last=False)

    async def _is_signed(self, parsed: ParsedToken, keys: KeySet) -> bool:
        """Asks for the keys once more where the signature is wrong: some issuers rotate keys under one name,
        or none."""
        if _signed_by_one(parsed, await keys.find(parsed.key_id, parsed.algorithm)):
            return True
        if not await keys.look_again():
            return False
        return _signed_by_one(parsed, await keys.find(parsed.key_id, parsed.algorithm))


def _signed_by_one(parsed: ParsedToken, keys: Sequence[VerificationKey]) -> bool:
    """Without a key id there must be one key that it can be: else every key of an issuer is tried for every
    guess."""
    if not keys or (parsed.key_id is None and len(keys) > 1):
        raise refused("unknown-key")
    if not any(parsed.algorithm in key.algorithms for key in keys):
        raise refused("algorithm")
    return any(key.verifies(parsed.algorithm, parsed.signed, parsed.signature) for key in keys)


def _token_id(token: str) -> str:
    if len(token) > MAX_TOKEN:
        raise refused("oversized")
    if not token.isascii():
        raise refused("malformed")
    return hashlib.sha256(token.encode()).hexdigest()
