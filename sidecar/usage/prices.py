"""What a model call costs: the gateway's own figure where it has one, else the operator's table of prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase

from sidecar.domain.usage import Tokens

_MILLION = Decimal(1_000_000)
NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class Price:
    """One row of `usage.prices`: USD per million tokens."""

    provider: str
    model: str
    """With `*` for any text, `?` for any character; upper and lower case differ."""

    input: Decimal
    output: Decimal
    cache_read: Decimal = NOTHING
    cache_write: Decimal = NOTHING
    since: date = date.min
    """The first day, in UTC, on which it holds."""

    def of(self, tokens: Tokens) -> Decimal:
        return (
            self.input * tokens.input
            + self.output * tokens.output
            + self.cache_read * tokens.cache_read
            + self.cache_write * tokens.cache_write
        ) / _MILLION


class Prices:
    """The operator's table. Of several rows that match, the one that holds since the latest day counts; then the first."""

    def __init__(self, rows: Sequence[Price]) -> None:
        self._rows = sorted(rows, key=lambda row: row.since, reverse=True)

    def of(self, provider: str, model: str, tokens: Tokens, at: float) -> Decimal | None:
        """USD; None where no row matches. `at`: Unix seconds of the call."""
        day = datetime.fromtimestamp(at, UTC).date()
        for row in self._rows:
            if row.since <= day and fnmatchcase(provider, row.provider) and fnmatchcase(model, row.model):
                return row.of(tokens)
        return None
