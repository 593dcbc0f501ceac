"""Folders from which any answer attaches files hold nothing that is not for everybody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.doctor.attachable import SCRATCH, attachable
from tests.doctor.looks import EXPECTED, by_id, ids, look, under

STATE = "/home/gateway/.openclaw"
GOOD = look(
    change=under("agents.defaults.workspace", "/data/operator"),
    state_dir=STATE,
    log_file="/var/log/openclaw/gateway.log",
)


def test_a_good_house() -> None:
    assert ids(attachable(EXPECTED, GOOD), "note", "warning", "danger") == set()
    assert ids(attachable(EXPECTED, GOOD), "ok") == {"attach.log"}


@pytest.mark.parametrize(
    "log", [f"{SCRATCH}/openclaw-2026-11-26.log", f"{STATE}/media/x.log", f"{STATE}/x/../canvas/x.log"]
)
def test_the_log_must_be_elsewhere(log: str) -> None:
    finding = by_id(attachable(EXPECTED, replace(GOOD, log_file=log)), "attach.log")
    assert finding.severity == "danger"
    assert "logging" in finding.mends[0].lines


@pytest.mark.parametrize("root", [f"{STATE}/workspace", f"{STATE}/sandboxes/users", f"{SCRATCH}/"])
def test_so_must_users_workspaces(root: str) -> None:
    assert ids(attachable(replace(EXPECTED, root=root), GOOD), "danger") == {"attach.workspaces"}


@pytest.mark.parametrize("root", [f"{STATE}/users", f"{STATE}/workspaces", f"{SCRATCH}-users", "/data/media"])
def test_a_name_alike_is_another_folder(root: str) -> None:
    assert ids(attachable(replace(EXPECTED, root=root), GOOD), "danger") == set()


def test_the_operators_own_agent_works_there_by_default() -> None:
    seen = look(change=under("agents.defaults.workspace", None), state_dir=STATE)
    assert ids(attachable(EXPECTED, seen)) == set()
    assert ids(attachable(EXPECTED, seen), "warning") == {"attach.operator"}


def test_what_the_gateway_does_not_say_is_not_judged() -> None:
    assert attachable(EXPECTED, look(change=under("agents.defaults.workspace", None))) == []
