"""An attack's outcomes as findings, and as a member of the JSON document. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.doctor.attack.matrix import Outcome
from sidecar.doctor.attack.run import AttackReport
from sidecar.doctor.findings import Finding, Mend, danger, json5, listed, note, ok, openclaw, sidecar, warning
from sidecar.doctor.reading import Expected


def told(report: AttackReport, expected: Expected) -> Iterator[Finding]:
    """What held, what did not, and how far that is a proof."""
    broke = report.of("broke through")
    by_tool: dict[str, list[Outcome]] = {}
    for one in broke:
        by_tool.setdefault(one.tool, []).append(one)
    for tool, ways in by_tool.items():
        how = listed(f"{one.attack} ({one.way}): {one.why}" for one in ways)
        yield danger("attack.broke", f"{tool} reached what is another user's: {how}.", *_mends(tool, expected))
    held = report.of("held")
    if not broke and held:
        tools = len({one.tool for one in held})
        yield ok(
            "attack.held",
            f"{len(held)} attacks with {tools} tools on another user's things all failed. No model was asked.",
        )
    if missed := report.of("not tried"):
        yield warning(
            "attack.missed", f"{len(missed)} attacks came to no end: {listed(one.tool for one in missed)}. Try again."
        )
    yield _control(report)
    for remark in report.remarks:
        yield note("attack.remark", f"{remark}.")
    if report.kept:
        yield warning(
            "attack.kept", f"Not everything could be taken back: {listed(report.kept)}. The next --attack tries again."
        )


def _mends(tool: str, expected: Expected) -> list[Mend]:
    if tool == "MEDIA:":
        return [openclaw("// as the attach.… findings above say")]
    if tool in expected.tools_allow:
        tools = [one for one in expected.tools_allow if one != tool]
        return [sidecar(f"[environments]\ntools_allow = {json5(tools)}")]
    return [openclaw('// tools.agentToAgent.enabled: false, tools.sessions.visibility: "self"; see the findings above')]


def _control(report: AttackReport) -> Finding:
    judged = [one for one in report.outcomes if one.verdict != "not tried"]
    if all(one.controlled is None for one in judged):
        return note(
            "attack.control",
            "Controls were not run: nobody showed that these attacks win where an agent is open. --control does, with an agent "
            "that is open for that moment.",
        )
    proved = {one.tool for one in judged if one.controlled}
    others = sorted({one.tool for one in judged} - proved)
    return note(
        "attack.control",
        f"From an open agent the same attacks won, or reached the tool, with {len(proved)} tools. Without that proof: "
        f"{listed(others, 40)}.",
    )


def as_json(report: AttackReport) -> dict[str, Any]:
    """Every attack, for scripts."""
    return {
        "gateway": report.gateway_id,
        "attacks": [
            {
                "tool": one.tool,
                "attack": one.attack,
                "way": one.way,
                "verdict": one.verdict,
                "why": one.why,
                "controlled": one.controlled,
            }
            for one in report.outcomes
        ],
        "offered": report.offered,
        "kept": report.kept,
    }
