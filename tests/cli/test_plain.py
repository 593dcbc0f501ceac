"""What clients wrote, on an operator's terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cli.plain import MAX_TEXT, json_line, plain


@pytest.mark.parametrize(
    "text", ["x", "example|alice", "agent:u-1:main", "METHOD_NOT_ALLOWED", "example|Zoë", "例|名", "a" * MAX_TEXT]
)
def test_words_stay_as_they_are(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", '""'),
        ("a b", '"a b"'),
        ("x\x1b[2J", '"x\\u001b[2J"'),
        ("x\x1b]0;title\x07", '"x\\u001b]0;title\\u0007"'),
        ("x\x9b31m", '"x\\u009b31m"'),
        ("x\x7f", '"x\\u007f"'),
        ("x\n2026-11-25T19:00:00Z  example|bob", '"x\\n2026-11-25T19:00:00Z  example|bob"'),
        ("x\r", '"x\\r"'),
        ("\u202ex", '"\\u202ex"'),
        ("x\u2028y", '"x\\u2028y"'),
        ("x\u200by", '"x\\u200by"'),
        ("x\u3164y", '"x\\u3164y"'),
        ("\ud800", '"\\ud800"'),
        ('"', '"\\""'),
        ("\\u001b", '"\\\\u001b"'),
        ("a" * (MAX_TEXT + 1), "a" * MAX_TEXT + "..."),
    ],
)
def test_the_rest_is_spelt(text: str, shown: str) -> None:
    assert plain(text) == shown


ANY = st.text(st.characters(codec=None, exclude_categories=())) | st.text(
    st.sampled_from('\x00\x1b\x9b\x7f\n\r\u2028\u202e "\\a')
)


@given(ANY)
def test_nothing_reaches_the_terminal_but_letters(text: str) -> None:
    shown = plain(text)
    assert shown.isprintable()
    assert "\x1b" not in shown
    assert len(shown.split(" ")) == 1 or shown[0] == shown[-1] == '"'
    if shown[0] == '"' and len(text) <= MAX_TEXT:
        assert json.loads(shown) == text, "nothing is lost, and nothing else reads like it"


@given(st.dictionaries(ANY, ANY))
def test_json_is_printable_and_one_line(value: dict[str, str]) -> None:
    line = json_line(value)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == value
