"""Slash commands that reach beyond the caller's own session.

A gateway (2026.9.6) reads a command from the start of a message after trimming it, and some (`/model`, `/exec`, `/queue` …) from
anywhere in it. Which of them need admin is the gateway's business; what users may do is ours, so: at the start only the
allowed ones, anywhere else none of the closed ones.
"""

from __future__ import annotations

import re

from sidecar.errors import MalformedFrame, MethodRefused
from sidecar.policy.table import Table

MAX_TEXT = 1024 * 1024
"""Characters of a person's message."""

_GAP = r"(?:[\s\ufeff\u200b-\u200f\u2060]|\\n)"
"""What may stand around a command; a backslash and an n too, which the gateway takes for a line break in places (2026.9.6)."""

_LEADING = re.compile(rf"{_GAP}*+/([A-Za-z_][\w-]*)(/?)")
_ANYWHERE = re.compile(rf"(?:^|{_GAP}|[\]:>)])/([A-Za-z_][\w-]*)(?=$|{_GAP}|[:@])")


def check_text(text: str, table: Table) -> None:
    """Raise MethodRefused where a person's message would run a command that the table does not allow; MalformedFrame for one
    that is too long to be read.
    """
    if len(text) > MAX_TEXT:
        raise MalformedFrame(f"a message has at most {MAX_TEXT} characters; send more as a file")
    if "/" not in text:
        return
    leading = _LEADING.match(text)
    if leading and not _may_lead(leading[1].lower(), bool(leading[2]), table):
        raise _refused(leading[1])
    for command in _ANYWHERE.finditer(text):
        if command[1].lower() in table.closed_commands:
            raise _refused(command[1])


def _may_lead(command: str, is_path: bool, table: Table) -> bool:
    """`/etc/hosts is empty` is prose: a command of the gateway ends at a gap, ':' or '@'."""
    return command in table.allowed_commands or (is_path and command not in table.closed_commands)


def _refused(command: str) -> MethodRefused:
    return MethodRefused(
        f"the command /{command.lower()[:40]} is not available here; to write about it, leave out the slash",
        detail_code="COMMAND_NOT_ALLOWED",
    )
