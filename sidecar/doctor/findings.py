"""What the doctor says: one finding for each thing that it looked at."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

OPENCLAW = "openclaw.json5"
SIDECAR = "sidecar.toml"
SHELL = "shell"


class Severity(enum.StrEnum):
    """From what is fine to what must not stay."""

    OK = "ok"
    NOTE = "note"
    """Good to know; nothing to do."""

    WARNING = "warning"
    """Weaker, or less useful, than it could be."""

    DANGER = "danger"
    """One user may reach another, nobody is served, or it could not be checked."""


ORDER = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Mend:
    """What to write, and where: a file's name, or `shell`."""

    file: str
    lines: str


@dataclass(frozen=True, slots=True)
class Finding:
    """`id` is stable, for scripts: `proxy.scopes`. `subject` is what it was found at: `gateway main`, `issuer company`, `redis`."""

    id: str
    severity: Severity
    says: str
    """What it means for users, in a sentence or two."""

    mends: tuple[Mend, ...] = ()
    subject: str = ""


def ok(name: str, says: str) -> Finding:
    return Finding(name, Severity.OK, says)


def note(name: str, says: str, *mends: Mend) -> Finding:
    return Finding(name, Severity.NOTE, says, mends)


def warning(name: str, says: str, *mends: Mend) -> Finding:
    return Finding(name, Severity.WARNING, says, mends)


def danger(name: str, says: str, *mends: Mend) -> Finding:
    return Finding(name, Severity.DANGER, says, mends)


def openclaw(lines: str) -> Mend:
    """Lines of the gateway's configuration."""
    return Mend(OPENCLAW, lines)


def setting(path: str, value: object) -> Mend:
    """One of the gateway's settings, written out: `gateway.bind` → `{ gateway: { bind: "loopback" } }`."""
    words = [*path.split(".")]
    return openclaw("".join(f"{{ {_key(word)}: " for word in words) + json5(value) + " }" * len(words))


def json5(value: object) -> str:
    """As one would write it into the gateway's configuration, on one line."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(name)}: {json5(member)}" for name, member in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(json5, value))}]"
    return json.dumps(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_$][\w$]*", name) else json.dumps(name)


def sidecar(lines: str) -> Mend:
    """Lines of ours."""
    return Mend(SIDECAR, lines)


def worst(findings: Iterable[Finding]) -> Severity:
    """The most severe of them; `ok` where there are none."""
    return max((finding.severity for finding in findings), key=ORDER.index, default=Severity.OK)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 nothing above a note, 1 warnings, 2 danger (what could not be checked is one)."""
    return {Severity.WARNING: 1, Severity.DANGER: 2}.get(worst(findings), 0)


def listed(words: Iterable[str], most: int = 5) -> str:
    """`a, b and 7 more`."""
    every = list(words)
    shown = ", ".join(every[:most])
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown
