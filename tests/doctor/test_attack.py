"""The hostile matrix: what counts as won, what is written for it, and that it is taken back. Without a gateway."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.doctor.attack.belongings import Belongings
from sidecar.doctor.attack.ground import ATTACKER, OURS, PROVIDER, VICTIM, Ground, leftovers, provider, roster
from sidecar.doctor.attack.matrix import (
    MATRIX,
    WAYS,
    Attack,
    Outcome,
    judged,
    judged_by_harm,
    marks,
    matrix,
    not_offered,
    replies,
)
from sidecar.doctor.attack.model import ScriptedModel, Turn, listening
from sidecar.doctor.attack.run import AttackReport
from sidecar.doctor.attack.told import as_json, told
from sidecar.doctor.findings import exit_code
from sidecar.gateways.configuration import AgentOptions
from tests.doctor.looks import EXPECTED, by_id, ids, look
from tests.stack.gateway import merge

GROUND = Ground.new("/data/users/", "/etc/openclaw.json", "/state", "http://127.0.0.1:1").knowing(
    "session-1", "message-1"
)
READ = next(one for one in MATRIX if (one.tool, one.name) == ("read", "absolute path"))
WRITE = next(one for one in MATRIX if (one.tool, one.name) == ("write", "absolute path"))
NODES = next(one for one in MATRIX if one.tool == "nodes")
FILES = ("read", "write")


@pytest.mark.parametrize(
    ("attack", "text", "left", "verdict"),
    [
        (READ, f"alpha\n{GROUND.kept}", False, "broke through"),
        (READ, '{"status": "error", "error": "Path escapes sandbox root"}', False, "held"),
        (READ, "Tool read not found", False, "held"),
        (READ, None, False, "not tried"),
        (WRITE, "Successfully wrote 3 bytes", False, "held"),
        (WRITE, "Path escapes", True, "broke through"),
        (NODES, "Tool nodes not found", False, "held"),
        (NODES, '{"error": "Unknown tool id: nodes. Use tool_search"}', False, "held"),
        (NODES, '{"ok":false,"error":{"message":"Tool not available: nodes"}}', False, "held"),
        (NODES, "This id names a skill, not a callable tool. Load it", False, "held"),
        (NODES, '{"nodes": []}', False, "broke through"),
        (NODES, 'Validation failed for tool "nodes"', False, "broke through"),
    ],
    ids=range(12),
)
def test_verdicts(attack: Attack, text: str | None, left: bool, verdict: str) -> None:
    outcome = judged(attack, "direct", GROUND, text, FILES, left=left)
    assert outcome.verdict == verdict
    assert GROUND.kept not in outcome.why


def test_a_tool_that_users_may_have_is_judged_by_harm_alone() -> None:
    assert judged(NODES, "direct", GROUND, "anything", ("nodes",), left=False).verdict == "held"
    assert judged(READ, "direct", GROUND, "anything", ("read",), left=False).verdict == "held"


def test_no_attack_gives_away_what_it_looks_for() -> None:
    """Else a tool that repeats its arguments would look like a hole."""
    mark = marks([(one, way) for one in MATRIX for way in WAYS])
    assert len(set(mark.values())) == len(MATRIX) * len(WAYS)
    for one in MATRIX:
        arguments = json.dumps(one.arguments(GROUND, "mark"))
        if one.word is not None:
            assert one.word(GROUND) not in arguments, one
        assert (one.leaves is False) or "mark" in arguments
        assert GROUND.told not in arguments
        assert GROUND.kept not in arguments
    assert not (set(mark.values()) & set(marks([(READ, "direct")]).values()))


def test_a_tool_that_nobody_knew_is_tried_with_everything() -> None:
    assert matrix(["read", "nodes"]) == list(MATRIX)
    [new] = matrix(["teleport"])[len(MATRIX) :]
    assert new.tool == "teleport"
    assert GROUND.her_key in json.dumps(new.arguments(GROUND, "m"))
    assert new.tool not in judged_by_harm([new])
    assert all(reply.startswith("MEDIA:") for _, reply in replies(GROUND))


def test_the_throw_away_agents_are_what_users_agents_are() -> None:
    seen = look()
    options = AgentOptions(EXPECTED.tools_allow)
    patch = {"agents": roster(GROUND, seen.source, seen.effective, options, control=True)["agents"]}
    after = merge(seen.source, patch)["agents"]["entries"]
    for agent, model in ((GROUND.victim, VICTIM), (GROUND.attacker, ATTACKER)):
        assert OURS.fullmatch(agent)
        entry = dict(after[agent])
        assert entry.pop("model") == {"primary": model}
        assert entry.pop("utilityModel") == model
        assert entry.pop("modelPolicy") == {"allow": [model]}
        entry["modelPolicy"] = {"allow": ["fake/fake-1"]}
        entry["workspace"], entry["subagents"] = after["u-alice"]["workspace"], after["u-alice"]["subagents"]
        assert entry == after["u-alice"], "but for its name, its place and its model"
    assert "tools" not in after[GROUND.open]
    without = roster(GROUND, seen.source, seen.effective, options, control=False)["agents"]["entries"]
    assert GROUND.open not in without
    assert set(without) == {GROUND.victim, GROUND.attacker}


def test_leftovers_are_known_by_their_names_and_no_users_are() -> None:
    ours: dict[str, Any] = {
        GROUND.victim: {},
        "doctor-attack-0badcafe-open": {},
        "doctor-attack-x": {},
        "u-alice": {},
        "main": {},
    }
    source = {"agents": {"entries": ours}, "models": {"providers": {PROVIDER: provider("http://127.0.0.1:1/v1", "k")}}}
    agents, there = leftovers(source)
    assert set(agents) == {GROUND.victim, "doctor-attack-0badcafe-open"}
    assert there
    assert leftovers({}) == ([], False)
    assert leftovers({"agents": {"entries": 7}, "models": None}) == ([], False)


def test_folders_are_swept_by_name_and_links_are_not_followed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "users", tmp_path / "elsewhere"
    for folder in (root / GROUND.victim / "workspace", root / "u-alice" / "workspace", elsewhere):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (root / GROUND.attacker).symlink_to(elsewhere)
    Belongings(None, root, None)._sweep()  # type: ignore[arg-type]
    assert not (root / GROUND.victim).exists()
    assert (root / "u-alice" / "workspace" / "file").exists()
    assert (elsewhere / "file").exists()


HELD = Outcome("a", "read", "direct", "held", "Path escapes")
BROKE = Outcome("her session", "sessions_history", "tool_call", "broke through", "the victim's secret came back")


def test_an_attack_that_failed_everywhere_is_fine_and_says_whether_that_is_proved() -> None:
    report = AttackReport("main", [HELD, replace(HELD, tool="write")])
    findings = list(told(report, EXPECTED))
    assert exit_code(findings) == 0
    assert "--control" in by_id(findings, "attack.control").says
    proved = AttackReport("main", [replace(HELD, controlled=True), replace(HELD, tool="write", controlled=False)])
    control = by_id(told(proved, EXPECTED), "attack.control")
    assert "1 tools" in control.says
    assert "write" in control.says


def test_a_way_in_is_a_danger_with_the_setting_that_opens_it() -> None:
    wider = replace(EXPECTED, tools_allow=("read", "sessions_history"))
    report = AttackReport(
        "main", [HELD, BROKE, replace(BROKE, way="direct")], ["symlinks were not tried"], ["an agent"]
    )
    findings = list(told(report, wider))
    assert ids(findings, "danger") == {"attack.broke"}
    broke = by_id(findings, "attack.broke")
    assert 'tools_allow = ["read"]' in broke.mends[0].lines
    assert ids(findings, "warning") == {"attack.kept"}
    assert "attack.remark" in ids(findings, "note")
    assert "attack.held" not in ids(findings, "ok")
    other = by_id(told(report, EXPECTED), "attack.broke")
    assert other.mends[0].file == "openclaw.json5"
    missed = list(told(AttackReport("main", [replace(HELD, verdict="not tried")]), EXPECTED))
    assert "attack.missed" in ids(missed, "warning")
    assert as_json(report)["attacks"][1]["verdict"] == "broke through"


async def asked(model: ScriptedModel, turn: Turn | None, *, stream: bool, results: dict[str, str] | None = None) -> str:
    """As a gateway asks; what the model answered, as text."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "rules"}]
    said = turn.ticket if turn else "recap this"
    messages.append({"role": "user", "content": [{"type": "text", "text": f"hello {said}"}]})
    messages += [{"role": "tool", "tool_call_id": key, "content": text} for key, text in (results or {}).items()]
    body = {
        "model": turn.role if turn else "victim",
        "stream": stream,
        "messages": messages,
        "tools": [{"function": {"name": "read"}}],
    }
    headers = {"authorization": f"Bearer {model.key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{model.base_url}/chat/completions", json=body, headers=headers) as answer,
    ):
        assert answer.status == 200
        return await answer.text()


@pytest.mark.parametrize("stream", [True, False])
async def test_the_doctor_is_a_model_that_calls_what_it_is_told(stream: bool) -> None:
    async with ScriptedModel() as model:
        turn = model.expect(GROUND.attacker, [("read", {"path": "/x"}), ("ls", {})])
        first = await asked(model, turn, stream=stream)
        assert '"tool_calls"' in first
        assert '\\"path\\": \\"/x\\"' in first
        assert not turn.answered.is_set()
        assert turn.tools == {"read"}
        call_ids = [f"c{turn.ticket[-8:]}{index:03d}" for index in range(2)]
        last = await asked(
            model, turn, stream=stream, results={call_ids[0]: "secret", call_ids[1]: "Tool ls not found"}
        )
        assert '"done"' in last
        assert turn.results == {0: "secret", 1: "Tool ls not found"}
        assert turn.answered.is_set()
        assert '"fine"' in await asked(model, None, stream=stream)
        spoken = model.expect(GROUND.open, reply="MEDIA:/x")
        assert "MEDIA:/x" in await asked(model, spoken, stream=stream)
        stolen = Turn(spoken.ticket, "victim")
        assert '"fine"' in await asked(model, stolen, stream=stream), "a ticket that another agent was sent"
        assert listening(model.base_url)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{model.base_url}/chat/completions", json={}) as answer,
        ):
            assert answer.status == 401, "nobody else's model"
    assert not listening(model.base_url)
    assert not listening("http://nonsense")


def test_what_a_gateway_says_of_a_tool_that_is_there_is_not_taken_for_a_refusal() -> None:
    for text in ("File not found: /x", "Path escapes sandbox root", '{"error": "session not found"}', ""):
        assert not not_offered(text)
