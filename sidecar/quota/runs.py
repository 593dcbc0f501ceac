"""Runs: claimed for their user before they start, counted while they live.

A run id is gateway-wide and chosen by the client: the id of somebody's run names that run to everybody (gateway 2026.9.6). So
an id belongs to the user who claimed it first, in one atomic step and before the request is sent on, or to the user whose agent
the gateway says runs it; a request, or its own echo, makes no owner. Redis decides, so that every replica says the same; while
it is away nothing starts (closed by default), and what runs goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hashlib
import hmac
import itertools
import re
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import Protocol

from sidecar.domain.quota import Admission, Outcome
from sidecar.errors import ForeignKey, SidecarError, StorageAway

CLAIM_MS = 24 * 3600 * 1000
"""How long the id of a run stays its user's: longer than a gateway remembers it."""

WISH_MS = 120_000
"""The same for an id that the gateway has not taken: what was asked for and never ran must not fill Redis."""

LIVE_MS = 180_000
"""A run that nobody hears of any more stops counting after this; while it is known to live, it is renewed."""

LONGEST_SECONDS = 48 * 3600
"""After this a gateway ends a run by itself (`agents.defaults.timeoutSeconds`, 2026.9.6); one whose end was lost stops counting."""

SETTLE_MS = 10_000
"""A run that was counted or heard of within this may live though its gateway does not list it yet."""

ASK_SECONDS = 2.0
"""A gateway is asked what lives of one user at most so often."""

MOST_OVER = MOST_ASKED = 4096
MOST_TOLD = 1000
"""Words that Redis hears at once; after an outage many wait."""

AGAIN_SECONDS = 0.25

NOBODY = ""
"""The slug of runs that are no user's: the operator's own agents' and channels'. They are on no count."""

_RANDOM_ID = re.compile(r"(?:run-)?[0-9a-f-]{32,64}")
"""What a client may give a run as its id upstream: a UUID, or one of ours. Others may be ids that a gateway makes for work of its
own by a rule (`agent:…:subagent:…`, `announce:…`), and nobody shall have guessed those before."""

ACT = "act-"
"""What the sidecar's own connection does and no gateway lists as a run, though it takes a place in the gateway's lane, counts under
such an id until it is answered, or for `LIVE_MS` more where its connection ended before."""

LAST_SECONDS = 2.0
"""For what is still to be told to Redis at the end."""


class Word(enum.Enum):
    """What is heard of a run."""

    TAKEN = enum.auto()
    BEGAN = enum.auto()
    ENDED = enum.auto()


_Heard = tuple[Word, str, str]
"""Of which slug and run id."""


class RunStore(Protocol):
    """What Redis does for this room besides; `owner` is the user's slug. All raise StorageAway."""

    async def claim_run(self, gateway_id: str, run_id: str, user_id: str, ttl_ms: int) -> bool: ...

    async def owner_is(self, gateway_id: str, run_id: str, user_id: str) -> bool: ...

    async def release_dead_runs(self, user_id: str, gateway_id: str, living: Iterable[str], ends_ms: int) -> int: ...

    async def renew_runs(
        self, user_id: str, gateway_id: str, run_ids: Iterable[str], ttl_ms: int, now_ms: int
    ) -> int: ...


class RunAccounts(Protocol):
    """What a run may cost, and where it is counted (`quota.accounts`). `admit`, `adopt` and `release` raise StorageAway."""

    async def admit(self, slug: str, place: str, run_id: str, session_key: str, ttl_ms: int) -> Admission: ...

    async def adopt(self, slug: str, place: str, run_id: str, ttl_ms: int) -> bool: ...

    async def release(self, slug: str, place: str, run_id: str) -> None: ...

    def refusal(self, slug: str, admission: Admission) -> SidecarError: ...


class Runs:
    """One gateway's runs. `slug` stands for the user: on a gateway, an agent's id says as much as a user id."""

    def __init__(
        self,
        gateway_id: str,
        store: RunStore,
        accounts: RunAccounts,
        secret: bytes,
        clock: Callable[[], float],
        *,
        live_ms: int = LIVE_MS,
    ) -> None:
        self.gateway_id = gateway_id
        self._store = store
        self._accounts = accounts
        self._live_ms = live_ms
        self._secret = secret
        self._clock = clock
        self._live: dict[str, str] = {}
        """Runs heard of and not ended: run id → slug."""

        self._since: dict[str, float] = {}
        self._over: dict[tuple[str, str], None] = {}
        """Runs that ended (slug, run id), the latest last: a gateway may tell of their begin later."""

        self._heard: deque[_Heard] = deque()
        """What is still to be told to Redis."""

        self._news = asyncio.Event()
        self._asked_at: dict[str, float] = {}
        self.ask_living: Callable[[str], Awaitable[Collection[str] | None]] | None = None
        """The runs of a user that the gateway itself lists; None where it cannot tell. Raises SidecarError."""

    async def begin(self, slug: str, run_id: str, session_key: str = "") -> tuple[str, bool]:
        """Count a run in and make its id the user's: the id to use upstream, and whether it is counted for this request.

        Counted first, so that a refused turn leaves nothing behind. Raises TooManyRuns, QuotaExceeded, ForeignKey, StorageAway.
        """
        likely = run_id if self._may_stay(slug, run_id) else self._mapped(slug, run_id)
        counted = await self.admit(slug, likely, session_key)
        try:
            claimed = await self.claim(slug, run_id)
        except StorageAway:
            if not counted:
                raise
            claimed = self._mapped(slug, run_id)  # it may start, and nobody else can come to this id
        except SidecarError:
            if counted:
                self.ended(slug, likely)
            raise
        if claimed != likely:
            with contextlib.suppress(StorageAway):
                await self._accounts.release(slug, self.gateway_id, likely)
            counted = await self.admit(slug, claimed, session_key)
        if counted:
            self._over.pop((slug, claimed), None)
        return claimed, counted

    async def claim(self, slug: str, run_id: str) -> str:
        """The id to use upstream: `run_id` where it is random and nobody else's, or one that only this user's `run_id` maps to.

        So nobody can take another's id away, learn that it exists, or reach the run behind it. Raises StorageAway.
        """
        if self._may_stay(slug, run_id) and await self._store.claim_run(self.gateway_id, run_id, slug, WISH_MS):
            return run_id
        mapped = self._mapped(slug, run_id)
        if await self._store.claim_run(self.gateway_id, mapped, slug, WISH_MS):
            return mapped
        raise ForeignKey("that run is not yours")

    def _may_stay(self, slug: str, run_id: str) -> bool:
        return _RANDOM_ID.fullmatch(run_id) is not None and self._live.get(run_id, slug) == slug

    async def require_own(self, slug: str, run_id: str) -> str:
        """The id upstream of a run that the user calls so. Raises ForeignKey where it is not the user's; StorageAway."""
        for own in (run_id, self._mapped(slug, run_id)):
            living = self._live.get(own)
            if living == slug or (living is None and await self._store.owner_is(self.gateway_id, own, slug)):
                return own
        raise ForeignKey("that run is not yours")

    def _mapped(self, slug: str, run_id: str) -> str:
        text = f"openclaw-sidecar/run/v1\0{slug}\0{run_id}"
        return hmac.digest(self._secret, text.encode(), "sha256").hex()[:48]

    async def admit(self, slug: str, run_id: str, session_key: str = "") -> bool:
        """Count the run in; False where it was counted before and lives: a repeated request.

        Raises TooManyRuns, QuotaExceeded, StorageAway.
        """
        admission = await self._admission(slug, run_id, session_key)
        if admission.outcome is Outcome.RUNS and await self._forget_dead(slug):
            admission = await self._admission(slug, run_id, session_key)
        if not admission.admitted:
            raise self._accounts.refusal(slug, admission)
        return not admission.repeated

    async def _admission(self, slug: str, run_id: str, session_key: str) -> Admission:
        return await self._accounts.admit(slug, self._list(run_id), run_id, session_key, self._live_ms)

    def _list(self, run_id: str) -> str:
        """Where it is counted: acts beside the runs, of which the gateway says which live."""
        return f"{self.gateway_id}:acts" if run_id.startswith(ACT) else self.gateway_id

    async def _forget_dead(self, slug: str) -> int:
        """Ask the gateway before a turn is refused: ends that nobody heard, since gateway or sidecar were away, count no more.

        How many there were. Raises StorageAway.
        """
        if self.ask_living is None or self._clock() - self._asked_at.get(slug, 0.0) < ASK_SECONDS:
            return 0
        self._asked_at.pop(slug, None)
        self._asked_at[slug] = self._clock()
        if len(self._asked_at) > MOST_ASKED:
            del self._asked_at[next(iter(self._asked_at))]
        untouched = self._now_ms() + self._live_ms - SETTLE_MS
        try:
            living = await self.ask_living(slug)
        except SidecarError:
            return 0
        return 0 if living is None else await self._store.release_dead_runs(slug, self.gateway_id, living, untouched)

    def taken(self, slug: str, run_id: str) -> None:
        """The gateway took the request for this run, which may still wait in its lane: its id stays the user's."""
        self._tell(Word.TAKEN, slug, run_id)

    def started(self, slug: str, run_id: str) -> None:
        """The gateway says that a run of this user's agent lives, whoever started it: its id is the user's from now on."""
        if run_id not in self._live and (slug, run_id) not in self._over:
            self._live[run_id] = slug
            self._since[run_id] = self._clock()
            self._tell(Word.BEGAN, slug, run_id)

    def ended(self, slug: str, run_id: str) -> None:
        """The gateway says that a run ended; taken off the count by `run()`."""
        self._over[slug, run_id] = None
        if len(self._over) > MOST_OVER:
            del self._over[next(iter(self._over))]
        self.silent(slug, run_id)

    def silent(self, slug: str, run_id: str) -> None:
        """As far as one can tell the run is over: as `ended`, but it counts again once it is heard of again."""
        if self._live.get(run_id) == slug:
            del self._live[run_id], self._since[run_id]
        self._tell(Word.ENDED, slug, run_id)

    @contextlib.contextmanager
    def holding(self, slug: str, act: str) -> Iterator[None]:
        """Keep an act, if it is one that counts, on the count while it goes on."""
        if not act:
            yield
            return
        self._live[act], self._since[act] = slug, self._clock()
        try:
            yield
        finally:
            self._live.pop(act, None)
            self._since.pop(act, None)

    def forget_live(self) -> None:
        """The gateway is lost: what still runs there will be heard of again, the rest ends by itself."""
        self._live.clear()
        self._since.clear()
        self._over.clear()

    async def run(self) -> None:
        """Tell Redis what was heard, and keep living runs on the count, until cancelled."""
        try:
            await self._tell_and_renew()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self._all_told(self._heard)

    def _tell(self, word: Word, slug: str, run_id: str) -> None:
        self._heard.append((word, slug, run_id))
        self._news.set()

    async def _tell_and_renew(self) -> None:
        loop = asyncio.get_running_loop()
        every = self._live_ms / 3000
        renew_at = loop.time() + every
        while True:
            if loop.time() >= renew_at:  # also while something is heard all the time
                await self._renew()
                renew_at = loop.time() + every
            try:
                async with asyncio.timeout_at(renew_at):
                    await self._news.wait()
            except TimeoutError:
                continue
            self._news.clear()
            heard = tuple(itertools.islice(self._heard, MOST_TOLD))
            # An end that was lost would count for minutes.
            while not await self._all_told(heard):  # noqa: ASYNC110 - Redis is away, and says nothing when it is back
                await asyncio.sleep(AGAIN_SECONDS)
            for _ in heard:
                self._heard.popleft()
            if self._heard:
                self._news.set()

    async def _all_told(self, heard: Iterable[_Heard]) -> bool:
        """False where Redis is away; telling it again does no harm."""
        outcomes = await asyncio.gather(*self._told(heard), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, StorageAway):
                raise outcome
        return not any(isinstance(outcome, StorageAway) for outcome in outcomes)

    def _told(self, heard: Iterable[_Heard]) -> Iterator[Awaitable[object]]:
        """In the order heard, for one round trip. A run that began counts, whoever began it; it is never refused any more."""
        for word, slug, run_id in heard:
            if word is not Word.ENDED:
                yield self._store.claim_run(self.gateway_id, run_id, slug, CLAIM_MS)
            if slug == NOBODY:
                continue
            if word is Word.ENDED:
                yield self._accounts.release(slug, self._list(run_id), run_id)
            elif word is Word.BEGAN:
                yield self._accounts.adopt(slug, self.gateway_id, run_id, self._live_ms)

    async def _renew(self) -> None:
        lists: dict[tuple[str, str], list[str]] = {}
        for run_id, slug in list(self._live.items()):
            if self._clock() - self._since[run_id] > LONGEST_SECONDS:
                del self._live[run_id], self._since[run_id]
            elif slug != NOBODY:
                lists.setdefault((slug, self._list(run_id)), []).append(run_id)
        for (slug, place), run_ids in lists.items():
            try:
                renewed = await self._store.renew_runs(slug, place, run_ids, self._live_ms, self._now_ms())
                if renewed < len(run_ids):  # Redis was emptied
                    for run_id in run_ids:
                        await self._accounts.adopt(slug, place, run_id, self._live_ms)
            except StorageAway:
                return

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def new_run_id(random_bytes: Callable[[int], bytes]) -> str:
    """An id for a run whose client named none."""
    return "run-" + hashlib.sha256(random_bytes(32)).hexdigest()[:32]
