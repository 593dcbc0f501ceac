"""A model call as a line of the spool, and back."""

from __future__ import annotations

from decimal import Decimal

import orjson

from sidecar.domain.usage import ModelCall, Source, Tokens


def to_line(call: ModelCall) -> bytes:
    tokens = call.tokens
    counts = (tokens.input, tokens.output, tokens.cache_read, tokens.cache_write)
    return orjson.dumps(
        {
            **{name: getattr(call, name) for name in _TEXTS},
            "source": call.source.value,
            "tokens": counts,
            "cost_usd": str(call.cost_usd),
            "at": call.at,
            "metadata": dict(call.metadata),
        }
    )


def from_line(line: bytes) -> ModelCall:
    """Raises ValueError for a line that no `to_line` made."""
    try:
        row = orjson.loads(line)
        return ModelCall(
            **{name: row[name] for name in _TEXTS},
            source=Source(row["source"]),
            tokens=Tokens(*row["tokens"]),
            cost_usd=Decimal(row["cost_usd"]),
            at=row["at"],
            metadata=row["metadata"],
        )
    except (KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"not a line of the spool: {type(error).__name__}") from None


_TEXTS = ("gateway_id", "call_id", "slug", "session_key", "run_id", "provider", "model")
