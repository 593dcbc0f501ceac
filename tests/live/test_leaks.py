"""The search for leaks finds them: else its silence would prove nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from tests.live.leaks import escaped, leaks

WORD = "mark?ü0123"
WORDS = {"text": WORD}


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("after", ["", "x", "xy"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64(before: str, after: str, encode: Callable[[bytes], bytes]) -> None:
    assert leaks([f'{{"data":"{encode((before + WORD + after).encode()).decode()}"}}'], WORDS) == ["text in base64"]


@pytest.mark.parametrize(
    ("dress", "text"),
    [
        ("as it is", f"a {WORD}."),
        ("as it is", WORD.upper()),
        ("in JSON escapes", json.dumps(WORD)),
        ("in JSON escapes", escaped(WORD)),
        ("in JSON escapes", json.dumps(json.dumps({"a": json.dumps(WORD)}))),
        ("in hex", WORD.encode().hex()),
        ("in percent", "".join(f"%{byte:02X}" for byte in WORD.encode())),
    ],
)
def test_other_dresses(dress: str, text: str) -> None:
    assert leaks(["before", text, "after"], WORDS) == [f"text {dress}"]


def test_nothing_to_find() -> None:
    assert leaks(["mark?u0123", "mark", base64.b64encode(b"another word").decode()], WORDS) == []
    with pytest.raises(AssertionError, match="proves nothing"):
        leaks([""], {"text": "short"})
