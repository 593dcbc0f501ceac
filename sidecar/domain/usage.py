"""What a model call cost: one row of the ledger, which is the only truth about usage."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any


class Source(enum.StrEnum):
    """How a row of the ledger is known."""

    MESSAGE = "message"
    """The gateway's transcript holds the model's own figures."""

    ESTIMATE = "estimate"
    """A run ended without figures (aborted, failed, lost): reckoned from what it streamed and the prompt before it."""

    EGRESS = "egress"
    """Counted on the way to the model. No meter writes it yet."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one model call. `input` holds no cached tokens, so that the four add up to `total`."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_write


@dataclass(frozen=True, slots=True)
class Weights:
    """How much of each kind of token counts towards a quota."""

    input: Decimal = Decimal(1)
    output: Decimal = Decimal(1)
    cache_read: Decimal = Decimal(1)
    cache_write: Decimal = Decimal(1)

    def of(self, tokens: Tokens) -> Decimal:
        return (
            self.input * tokens.input
            + self.output * tokens.output
            + self.cache_read * tokens.cache_read
            + self.cache_write * tokens.cache_write
        )


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One row of `token_usage_logs`."""

    gateway_id: str
    call_id: str
    """With `gateway_id` the natural key: the transcript's message id, which a fork copies; of an estimate too, or
    `after:<message id>` where there is none, but one that waited for an answer."""

    source: Source
    slug: str
    """Names the user on the gateway: whose agent made the call."""

    session_key: str
    run_id: str
    """`request_id` in the ledger; empty where the gateway names none."""

    provider: str
    model: str
    tokens: Tokens
    cost_usd: Decimal
    at: float
    """Unix seconds, by the gateway's clock."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """`error`, `priced_by`, … Never message text."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has begun and, as far as anybody heard, not ended."""

    run_id: str
    slug: str
    session_key: str
    began_at: float
    """Unix seconds, by the gateway's clock."""


GROUPS = ("day", "month", "user", "model", "session")
"""What usage can be added up by."""


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which rows of the ledger, and how they are added up."""

    since: float
    until: float
    """Unix seconds; `until` itself is not in it."""

    by: str
    """One of `GROUPS`."""

    user_id: str = ""
    """Empty: everybody's."""

    zone: str = "UTC"
    """In which days and months begin."""


SUM_COLUMNS = ("calls", "estimated", "input", "output", "cache_read", "cache_write", "total", "cost_usd")


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Model calls of one group, added up."""

    group: str
    """A day, a month, a user id, a session key, or `<provider>/<model>`."""

    calls: int
    estimated: int
    """How many of the calls are estimates."""

    tokens: Tokens
    cost_usd: Decimal


def spreadsheet(by: str, sums: Iterable[UsageSum]) -> Iterator[list[object]]:
    """The lines of a CSV file, its head first. A name that would be a formula there stands behind an apostrophe."""
    yield [by, *SUM_COLUMNS]
    for one in sums:
        tokens = one.tokens
        counts = (tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, tokens.total)
        yield [_cell(one.group), one.calls, one.estimated, *counts, f"{one.cost_usd:f}"]


def _cell(name: str) -> str:
    plain = "".join(one if one.isprintable() else " " for one in name)
    return f"'{plain}" if plain.lstrip().startswith(("=", "+", "-", "@")) else plain
