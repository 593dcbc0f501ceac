"""Rows of measurements → medians, ratios, a table, JSON."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from loadtest.measure import Row
from loadtest.targets import COALESCED, DIRECT, LIMITED, NGINX, SIDECAR, TARGETS

RESULTS = Path(__file__).with_name("results")
FLOOR = ("relay 350 B", "relay 2048 B")
"""Where the sidecar, with all its policy, may cost no more per event than the reference, which has none."""

Values = Callable[[Row], float]


def cost(row: Row) -> float:
    """Processor microseconds per event, request or connect."""
    count = row.get("events") or row.get("requests") or row["connects"]
    return 1e6 * float(row["cpu"]) / float(count)


def rate(row: Row) -> float:
    """Events or connects per second."""
    return float(row.get("events") or row["connects"]) / float(row["seconds"])


def median(rows: Iterable[Row], case: str, target: str, value: Values) -> float | None:
    """Over all rounds; None where the target was left out."""
    found = [value(row) for row in rows if (row["case"], row["target"]) == (case, target)]
    return statistics.median(found) if found else None


def ratio(rows: Sequence[Row], case: str, target: str, reference: str) -> float | None:
    """The median of the rounds' ratios of cost, each within its round: what else the machine did falls on both."""
    costs = {(row["target"], row["round"]): cost(row) for row in rows if row["case"] == case}
    both = [(value, costs.get((reference, number))) for (name, number), value in costs.items() if name == target]
    found = [value / other for value, other in both if other]
    return statistics.median(found) if found else None


def floor_holds(rows: Sequence[Row]) -> bool:
    """Is the sidecar at least as good as the reference?"""
    found = [ratio(rows, case, SIDECAR, COALESCED) for case in FLOOR]
    return all(one is not None and one <= 1 for one in found)


def table(rows: Sequence[Row]) -> str:
    """All of it, for people: Markdown."""
    lines: list[str] = []
    for case in dict.fromkeys(str(row["case"]) for row in rows):
        lines += [*_TABLES.get(case, _events)(rows, case), ""]
    return "\n".join(lines)


def _events(rows: Sequence[Row], case: str) -> list[str]:
    lines = [
        f"| {case} | events/s | CPU µs per event | of aiohttp coalesced | of nginx |",
        "|---|---:|---:|---:|---:|",
    ]
    for target in _targets(rows, case):
        relayed = target != DIRECT
        cells = [
            _number(median(rows, case, target, rate), ",.0f"),
            _number(median(rows, case, target, cost) if relayed else None, ".2f"),
            *(_number(ratio(rows, case, target, other) if relayed else None, ".2f") for other in (COALESCED, NGINX)),
        ]
        lines.append(f"| {target} | {' | '.join(cells)} |")
    return lines


def _roundtrips(rows: Sequence[Row], case: str) -> list[str]:
    lines = [f"| {case} | p50 µs | added | p99 µs | CPU µs |", "|---|---:|---:|---:|---:|"]
    direct = median(rows, case, DIRECT, lambda row: 1e6 * float(row["p50"])) or 0
    for target in _targets(rows, case):
        middle = median(rows, case, target, lambda row: 1e6 * float(row["p50"])) or 0
        cells = [
            _number(middle, ".0f"),
            _number(middle - direct if target != DIRECT else None, ".0f"),
            _number(median(rows, case, target, lambda row: 1e6 * float(row["p99"])), ".0f"),
            _number(median(rows, case, target, cost) if target != DIRECT else None, ".0f"),
        ]
        lines.append(f"| {target} | {' | '.join(cells)} |")
    return lines


def _connects(rows: Sequence[Row], case: str) -> list[str]:
    lines = [f"| {case} | per second | CPU µs |", "|---|---:|---:|"]
    for target in _targets(rows, case):
        many, each = median(rows, case, target, rate), median(rows, case, target, cost)
        lines.append(f"| {target} | {_number(many, ',.0f')} | {_number(each, ',.0f')} |")
    return lines


def _idle(rows: Sequence[Row], case: str) -> list[str]:
    lines = [f"| {case} | KiB per connected pair |", "|---|---:|"]
    for target in _targets(rows, case):
        each = median(rows, case, target, lambda row: float(row["kib"]) / (float(row["many"]) - float(row["few"])))
        lines.append(f"| {target} | {_number(each, '.1f')} |")
    return lines


def _turns(rows: Sequence[Row], case: str) -> list[str]:
    """What quotas add is the difference between the two sidecars."""
    lines = [f"| {case} | p50 µs | p99 µs | added by quotas, p50 | p99 | CPU µs |", "|---|---:|---:|---:|---:|---:|"]
    at = {
        (target, share): median(rows, case, target, lambda row, share=share: 1e6 * float(row[share]))  # type: ignore[misc]
        for target in (DIRECT, SIDECAR, LIMITED)
        for share in ("p50", "p99")
    }
    for target in (DIRECT, SIDECAR, LIMITED):
        added = [
            (at[LIMITED, share] or 0) - (at[SIDECAR, share] or 0) if target == LIMITED else None
            for share in ("p50", "p99")
        ]
        numbers = [at[target, "p50"], at[target, "p99"], *added]
        numbers.append(median(rows, case, target, cost) if target != DIRECT else None)
        lines.append(f"| {target} | {' | '.join(_number(one, '.0f') for one in numbers)} |")
    return lines


def _ledger(rows: Sequence[Row], case: str) -> list[str]:
    lines = [f"| {case} | rows per second |", "|---|---:|"]
    for target in dict.fromkeys(str(row["target"]) for row in rows if row["case"] == case):
        each = median(rows, case, target, lambda row: float(row["rows"]) / float(row["seconds"]))
        lines.append(f"| {target} | {_number(each, ',.0f')} |")
    return lines


_TABLES = {"turn": _turns, "ledger": _ledger, "round trip": _roundtrips, "connect": _connects, "idle": _idle}


def _targets(rows: Sequence[Row], case: str) -> list[str]:
    present = {row["target"] for row in rows if row["case"] == case}
    return [target for target in TARGETS if target in present]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def write(rows: Sequence[Row], folder: Path = RESULTS) -> Path:
    """All measurements as JSON, in a folder that git ignores; the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    path = folder / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())
    machine = {"system": platform.platform(), "python": platform.python_version()}
    path.write_text(json.dumps({**machine, "floor_holds": floor_holds(rows), "rows": rows}, indent=1) + "\n")
    return path
