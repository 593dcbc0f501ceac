"""A person's text runs no command that the table does not allow; prose with a slash in it is prose."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import MalformedFrame, MethodRefused
from sidecar.policy.commands import MAX_TEXT, check_text
from tests.policy.people import TABLE

CLOSED = sorted(TABLE.closed_commands)
ALLOWED = sorted(TABLE.allowed_commands)
GAPS = [
    "\n",
    "\t",
    " ",
    "\r\n",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\ufeff",
    "\u200b",
    "\u200d",
    "\u200e",
    "\u2060",
    "\x1f",
    "\x85",
    "\\n",
]
"""White space of Unicode, and what shows as nothing; the last is a backslash and an n."""

DROPPED = [chr(code) for code in (*range(9), 11, 12, *range(14, 32), 127)]
"""Control characters that a gateway takes out of a message before it reads it."""


def code_of(text: str) -> str:
    """Of the refusal; empty where there is none."""
    try:
        check_text(text, TABLE)
    except MethodRefused as error:
        return error.detail_code
    return ""


def refused(text: str) -> bool:
    return code_of(text) == "COMMAND_NOT_ALLOWED"


@pytest.mark.parametrize("command", ALLOWED)
def test_allowed(command: str) -> None:
    for text in (f"/{command}", f"  /{command} high", f"/{command.upper()}", f"/{command}: on", f"so /{command} it is"):
        assert code_of(text) == ""


@pytest.mark.parametrize("command", CLOSED)
def test_closed(command: str) -> None:
    for text in (
        f"/{command}",
        f"/{command} now",
        f"/{command}:x",
        f"/{command}@bot",
        f"/{command.upper()}",
        f"first /{command} then",
    ):
        assert refused(text), text


@pytest.mark.parametrize("gap", GAPS)
def test_whatever_stands_before_and_behind(gap: str) -> None:
    for text in (
        f"{gap}/bash ls",
        f"{gap}{gap}/Reset",
        f"hello{gap}/model x",
        f"hello{gap}/model{gap}x",
        f"/model{gap}x",
        f"hello /exec{gap}",
    ):
        assert refused(text), text
    assert refused(f"{gap}/unheard-of")


@pytest.mark.parametrize(
    "text",
    [
        "/unheard-of",
        "/_x",
        "/x",
        "/Skill-Name do it",
        "/model",
        "/MODEL fake/other",
        "/tas\u212as",
        "text\n/model x",
        "[Sat 12:00] /model x",
        "[Sat 12:00]/model x",
        "alice: /model x",
        "alice:/model x",
        "> /model x",
        ">/model x",
        "(x) /exec host=gateway security=full",
        "(x)/exec host=gateway",
        "do /exec: ls",
        "do /exec@bot ls",
        "/help /model x",
        "/think high /model x",
        "line\n\n\t/queue x",
        "literally\\n/model x",
        "literally \\n/status\\nx",
        "\x01/unheard-of",
        "\x7f /unheard-of",
        "/un\x02heard-of",
        "hi /mo\x01del fake/other",
        "hi\x00 \x03/ex\x1fec host=gateway",
        "/\u212aubectl",
        "[x] /unheard-of",
        "[x]/unheard-of",
        "[Sat 12:00]\n/unheard-of",
        "\\n[x] [y]\\n /unheard-of",
        "[\x01x]\x01/unheard-of",
        "/1password x",
        "/1st",
        "/\u00fcber x",
    ],
)
def test_refused(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "//",
        "no slash at all",
        "the /login page is broken",
        "POST /send, then /config",
        "open /plugins",
        "so /new it is",
        "> /reset",
        "/models/list",
        "and/or",
        "either/model or both",
        "see /path/to/file for more",
        "/path/to/file is empty",
        "/etc/hosts",
        "/usr/bin/env: no such file",
        "https://example.org/model/x",
        "https://example.org/reset",
        "a /models/ folder",
        "a ./model or ../reset",
        "1/2 /3",
        "/3 of it",
        "/* a comment */",
        "/ model",
        "[x] /etc/hosts is empty",
        "[x\n] /unheard-of",
        "[x /unheard-of",
        "[see](/unheard-of)",
        "alice: /unheard-of",
        "so\x01/unheard-of",
        "~/new",
        "<b>x</b>",
        "/modelling is fun, said /modelling"[11:],
        "we talked about /status-quo",
        "`/bash`",
        '"/bash"',
        "C:\\new/model",
    ],
)
def test_prose(text: str) -> None:
    assert code_of(text) == ""


def test_the_error_names_the_command_and_the_mend() -> None:
    with pytest.raises(MethodRefused, match=r"the command /bash is not available here; .* leave out the slash"):
        check_text("/BASH ls", TABLE)
    with pytest.raises(MethodRefused, match=r"/x{40} is"):
        check_text("/" + "x" * 5000, TABLE)


prose = st.text(st.characters(exclude_characters="/"), max_size=20)
gaps = st.sampled_from(GAPS)


@given(prose, gaps, st.sampled_from(CLOSED), st.sampled_from([*GAPS, "", ":", "@"]), prose, st.booleans())
def test_a_closed_command_is_found_in_any_text(
    before: str, gap: str, command: str, end: str, after: str, upper: bool
) -> None:
    written = command.upper() if upper else command
    assert refused(f"{before}{gap}/{written}{end}{after if end else ''}")


leads = st.lists(st.one_of(gaps, st.sampled_from(["[x]", "[Sat 12:00] "])), max_size=4).map("".join)


@given(leads, st.from_regex(r"[a-zA-Z_][\w-]{0,12}", fullmatch=True), prose)
def test_at_the_start_only_what_is_allowed(lead: str, command: str, after: str) -> None:
    may = unicodedata.normalize("NFC", command).lower() in TABLE.allowed_commands
    assert refused(f"{lead}/{command} {after}") is not may


@given(st.data(), st.sampled_from(CLOSED), st.booleans())
def test_what_a_gateway_takes_out_hides_no_command(data: st.DataObject, command: str, leads_text: bool) -> None:
    plain = f"/{command} x" if leads_text else f"so /{command} x"
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(plain)))
        plain = plain[:at] + data.draw(st.sampled_from(DROPPED)) + plain[at:]
    assert refused(plain)


@given(prose)
def test_text_without_a_slash_is_never_a_command(text: str) -> None:
    assert code_of(text) == ""


@pytest.mark.parametrize("filling", ["x", "/", " ", "\\n", " /x", "\u200b", "[", "[x]", "[x", "\x01", "e\u0301"])
def test_a_text_has_an_end(filling: str) -> None:
    text = (filling * MAX_TEXT)[:MAX_TEXT]
    refused(text)
    with pytest.raises(MalformedFrame, match="as a file"):
        check_text(text + "x", TABLE)
