"""Slash commands that reach beyond the caller's own session.

How gateways 2026.9.6 and 2026.8.2 were seen to read a message of `chat.send`, `sessions.send`, `sessions.steer` and
`sessions.create` (they read none in `agent`, but `/new` and `/reset`; none in an attachment, a goal, a cron job):

    first            NFC, and control characters are taken out wherever they stand: `/mo\x01del` is `/model`
    the start        behind white space as JavaScript knows it (U+FEFF too), `[…]` and a written-out `\\n`; any command
    anywhere         behind white space: `/model`, `/exec`, `/queue`, `/status`, `/think` … (`closed` names what users may not)
    the end          the end, white space, `:`, a written-out `\\n`

Which of them need admin is the gateway's business; what users may do is ours, so: at the start only the allowed ones, anywhere
else none of the closed ones.
"""

from __future__ import annotations

import re
import unicodedata

from sidecar.errors import MalformedFrame, MethodRefused
from sidecar.policy.table import Table

MAX_TEXT = 1024 * 1024
"""Characters of a person's message."""

_DROPPED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_GAP = r"(?:[\s\ufeff\u200b-\u200f\u2060]|\\n)"
"""What may stand around a command; more than a gateway takes for a gap, and never less."""

_LEADING = re.compile(rf"(?:{_GAP}|\[[^\]\n]+\])*+/(\w[\w-]*)(/?)")
_ANYWHERE = re.compile(rf"(?:^|{_GAP}|[\]:>)])/([A-Za-z_][\w-]*)(?=$|{_GAP}|[:@])")


def check_text(text: str, table: Table) -> None:
    """Raise MethodRefused where a person's message would run a command that the table does not allow; MalformedFrame for one
    that is too long to be read.
    """
    if len(text) > MAX_TEXT:
        raise MalformedFrame(f"a message has at most {MAX_TEXT} characters; send more as a file")
    if "/" not in text:
        return
    for reading in {text, _DROPPED.sub("", unicodedata.normalize("NFC", text))}:
        _check_reading(reading, table)


def _check_reading(text: str, table: Table) -> None:
    leading = _LEADING.match(text)
    if leading and not _may_lead(leading[1].lower(), bool(leading[2]), table):
        raise _refused(leading[1])
    for command in _ANYWHERE.finditer(text):
        if command[1].lower() in table.closed_commands:
            raise _refused(command[1])


def _may_lead(command: str, is_path: bool, table: Table) -> bool:
    """`/etc/hosts is empty` and `/3` are prose: a command of a gateway has a letter, and ends at a gap, ':' or '@'."""
    is_prose = is_path or command.isdecimal()
    return command in table.allowed_commands or (is_prose and command not in table.closed_commands)


def _refused(command: str) -> MethodRefused:
    return MethodRefused(
        f"the command /{command.lower()[:40]} is not available here; to write about it, leave out the slash",
        detail_code="COMMAND_NOT_ALLOWED",
    )
