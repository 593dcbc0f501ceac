"""Frames of a real gateway (`samples.jsonl`; README.md says what they are)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame as it was seen."""

    version: str
    kind: str
    frame: dict[str, Any]

    @property
    def raw(self) -> bytes:
        """As the gateway's `JSON.stringify` wrote it."""
        return orjson.dumps(self.frame)

    @property
    def is_event(self) -> bool:
        return bool(self.frame["type"] == "event")

    def __str__(self) -> str:
        return f"{self.version} {self.kind}"


SAMPLES = tuple(
    Sample(**orjson.loads(line)) for line in (Path(__file__).parent / "samples.jsonl").read_bytes().splitlines()
)
EVENTS = tuple(sample for sample in SAMPLES if sample.is_event)


def answer_of(method: str, version: str = "2026.9.6") -> Any:
    """The payload that a gateway answered `method` with."""
    return next(
        sample.frame["payload"]
        for sample in SAMPLES
        if sample.kind == f"rpc:{method}" and sample.version == version and sample.frame.get("ok")
    )
