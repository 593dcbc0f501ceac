"""`/new` and `/reset` at the start of a message: the gateway lets only admins do that, users may with their own sessions.

For an admin, gateway 2026.9.6 empties the session (as `sessions.reset` does, `reason` being the word), then answers
`NOTICES`, or takes the text behind the command for the first message of what is now a new session.
"""

from __future__ import annotations

import re

METHOD = "sessions.reset"
NOTICES = {"new": "✅ New session started.", "reset": "✅ Session reset."}

_COMMAND = re.compile(r"\s*/(new|reset)(?:\s*:\s*|\s+|\Z)(.*)", re.DOTALL | re.IGNORECASE)


def reset_command(text: object) -> tuple[str, str]:
    """The word and the text behind it; two empty texts where the message is an ordinary one."""
    match = _COMMAND.fullmatch(text) if isinstance(text, str) else None
    return (match[1].lower(), match[2].strip()) if match else ("", "")
