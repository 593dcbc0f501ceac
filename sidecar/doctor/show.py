"""Findings as lines for people, worst last, and as JSON for scripts. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sidecar.doctor.findings import ORDER, Finding, Severity, exit_code, listed

WIDTH = 118
_INDENT = " " * 10
_COLOURS = {Severity.OK: "32", Severity.NOTE: "36", Severity.WARNING: "33", Severity.DANGER: "1;31"}
_COUNTED = (
    (Severity.DANGER, "danger", "dangers"),
    (Severity.WARNING, "warning", "warnings"),
    (Severity.NOTE, "note", "notes"),
)


def lines(
    findings: Sequence[Finding],
    levels: Mapping[str, str],
    *,
    colour: bool,
    clean: Callable[[str], str],
    extra: Iterable[str] = (),
) -> Iterator[str]:
    """One line for what is fine; what is not says what it means and how to mend it. `clean` takes out what must not be shown."""
    ranked = sorted(findings, key=lambda finding: ORDER.index(finding.severity))
    for finding in ranked:
        head = _coloured(f"{finding.severity:<8}", finding.severity, colour=colour)
        says = clean(f"{finding.subject}: {finding.says}")
        if finding.severity is not Severity.OK:
            says = f"{says} [{finding.id}]"
        first, *rest = textwrap.wrap(says, WIDTH - len(_INDENT), break_long_words=False, break_on_hyphens=False) or [""]
        yield f"{head}  {first}"
        yield from (f"{_INDENT}{line}" for line in rest)
        for mend in finding.mends:
            body = [f"    {line}" for line in clean(mend.lines).splitlines()]
            yield from (f"{_INDENT}{line}" for line in (f"{mend.file}:", *body))
    yield from map(clean, extra)
    yield ""
    for gateway, level in levels.items():
        yield clean(f"gateway {gateway}: isolation {level}")
    yield _coloured(summary(findings), ranked[-1].severity if ranked else Severity.OK, colour=colour)


def summary(findings: Sequence[Finding]) -> str:
    """`2 warnings (…), 1 note`, or that all is well."""
    parts = []
    for severity, one, many in _COUNTED:
        names = [finding.id for finding in findings if finding.severity is severity]
        named = f" ({listed(dict.fromkeys(names))})" if names and severity is not Severity.NOTE else ""
        if names:
            parts.append(f"{len(names)} {one if len(names) == 1 else many}{named}")
    fine = sum(finding.severity is Severity.OK for finding in findings)
    return ", ".join([*parts, f"{fine} checks are fine"])


def document(
    findings: Sequence[Finding], levels: Mapping[str, str], version: str, clean: Callable[[str], str], **more: Any
) -> str:
    """A stable object on one line. `format` grows when a member changes its meaning."""
    counts = {str(severity): sum(finding.severity is severity for finding in findings) for severity in ORDER}
    told = {
        "format": 1,
        "sidecar": version,
        "exit_code": exit_code(findings),
        "counts": counts,
        "isolation": dict(levels),
        "findings": [_plain(finding, clean) for finding in findings],
        **more,
    }
    return json.dumps(told, separators=(",", ":"))


def _plain(finding: Finding, clean: Callable[[str], str]) -> dict[str, Any]:
    return {
        "id": finding.id,
        "severity": str(finding.severity),
        "subject": clean(finding.subject),
        "says": clean(finding.says),
        "mends": [{"file": mend.file, "lines": clean(mend.lines)} for mend in finding.mends],
    }


def _coloured(text: str, severity: Severity, *, colour: bool) -> str:
    return f"\033[{_COLOURS[severity]}m{text}\033[0m" if colour else text
