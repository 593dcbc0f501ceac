"""Looking for words in what somebody received, however they are dressed. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_NESTING = 4
"""JSON within a string of JSON, and so on."""


def leaks(texts: Iterable[str], words: Mapping[str, str]) -> list[str]:
    """`place in dress` for each of `words` (place → word) that stands in one of `texts`; case does not matter."""
    seen = "\n".join(texts)
    undressed = [seen.lower(), *(text.lower() for text in unescaped(seen))]
    found = []
    for place, word in words.items():
        assert len(word) >= 6, f"{place}: a short word proves nothing"
        if word.lower() in undressed[0]:
            found.append(f"{place} as it is")
        elif any(word.lower() in text for text in undressed[1:]):
            found.append(f"{place} in JSON escapes")
        found += [
            f"{place} in {dress}" for dress, forms in dressed(word).items() if any(form in seen for form in forms)
        ]
    return found


def unescaped(text: str) -> list[str]:
    """`text` with its JSON escapes resolved once, twice …, as long as that changes anything."""
    levels: list[str] = []
    for _ in range(_NESTING):
        plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else _PLAIN.get(match[2], match[2]), text)
        if plain == text:
            break
        levels.append(plain)
        text = plain
    return levels


def dressed(word: str) -> dict[str, set[str]]:
    """Encodings of `word`, each form as it stands wherever the word stands in a longer text."""
    raw = word.encode()
    return {
        "base64": {form for before in range(3) for form in _base64_forms(raw, before)},
        "hex": {raw.hex(), raw.hex().upper()},
        "percent": {"".join(f"%{byte:02X}" for byte in raw), "".join(f"%{byte:02x}" for byte in raw)},
    }


def _base64_forms(raw: bytes, before: int) -> set[str]:
    """The characters that depend on nothing but `raw`, where `before` bytes (modulo 3) stand before it."""
    first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
    whole = base64.b64encode(bytes(before) + raw).decode()[first:last]
    return {whole, whole.replace("+", "-").replace("/", "_")}


def escaped(word: str) -> str:
    """`word` as a JSON string of escapes alone."""
    return json.dumps(word)[0] + "".join(f"\\u{ord(letter):04x}" for letter in word) + '"'
