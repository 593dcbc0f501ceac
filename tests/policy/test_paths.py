"""A path that a client names stays below its workspace, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ForeignKey, MalformedFrame
from sidecar.policy.paths import MAX_PATH, check_path
from tests.policy.oracle import is_inside


@pytest.mark.parametrize(
    "path", ["", "notes.md", "a/b/c.txt", ".hidden", "a..b", "...", "a b.md", "é.md", "agent:u-bob"]
)
def test_inside(path: str) -> None:
    check_path("path", path)
    assert is_inside(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/..",
        "a/../../b",
        "~",
        "~/x",
        "\\x",
        "a\\..\\b",
        "C:",
        "c:x",
        "C:/x",
        " a",
        "a ",
    ],
)
def test_outside(path: str) -> None:
    with pytest.raises(ForeignKey, match="not in your workspace"):
        check_path("path", path)


@pytest.mark.parametrize("path", ["a\x00b", "a\nb", "\x1b[2J", "\u202ea", "x" * (MAX_PATH + 1), "\ud800"])
def test_no_path(path: str) -> None:
    with pytest.raises(MalformedFrame, match="printable"):
        check_path("path", path)


@given(st.text(st.sampled_from("ab./\\~: C\u2044\uff0f\n"), max_size=12))
def test_whatever_passes_is_inside(path: str) -> None:
    try:
        check_path("path", path)
    except (ForeignKey, MalformedFrame):
        return
    assert is_inside(path)
