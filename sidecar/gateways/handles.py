"""Whose is this object? Tasks, approvals, questions, cron jobs, artifacts … are named by ids that authorise nobody.

An id belongs to the user whose agent an event or an answer of the gateway named beside it, first; asking for it makes no owner.
What was learned is kept here for a while and told to Redis, so that every replica knows it. Ids of runs are `quota.runs`'
business: they are chosen by clients and must be claimed before they are sent on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol

from sidecar.errors import ForeignKey, StorageAway

KNOWN = 20_000
"""Ids that one process remembers of a gateway."""

KEEP_MS = 30 * 24 * 3600 * 1000
"""How long an owner is remembered after the id was last seen: a list that shows it again renews it."""

WAITING = 20_000
AGAIN_SECONDS = 0.5


class HandleStore(Protocol):
    """What Redis does for this room; `owner` is the user's slug. Raises StorageAway."""

    async def claim_handle(self, gateway_id: str, kind: str, handle: str, owner: str, ttl_ms: int) -> bool: ...

    async def owns_handle(self, gateway_id: str, kind: str, handle: str, owner: str) -> bool: ...


class Handles:
    """Of one gateway. `run()` is the one task that tells Redis."""

    def __init__(self, gateway_id: str, store: HandleStore) -> None:
        self._gateway_id = gateway_id
        self._store = store
        self._owners: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._untold: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._more = asyncio.Event()

    def learn(self, kind: str, handles: Iterable[str], slug: str) -> None:
        """The gateway named these ids beside the user's own agent. Whoever was named first stays the owner."""
        for handle in handles:
            if self._owners.setdefault((kind, handle), slug) == slug:
                self._owners.move_to_end((kind, handle))
                self._untold[kind, handle] = slug
        while len(self._owners) > KNOWN:
            self._owners.popitem(last=False)
        while len(self._untold) > WAITING:
            self._untold.popitem(last=False)
        if self._untold:
            self._more.set()

    async def require(self, kind: str, handle: str, slug: str) -> None:
        """Return where the object is the user's. Raises ForeignKey, also for one that nobody knows; StorageAway."""
        owner = self._owners.get((kind, handle))
        if owner is None and await self._store.owns_handle(self._gateway_id, kind, handle, slug):
            owner = slug
        if owner != slug:
            raise ForeignKey("that is not yours, or not there")

    def is_known(self, kind: str, handle: str, slug: str) -> bool:
        """Does this process know that the object is the user's? Asks nobody."""
        return self._owners.get((kind, handle)) == slug

    async def run(self) -> None:
        """Tell Redis what was learned, until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            batch, self._untold = self._untold, OrderedDict()
            outcomes = await asyncio.gather(*(self._told(*key, slug) for key, slug in batch.items()))
            if not all(outcomes):
                self._untold = batch | self._untold
                self._more.set()
                await asyncio.sleep(AGAIN_SECONDS)

    async def _told(self, kind: str, handle: str, slug: str) -> bool:
        """False where Redis is away. Another's claim that came first wins here too."""
        try:
            claimed = await self._store.claim_handle(self._gateway_id, kind, handle, slug, KEEP_MS)
        except StorageAway:
            return False
        if not claimed:
            self._owners.pop((kind, handle), None)
        return True
