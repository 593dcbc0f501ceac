"""What accounts need of PostgreSQL and Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from sidecar.domain.quota import Admission, Figures, QuotaType
from sidecar.domain.usage import Weights
from sidecar.storage.accounts import Ask, Settlement


class Used(Protocol):
    @property
    def day_tokens(self) -> Decimal: ...

    @property
    def month_cost(self) -> Decimal: ...

    @property
    def day_calls(self) -> int: ...

    @property
    def recent(self) -> Sequence[str]: ...


class Ledger(Protocol):
    """Raises StorageAway."""

    async def used_by(
        self, gateway_id: str, slug: str, day: float, month: float, recent: float, weights: Weights
    ) -> Used: ...


class Terms(Protocol):
    """Raises StorageAway."""

    async def terms_of(self, gateway_id: str, slug: str) -> tuple[frozenset[str], Mapping[QuotaType, Decimal]]:
        """A user's roles, and what they may in place of their role's."""


class Store(Protocol):
    """`storage.accounts.AccountStore`. All raise StorageAway."""

    async def admit(self, ask: Ask) -> Admission: ...

    async def adopt(self, ask: Ask) -> Admission: ...

    async def release(self, slug: str, place: str, run_id: str, now_ms: int) -> None: ...

    async def settle(self, settlement: Settlement) -> tuple[bool, Figures | None]: ...

    async def look(self, slug: str, now_ms: int, day: str, month: str) -> Figures | None: ...

    async def begin_building(self, slug: str) -> bool: ...

    async def built(self, slug: str, figures: Figures, calls: Sequence[str], now_ms: int) -> bool: ...

    async def forget(self, slug: str) -> None: ...
