"""No fact that is missing makes a level higher, and every level below the highest says why."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.isolation import FILE_TOOLS, AgentFacts, Level, level_of, weaknesses

BEST = AgentFacts(
    session_tools_closed=True,
    agent_closed=True,
    tools=tuple(FILE_TOOLS),
    workspace_only=True,
    own_identity=True,
    version_checked=True,
)
ORDER = list(Level)


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (BEST, Level.WORKSPACE, ""),
        (replace(BEST, tools=("read",)), Level.WORKSPACE, ""),
        (replace(BEST, tools=("read", "exec", "browser")), Level.TRANSCRIPT, "browser, exec"),
        (replace(BEST, tools=()), Level.TRANSCRIPT, "Nothing limits"),
        (replace(BEST, workspace_only=False), Level.TRANSCRIPT, "file tools"),
        (replace(BEST, shared_agent=True), Level.TRANSCRIPT, "share one agent"),
        (replace(BEST, shared_agent=True, sandboxed=True), Level.TRANSCRIPT, "share one agent"),
        (replace(BEST, shared_agent=True, tools=(), no_tools=True), Level.TRANSCRIPT, "only your conversations are"),
        (replace(BEST, shared_agent=True, own_workspaces=True), Level.WORKSPACE, "conversations and files are"),
        (replace(BEST, shared_agent=True, own_workspaces=True, tools=("exec",)), Level.TRANSCRIPT, "exec"),
        (replace(BEST, shared_agent=True, own_workspaces=True, sandboxed=True), Level.WORKSPACE, "share one agent"),
        (replace(BEST, tools=(), no_tools=True, workspace_only=False), Level.WORKSPACE, ""),
        (replace(BEST, sandboxed=True, tools=("exec",), workspace_only=False), Level.SANDBOX, ""),
        (replace(BEST, sandboxed=True, tools=()), Level.SANDBOX, ""),
        (replace(BEST, session_tools_closed=False), Level.NONE, "each other's sessions"),
        (replace(BEST, session_tools_closed=False, sandboxed=True), Level.NONE, "each other's sessions"),
        (replace(BEST, agent_closed=False), Level.NONE, "Somebody changed"),
        (replace(BEST, own_identity=False), Level.WORKSPACE, "one person"),
        (replace(BEST, version_checked=False), Level.WORKSPACE, "newer"),
        (AgentFacts(dedicated=True), Level.DEDICATED, ""),
        (AgentFacts(), Level.NONE, "each other's sessions"),
    ],
)
def test_levels(facts: AgentFacts, level: Level, said: str) -> None:
    assert level_of(facts) is level
    lines = [*weaknesses(facts)]
    assert said in " ".join(lines)
    assert len(lines) == len({*lines})
    if not said:
        assert len(lines) == (level is not Level.DEDICATED), "one process is what a shared gateway always is"


FACTS = st.builds(
    AgentFacts,
    **{field.name: st.booleans() for field in fields(AgentFacts) if field.name != "tools"},
    tools=st.lists(st.sampled_from([*sorted(FILE_TOOLS), "exec", "browser"]), max_size=4),
)


@given(
    FACTS,
    st.sampled_from(
        [
            "session_tools_closed",
            "agent_closed",
            "workspace_only",
            "own_workspaces",
            "sandboxed",
            "no_tools",
            "dedicated",
        ]
    ),
)
def test_what_is_not_known_never_helps(facts: AgentFacts, name: str) -> None:
    without, with_it = (replace(facts, **cast(Any, {name: known})) for known in (False, True))
    assert ORDER.index(level_of(without)) <= ORDER.index(level_of(with_it))


@given(FACTS)
def test_nothing_but_sentences(facts: AgentFacts) -> None:
    lines = [*weaknesses(facts)]
    assert bool(lines) is (level_of(facts) is not Level.DEDICATED)
    assert all(line.endswith(".") and "/" not in line for line in lines)
