"""What any agent's answer may attach. Pure.

A line `MEDIA:<path>` of an answer attaches a file, also from an agent whose tools keep to its workspace: the gateway reads from the
workspace and from some folders of its own (`getAgentScopedMediaLocalRoots` of 2026.8.2 and 2026.9.6, and seen there).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from sidecar.doctor.findings import Finding, danger, ok, setting, sidecar, warning
from sidecar.doctor.reading import Expected, GatewaySeen
from sidecar.doctor.shape import member

SCRATCH = "/tmp/openclaw"  # noqa: S108 - the gateway's, which holds its log unless `logging.file` says otherwise
_OF_STATE = ("media", "canvas", "workspace", "sandboxes")


def attachable(expected: Expected, seen: GatewaySeen) -> list[Finding]:
    """What lies in these folders though it is not for everybody."""
    return [*_log(seen), *_workspaces(expected, seen), *_operators(seen)]


def _folders(seen: GatewaySeen) -> list[str]:
    return [SCRATCH, *(posixpath.join(seen.state_dir, name) for name in _OF_STATE if seen.state_dir)]


def _attaches(seen: GatewaySeen, path: str) -> bool:
    whole = posixpath.normpath(path)
    return any(whole == folder or whole.startswith(f"{folder}/") for folder in _folders(seen))


def _log(seen: GatewaySeen) -> Iterator[Finding]:
    """It names everybody's sessions, and what their tools were called with where a call failed."""
    if not seen.log_file:
        return
    if _attaches(seen, seen.log_file):
        yield danger(
            "attach.log",
            f"Any user's agent may attach the gateway's log to its answer, and the log tells of everybody: it is {seen.log_file}.",
            setting("logging.file", "/var/log/openclaw/gateway.log"),
        )
    else:
        yield ok("attach.log", "The gateway's log is in no folder from which answers attach files.")


def _workspaces(expected: Expected, seen: GatewaySeen) -> Iterator[Finding]:
    if _attaches(seen, expected.root):
        yield danger(
            "attach.workspaces",
            f"Users' workspaces lie in a folder from which any agent's answer may attach files: {expected.root}.",
            sidecar('[environments]\nroot = "/var/lib/openclaw/workspaces"   # outside of the gateway\'s state folder'),
        )


def _operators(seen: GatewaySeen) -> Iterator[Finding]:
    """The gateway's default for its own agent is a folder of its state."""
    said = member(seen.effective, "agents.defaults.workspace")
    workspace = str(said) if said else posixpath.join(seen.state_dir, "workspace")
    if _attaches(seen, workspace):
        yield warning(
            "attach.operator",
            f"Any user's agent may attach files from {workspace}, where the operator's own agent works (2026.8).",
            setting("agents.defaults.workspace", "/var/lib/openclaw/operator"),
        )
