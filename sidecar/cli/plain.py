"""Text that others wrote, for a terminal: what could talk to the terminal, or look like another line or column, is spelt out."""

from __future__ import annotations

import json

MAX_TEXT = 200
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
"""Fillers: letters to Unicode, spaces to whoever reads."""


def plain(text: str) -> str:
    """One word of a line; empty, or with anything but letters, digits and ASCII's signs in it, as a JSON string."""
    shown = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."
    if shown and all(map(_is_plain, shown)):
        return shown
    return f'"{"".join(letter if _is_plain(letter) or letter == " " else _spelt(letter) for letter in shown)}"'


def json_line(value: object) -> str:
    """JSON in printable ASCII, on one line."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def _is_plain(letter: str) -> bool:
    if letter.isascii():
        return letter.isprintable() and letter not in ' "\\'
    return letter.isalnum() and letter not in _BLANK_LETTERS


def _spelt(letter: str) -> str:
    return json_line(letter)[1:-1]
