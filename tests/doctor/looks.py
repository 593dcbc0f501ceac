"""Looks at gateways: what they really answered, and the same with something changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sidecar.doctor.findings import OPENCLAW, Finding
from sidecar.doctor.reading import Expected, GatewaySeen, Reach
from tests.stack.gateway import merge

SAMPLES = Path(__file__).with_name("samples")
ROOT = "/data/openclaw/workspaces"
PUBLIC = "http://127.0.0.1:8080"
EXPECTED = Expected(
    id="main",
    auth="trusted-proxy",
    local=True,
    user_header="x-forwarded-user",
    admin_user="",
    origins=(PUBLIC,),
    root=ROOT,
    tools_allow=("read", "write", "edit", "apply_patch"),
    model_allow=(),
    shared_agent="",
    own_workspaces=False,
    allow_open=False,
    concurrent_runs=3,
)
TOKEN = replace(EXPECTED, auth="token")


def look(name: str = "trusted-proxy-2026.9.6", change: Mapping[str, Any] | None = None, **over: Any) -> GatewaySeen:
    """A recorded answer, with `change` merged into what is obeyed and what is written; `over` replaces members of the look."""
    sample = json.loads((SAMPLES / f"{name}.json").read_text())
    answer = sample["answer"]
    seen = GatewaySeen(
        version=sample["version"],
        valid=answer["valid"],
        effective=merge(answer["config"], change or {}),
        source=merge(answer["sourceConfig"], change or {}),
        includes=0,
        skew=0.02,
        reach=Reach(("192.0.2.2",), ()),
        cpus=2,
    )
    return replace(seen, **over)


def under(path: str, value: object) -> dict[str, Any]:
    """`under("a.b", 1)` → `{"a": {"b": 1}}`."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def by_id(findings: Iterable[Finding], name: str) -> Finding:
    """The one finding of that id."""
    [found] = [finding for finding in findings if finding.id == name]
    return found


def ids(findings: Iterable[Finding], *severities: str) -> set[str]:
    return {finding.id for finding in findings if finding.severity in severities}


def mended(seen: GatewaySeen, finding: Finding) -> GatewaySeen:
    """The gateway after its operator has written the lines that mend it."""
    for mend in finding.mends:
        for line in mend.lines.splitlines() if mend.file == OPENCLAW else ():
            if line.startswith("{"):
                change = from_json5(line)
                seen = replace(seen, effective=merge(seen.effective, change), source=merge(seen.source, change))
    return seen


def from_json5(line: str) -> dict[str, Any]:
    """Of the little that we write in it: names without quotes."""
    value = json.loads(re.sub(r"([{,]\s*)([A-Za-z_$][\w$]*):", r'\1"\2":', line))
    assert isinstance(value, dict)
    return value
