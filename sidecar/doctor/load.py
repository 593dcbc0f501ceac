"""How many people a gateway is for, and what nobody counts. Pure."""

from __future__ import annotations

from sidecar.doctor.agents import known_agents
from sidecar.doctor.findings import Finding, Mend, listed, note, ok, setting, sidecar, warning
from sidecar.doctor.reading import Expected, GatewaySeen
from sidecar.doctor.shape import member
from sidecar.gateways.unmetered import unmetered

_LANE = "agents.defaults.maxConcurrent"


def load(expected: Expected, seen: GatewaySeen) -> list[Finding]:
    """What one gateway's users share."""
    return [_lane(expected, seen), _unmetered(seen)]


def _lane(expected: Expected, seen: GatewaySeen) -> Finding:
    """All turns of all users run in one lane of `max(8, 4 x processors)`, or of `maxConcurrent` (2026.9.6)."""
    lane, each = member(seen.effective, _LANE), expected.concurrent_runs
    if not isinstance(lane, int):
        return note("load.lane", "The gateway does not say how many turns it runs at once.")
    users = len(known_agents(expected, seen.source))
    if not each or each >= lane:
        return warning(
            "load.lane",
            f"One user alone can fill the gateway: it runs {lane} turns at once, and one user may start {each or 'any number'}. "
            "Everybody else then waits.",
            sidecar(f"[quota]\nconcurrent_runs = {max(1, lane // 4)}"),
            setting(_LANE, 2 * each or 4 * lane),
        )
    mends: tuple[Mend, ...] = ()
    narrow = ""
    if seen.cpus and isinstance(member(seen.source, _LANE), int) and lane < 4 * seen.cpus:
        narrow = f" It could run {max(8, 4 * seen.cpus)} on this host's {seen.cpus} processors."
        mends = (setting(_LANE, max(8, 4 * seen.cpus)),)
    says = f"The gateway runs {lane} turns at once, for {users} users with {each} each."
    if users * each <= lane:
        return ok("load.lane", says)
    return note("load.lane", f"{says} While more than {lane} run, the next ones wait.{narrow}", *mends)


def _unmetered(seen: GatewaySeen) -> Finding:
    """Calls of a model that no transcript shows."""
    ways = list(unmetered(seen.effective))
    return note(
        "load.unmetered",
        f"No transcript shows these calls of a model, so nobody can count them: {listed((way.what for way in ways), len(ways))}.",
        *(setting(way.setting, way.off) for way in ways if way.setting),
    )
