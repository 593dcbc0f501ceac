"""How findings are counted, ordered, written out, and kept free of what must not be shown."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from sidecar.doctor import show
from sidecar.doctor.findings import (
    Finding,
    Mend,
    Severity,
    danger,
    exit_code,
    json5,
    listed,
    note,
    ok,
    setting,
    warning,
    worst,
)
from sidecar.telemetry.logs import Redaction
from tests.doctor.looks import from_json5, under

FINE, GOOD_TO_KNOW = ok("a", "All is well."), note("b", "Good to know.")
WEAK, BAD = warning("c", "Weaker.", setting("gateway.bind", "loopback")), danger("d", "Bad.", Mend("shell", "one\ntwo"))


def plain(text: str) -> str:
    return text


def test_the_exit_code_is_that_of_the_worst() -> None:
    assert [exit_code(found) for found in ([], [FINE], [FINE, GOOD_TO_KNOW], [WEAK, FINE], [BAD, WEAK])] == [
        0,
        0,
        0,
        1,
        2,
    ]
    assert worst([]) is Severity.OK


def test_the_worst_comes_last_each_with_its_lines() -> None:
    shown = list(show.lines([BAD, FINE, WEAK, GOOD_TO_KNOW], {"main": "workspace"}, colour=False, clean=plain))
    text = "\n".join(shown)
    assert [line.split()[0] for line in shown if line and not line.startswith(" ")][:4] == [
        "ok",
        "note",
        "warning",
        "danger",
    ]
    assert "[c]" in text
    assert '{ gateway: { bind: "loopback" } }' in text
    assert re.search(r"shell:\n +one\n +two", text)
    assert shown[-1] == "1 danger (d), 1 warning (c), 1 note, 1 checks are fine"
    assert "gateway main: isolation workspace" in shown
    assert "\033" not in text
    assert len([line for line in shown if line.startswith("ok")]) == 1


def test_colour_only_where_it_is_asked_for_and_long_sentences_are_folded() -> None:
    long = warning("x", "word " * 60)
    shown = list(show.lines([long], {}, colour=True, clean=plain))
    assert "\033[33m" in shown[0]
    assert all(len(re.sub(r"\033\[[0-9;]*m", "", line)) <= show.WIDTH for line in shown)


def test_the_document_is_stable() -> None:
    told = json.loads(show.document([BAD, FINE], {"main": "none"}, "0.1.0", plain, attacks=[]))
    assert told == {
        "format": 1,
        "sidecar": "0.1.0",
        "exit_code": 2,
        "counts": {"ok": 1, "note": 0, "warning": 0, "danger": 1},
        "isolation": {"main": "none"},
        "findings": [
            {
                "id": "d",
                "severity": "danger",
                "subject": "",
                "says": "Bad.",
                "mends": [{"file": "shell", "lines": "one\ntwo"}],
            },
            {"id": "a", "severity": "ok", "subject": "", "says": "All is well.", "mends": []},
        ],
        "attacks": [],
    }


def test_nothing_secret_and_nothing_that_talks_to_a_terminal_is_shown() -> None:
    redaction = Redaction(["the-gateways-password"])

    def clean(text: str) -> str:
        return "\n".join(str(redaction.clean(line, "agent_id")) for line in text.splitlines())

    leaky = Finding(
        "x", Severity.DANGER, "the-gateways-password \033[2J", (Mend("shell", "the-gateways-password"),), "\x07"
    )
    for shown in (
        "\n".join(show.lines([leaky], {}, colour=False, clean=clean)),
        show.document([leaky], {}, "0", clean),
    ):
        assert "the-gateways-password" not in shown
        assert "\033" not in shown
        assert "\x07" not in shown


names = st.from_regex(r"[A-Za-z_$][A-Za-z0-9_$-]{0,8}", fullmatch=True)
values = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text("abc-/* ", max_size=6)
    | st.lists(st.text("ab", max_size=3), max_size=3)
)


@given(st.lists(names, min_size=1, max_size=4), values)
def test_a_setting_is_written_as_the_gateway_reads_it(path: list[str], value: object) -> None:
    assert from_json5(setting(".".join(path), value).lines) == under(".".join(path), value)


def test_small_words() -> None:
    assert json5({}) == "{}"
    assert json5({"a-b": [1, "x"]}) == '{ "a-b": [1, "x"] }'
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"
    assert listed([]) == ""
