"""The rounds: each case on each target in turn, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from loadtest import ledger
from loadtest.events import StreamOrder
from loadtest.targets import COALESCED, DIRECT, LIMITED, NGINX, SIDECAR, House

Row = dict[str, float | str]
Progress = Callable[[str], None]

SOLO = ["b"]
"""The login of the one who streams alone: short, so that an event of 350 bytes has room for what it must say."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    rounds: int = 5
    streams: int = 4
    """Runs per measurement of a relay."""

    events: dict[int, int] = field(default_factory=lambda: {350: 50_000, 2048: 15_000, 20_480: 1500})
    """Size of an event in bytes → events per run."""

    paced_events: int = 1500
    requests: int = 500
    users: int = 200
    events_per_user: int = 1000
    idle: tuple[int, int] = (200, 1000)
    calls: int = 20_000
    """Model calls for the ledger."""


QUICK = Plan(
    rounds=1,
    streams=1,
    events={350: 5000, 2048: 2000, 20_480: 200},
    paced_events=200,
    requests=100,
    users=20,
    events_per_user=200,
    idle=(20, 60),
    calls=1000,
)


async def measure(house: House, plan: Plan, told: Progress) -> list[Row]:
    """A row for each measurement, with `case`, `target`, `round` and what `client.JOBS` says. Raises BenchError."""
    users = [f"u{number}" for number in range(plan.users)]
    told(f"bringing in {plan.users} users")
    for target in house.places:
        await house.job("connects", target, [*SOLO, *users], at_once=plan.users)
    rows = [await _idle(house, plan, users, target) for target in house.places if target not in {DIRECT, LIMITED}]
    for number in range(plan.rounds):
        told(f"round {number + 1} of {plan.rounds}")
        for case in _cases(plan, users):
            # Each round begins with another target.
            turn = [
                target for target in house.places if target in case.targets or not (case.targets or target == LIMITED)
            ]
            turn = turn[number % len(turn) :] + turn[: number % len(turn)]
            for target in turn:
                result = await house.job(case.do, target, case.logins, **case.more)
                rows.append({"case": case.name, "target": target, "round": number, **result})
        for target, result in await ledger.measured(house.folder / f"ledger-{number}", plan.calls):
            rows.append({"case": "ledger", "target": target, "round": number, **result})
    return rows


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure. `targets` empty: on all."""

    name: str
    do: str
    logins: Sequence[str]
    more: dict[str, object]
    targets: Sequence[str] = ()


def _cases(plan: Plan, users: Sequence[str]) -> list[Case]:
    cases = []
    for size, events in plan.events.items():
        order = StreamOrder(events, size)
        cases.append(_stream(f"relay {size} B", order, plan.streams))
    for size in list(plan.events)[:2]:
        events = plan.events[size]
        cases.append(_stream(f"agent {size} B", StreamOrder(events, size, "agent"), plan.streams))
        cases.append(_stream(f"foreign {size} B", StreamOrder(events, size, foreign=True), plan.streams, [SIDECAR]))
    small = min(plan.events)
    cases.append(_stream("one at a time", StreamOrder(plan.paced_events, small, pace_ms=1), 1))
    order = StreamOrder(plan.events_per_user, small)
    cases.append(Case("many users", "many", users, {"order": asdict(order)}))
    cases.append(Case("round trip", "roundtrips", SOLO, {"requests": plan.requests}))
    cases.append(Case("turn", "turns", SOLO, {"requests": plan.requests}, [DIRECT, SIDECAR, LIMITED]))
    cases.append(Case("connect", "connects", users, {}, [NGINX, COALESCED, SIDECAR]))
    return cases


def _stream(name: str, order: StreamOrder, streams: int, targets: Sequence[str] = ()) -> Case:
    return Case(name, "stream", SOLO, {"order": asdict(order), "streams": streams}, targets)


async def _idle(house: House, plan: Plan, users: Sequence[str], target: str) -> Row:
    few, many = plan.idle
    result = await house.job("idle", target, users, few=few, many=many)
    return {"case": "idle", "target": target, "round": 0, **result}
