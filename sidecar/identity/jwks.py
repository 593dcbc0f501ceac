"""One issuer's keys over time.

    age 0            fresh: used as they are
    max_age          used, and refreshed beside the use
    2 × max_age      refreshed before the use; used if that fails
    stale            not used any more
    unknown key id   one fetch, then none for `min_refetch_seconds`: a flood of them costs nothing
    outage           attempts 1, 2, 4 … `min_refetch_seconds` apart

There is no timer: every step is taken by somebody's use (`Verifier.ready` counts as one). Whoever needs a
fetch while one runs joins it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sidecar.errors import IdentityAway
from sidecar.identity.fetch import Fetch
from sidecar.identity.keys import VerificationKey, parse_keys
from sidecar.identity.options import IssuerOptions, is_loopback, url_problem
from sidecar.identity.strict_json import parse_object
from sidecar.telemetry.facts import KeysFetched, Report


@dataclass(frozen=True, slots=True)
class KeyTiming:
    """All in seconds."""

    max_age_seconds: float = 600.0
    stale_seconds: float = 86_400.0
    min_refetch_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class IssuerStatus:
    """For readiness. `why` says what went wrong in the last fetch, empty if nothing; `age_seconds` since the
    last good one."""

    name: str
    usable: bool
    keys: int
    age_seconds: float | None
    why: str


class KeySet:
    """The public keys of one issuer. Use within one event loop; close with `aclose`."""

    def __init__(
        self,
        issuer: IssuerOptions,
        fetch: Fetch,
        clock: Callable[[], float],
        report: Report,
        timing: KeyTiming | None = None,
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._report = report
        self._timing = timing or KeyTiming()
        self._keys: tuple[VerificationKey, ...] = ()
        self._jwks_url = issuer.jwks_url
        self._fetched_at = self._ended_at = self._missed_at = -math.inf
        self._failures = 0
        self._why = "its keys were not fetched yet"
        self._flight: asyncio.Task[None] | None = None
        self.generation = 0
        """Another number whenever the keys are others: what was verified before must be verified again."""

    async def freshen(self) -> int:
        """Sees to it that the keys may be used; returns their generation. Raises IdentityAway if there are
        none to use."""
        age = self._age()
        if age < self._timing.max_age_seconds:
            return self.generation
        flight = self._refresh()
        if flight is not None and age >= 2 * self._timing.max_age_seconds:
            await self._join(flight)
        if not self.usable:
            raise self._away()
        return self.generation

    async def find(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """The keys that may have signed: those named `key_id`, or without one those that fit `algorithm`.

        Empty if the issuer publishes none. Raises IdentityAway if that cannot be known.
        """
        await self.freshen()
        found = self._matching(key_id, algorithm)
        if found:
            return found
        if await self.look_again():
            found = self._matching(key_id, algorithm)
        if not found and self._failures:
            raise self._away()
        return found

    async def look_again(self) -> bool:
        """Fetches out of turn, if that may be done now. True if the keys are others afterwards."""
        seen = self.generation
        running = self._running()
        if running is not None:
            await self._join(running)
        if self.generation == seen:
            flight = self._flight_for_a_miss()
            if flight is not None:
                await self._join(flight)
        return self.generation != seen

    async def warm(self) -> None:
        """As `freshen`, and says nothing if it fails: `status` does."""
        with suppress(IdentityAway):
            await self.freshen()

    def refresh_if_due(self) -> None:
        """Starts a fetch if the keys are old or missing. Needs a running loop."""
        if self._age() >= self._timing.max_age_seconds:
            self._refresh()

    @property
    def usable(self) -> bool:
        return bool(self._keys) and self._age() < self._timing.stale_seconds

    def status(self) -> IssuerStatus:
        age = self._age() if self._keys else None
        return IssuerStatus(self._issuer.name, self.usable, len(self._keys), age, self._why)

    async def aclose(self) -> None:
        flight = self._running()
        if flight is not None:
            flight.cancel()
            await asyncio.wait({flight})

    def _matching(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        if key_id is None:
            return tuple(key for key in self._keys if algorithm in key.algorithms)
        return tuple(key for key in self._keys if key.key_id == key_id)

    def _age(self) -> float:
        """Seconds since the keys came. A clock that was set back makes them due, not young."""
        age = self._clock() - self._fetched_at
        return age if age >= 0 else self._timing.max_age_seconds

    def _within(self, since: float, seconds: float) -> bool:
        return 0 <= self._clock() - since < seconds

    def _running(self) -> asyncio.Task[None] | None:
        return None if self._flight is None or self._flight.done() else self._flight

    def _refresh(self) -> asyncio.Task[None] | None:
        """The fetch that runs, or a new one; None while the issuer is left alone after a failure."""
        pause = min(self._timing.min_refetch_seconds, 2.0 ** (min(self._failures, 16) - 1)) if self._failures else 0
        running = self._running()
        return running or (None if self._within(self._ended_at, pause) else self._start())

    def _flight_for_a_miss(self) -> asyncio.Task[None] | None:
        """A new fetch if one is allowed, else the one that another miss has started."""
        if self._within(self._missed_at, self._timing.min_refetch_seconds):
            return self._running()
        self._missed_at = self._clock()
        return self._start()

    def _start(self) -> asyncio.Task[None]:
        self._flight = self._running() or asyncio.create_task(self._fetch_keys(), name=f"jwks-{self._issuer.name}")
        return self._flight

    async def _join(self, flight: asyncio.Task[None]) -> None:
        """Waits for everybody's fetch; a caller that is cancelled leaves it running for the others."""
        await asyncio.wait({flight})
        if not flight.cancelled():
            flight.result()

    async def _fetch_keys(self) -> None:
        try:
            keys = parse_keys(await self._document())
        except IdentityAway as error:
            self._failed(error.message)
        except ValueError as error:
            self._failed(f"its keys cannot be read: {error}")
        else:
            self._take(keys)
        finally:
            self._ended_at = self._clock()
        outcome = "failed" if self._failures else "ok"
        self._report(KeysFetched(self._issuer.name, outcome, len(self._keys)))

    def _take(self, keys: tuple[VerificationKey, ...]) -> None:
        """An issuer that publishes no usable key any more has withdrawn them all: none is kept."""
        if {key.identity for key in keys} != {key.identity for key in self._keys}:
            self.generation += 1
        self._keys = keys
        if not keys:
            self._fetched_at = -math.inf
            self._failed("it publishes no key that can be used")
            return
        self._fetched_at = self._clock()
        self._failures = 0
        self._why = ""

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._why = why
        self._jwks_url = self._issuer.jwks_url

    def _away(self) -> IdentityAway:
        return IdentityAway("The sign-in service cannot be reached: try again in a moment.", retry_after_ms=5_000)

    async def _document(self) -> bytes:
        if not self._jwks_url:
            self._jwks_url = await discover(self._issuer.issuer, self._fetch)
        return await self._fetch(self._jwks_url)


async def fetch_keys(issuer: IssuerOptions, fetch: Fetch) -> tuple[VerificationKey, ...]:
    """What an issuer publishes at this moment, for who only wants to look. Raises IdentityAway, ValueError."""
    return parse_keys(await fetch(issuer.jwks_url or await discover(issuer.issuer, fetch)))


async def discover(issuer: str, fetch: Fetch) -> str:
    """OpenID Connect Discovery §4.3: a document that names another issuer speaks for that one. Raises IdentityAway, ValueError."""
    document = parse_object(await fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
    if document.get("issuer") != issuer:
        raise IdentityAway("its discovery document names another issuer: set `issuer` to exactly what it names")
    url = document.get("jwks_uri")
    if not isinstance(url, str) or url_problem(url) or (is_loopback(url) and not is_loopback(issuer)):
        raise IdentityAway("its discovery document has no jwks_uri with https://: set jwks_url")
    return url
