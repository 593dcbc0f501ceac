"""What agents may do: opened ones, session tools, programs, other agents, and the level of isolation that is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.doctor.agents import agents, known_agents, level, sandboxed
from tests.doctor.looks import EXPECTED, ROOT, TOKEN, by_id, from_json5, ids, look, mended, under

ALICE = "agents.entries.u-alice"
SHARED = replace(EXPECTED, shared_agent="shared", tools_allow=())


def test_a_good_house_has_nothing_above_a_note() -> None:
    findings = agents(EXPECTED, look())
    assert ids(findings, "warning", "danger") == set()
    assert ids(findings, "note") == {"agents.others"}
    assert {"agents.session-tools", "agents.closed", "agents.exec", "isolation"} <= ids(findings, "ok")
    assert level(EXPECTED, look()) == "workspace"


def test_an_agent_that_an_earlier_sidecar_wrote_is_named_with_what_it_lacks() -> None:
    expected = replace(EXPECTED, origins=("http://x",))
    finding = by_id(agents(expected, look("trusted-proxy-2026.8.2")), "agents.opened")
    assert "u-a (tools.codeMode)" in finding.says
    after = mended(look("trusted-proxy-2026.8.2"), finding)
    assert "agents.opened" not in ids(agents(expected, after), "danger")


@pytest.mark.parametrize(
    ("change", "member"),
    [
        (under(f"{ALICE}.tools.allow", ["read", "exec"]), "tools.allow"),
        (under(f"{ALICE}.tools", None), "tools"),
        (under(f"{ALICE}.tools.fs.workspaceOnly", False), "tools.fs.workspaceOnly"),
        (under(f"{ALICE}.cwd", "/"), "cwd"),
        (under(f"{ALICE}.workspace", f"{ROOT}/u-bob/workspace"), "workspace"),
        (under(f"{ALICE}.runtime", {"type": "acp"}), "runtime"),
        (under("agents.defaults.cwd", "/"), "cwd"),
        (under("agents.defaults.model.primary", "other/model"), "modelPolicy.allow"),
    ],
)
def test_an_opened_agent_is_a_danger_and_its_lines_close_it(change: dict[str, Any], member: str) -> None:
    seen = look(change=change)
    finding = by_id(agents(EXPECTED, seen), "agents.opened")
    assert finding.severity == "danger"
    assert member in finding.says
    assert level(EXPECTED, seen) == "none"
    [mend] = finding.mends
    for line in mend.lines.splitlines():
        [(slug, entry)] = from_json5(line)["agents"]["entries"].items()
        for config in (seen.effective, seen.source):
            config["agents"]["entries"][slug] = entry
    assert "agents.opened" not in ids(agents(EXPECTED, seen), "danger")


def test_session_tools_are_a_danger_each_and_their_lines_close_them() -> None:
    seen = look("token-open-2026.9.6")
    findings = [one for one in agents(TOKEN, seen) if one.id == "agents.session-tools"]
    assert [one.severity for one in findings] == ["danger", "danger"]
    assert level(TOKEN, seen) == "none"
    for one in findings:
        assert "nobody is served" in one.says
        seen = mended(seen, one)
    assert "agents.session-tools" in ids(agents(TOKEN, seen), "ok")
    lenient = agents(replace(TOKEN, allow_open=True), look("token-open-2026.9.6"))
    assert any("allow_open_gateway" in one.says for one in lenient)


def test_nobody_has_come_yet() -> None:
    findings = agents(TOKEN, look("token-open-2026.9.6"))
    assert "agents.none" in ids(findings, "note")
    assert "main" in by_id(findings, "agents.others").says


def test_a_roster_that_cannot_be_written_is_named() -> None:
    assert by_id(agents(EXPECTED, look(includes=2)), "agents.includes").severity == "warning"
    assert "agents.includes" not in ids(agents(EXPECTED, look(includes=1)), "warning")


def test_what_the_gateway_would_offer_is_held_against_what_it_may() -> None:
    fine = look(offered={"u-alice": ["read", "write", "tool_search"]})
    assert "agents.offered" in ids(agents(EXPECTED, fine), "ok")
    more = by_id(agents(EXPECTED, look(offered={"u-alice": ["read", "exec"], "u-bob": ["read"]})), "agents.offered")
    assert more.severity == "danger"
    assert "u-alice exec" in more.says
    assert "u-bob" not in more.says
    groups = replace(EXPECTED, tools_allow=("group:fs",))
    assert "agents.offered" not in ids(agents(groups, look(offered={"u-alice": ["ls"]})), "danger")


def test_programs_without_a_sandbox() -> None:
    expected = replace(EXPECTED, tools_allow=("read", "exec"))
    denied = look()
    assert by_id(agents(expected, denied), "agents.exec").severity == "warning"
    entry = {"tools": {"allow": ["read", "exec"], "exec": None}}
    running = look(change=under(ALICE, entry))
    finding = by_id(agents(expected, running), "agents.exec")
    assert finding.severity == "danger"
    assert "u-alice" in finding.says
    assert by_id(agents(expected, mended(running, finding)), "agents.exec").severity == "warning"


def test_other_agents_matter_more_where_people_reach_them_by_channels() -> None:
    channels = {"channels": {"telegram": {"enabled": True, "botToken": "x"}, "slack": {"enabled": False}}}
    seen = look(change=channels)
    finding = by_id(agents(EXPECTED, seen), "agents.others")
    assert finding.severity == "warning"
    assert "telegram" in finding.says
    assert "slack" not in finding.says
    assert by_id(agents(EXPECTED, mended(seen, finding)), "agents.others").severity == "ok"
    narrow = under("agents.entries.main.tools", {"allow": ["read"], "fs": {"workspaceOnly": True}})
    assert by_id(agents(EXPECTED, look(change=narrow)), "agents.others").severity == "ok"


def test_house_rules_that_reach_into_users_agents() -> None:
    scope = look(change=under("session.scope", "global"))
    assert "sessions.scope" in ids(agents(EXPECTED, scope), "warning")
    assert "sessions.scope" not in ids(
        agents(EXPECTED, mended(scope, by_id(agents(EXPECTED, scope), "sessions.scope"))), "warning"
    )
    trusted = look(change=under("agents.defaults.embeddedAgent.projectSettingsPolicy", "trusted"))
    assert "agents.project-settings" in ids(agents(EXPECTED, trusted), "warning")
    bound = look(change={"bindings": [{"agentId": "u-alice", "match": {"channel": "slack"}}, {"agentId": "main"}, 7]})
    assert "u-alice" in by_id(agents(EXPECTED, bound), "agents.bindings").says


def test_levels_of_isolation() -> None:
    assert level(replace(EXPECTED, tools_allow=("read", "sessions_list")), look()) == "none", (
        "entries are not as wanted"
    )
    wider = replace(EXPECTED, tools_allow=("read", "write", "web_fetch"))
    entries = {slug: {"tools": {"allow": list(wider.tools_allow)}} for slug in ("u-alice", "u-bob", "u-open")}
    assert level(wider, look(change={"agents": {"entries": entries}})) == "transcript"
    boxed = look(change=under("agents.defaults.sandbox", {"mode": "all", "scope": "agent"}))
    assert level(EXPECTED, boxed) == "sandbox"
    assert sandboxed(boxed.effective, "u-alice")
    shared_box = look(change=under("agents.defaults.sandbox", {"mode": "all", "scope": "shared"}))
    assert level(EXPECTED, shared_box) == "workspace"


def test_one_agent_for_all_is_the_level_of_transcripts_and_has_rules_of_its_own() -> None:
    seen = look()
    assert known_agents(SHARED, seen.source) == {}
    findings = agents(SHARED, seen)
    complaint = by_id(findings, "agents.session-tools")
    assert "startupContext" in complaint.says
    closed = look(change=under("agents.defaults.startupContext.enabled", False))
    assert level(SHARED, closed) == "transcript"
    assert level(replace(SHARED, own_workspaces=True), closed) == "workspace"
    open_one = look(change=merge_shared({"workspace": "/elsewhere"}))
    assert "shared (" in by_id(agents(SHARED, open_one), "agents.opened").says


def merge_shared(entry: dict[str, Any]) -> dict[str, Any]:
    return {"agents": {"entries": {"shared": entry}, "defaults": {"startupContext": {"enabled": False}}}}


@pytest.mark.parametrize("broken", [{}, {"agents": None}, {"agents": {"entries": [], "defaults": 7}}, {"bindings": {}}])
def test_a_configuration_of_another_shape_raises_nothing(broken: dict[str, Any]) -> None:
    for expected in (EXPECTED, SHARED):
        assert agents(expected, replace(look(), effective=broken, source=broken))
