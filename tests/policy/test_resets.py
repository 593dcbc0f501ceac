"""`/new` and `/reset`: taken out of the message, and done as admin with the caller's own session."""

from __future__ import annotations

import pytest

from sidecar.errors import ForeignKey, MethodRefused
from sidecar.policy.requests import Forward, decide
from sidecar.policy.resets import reset_command
from sidecar.policy.table import PolicyError, read_table
from tests.policy.people import BOB, SOURCE, TABLE


def asked(message: object, key: str = "main", roles: frozenset[str] = frozenset({"user"})) -> Forward:
    decision = decide(
        "chat.send", {"sessionKey": key, "message": message}, BOB, TABLE, new_id=lambda: "ours", roles=roles
    )
    assert isinstance(decision, Forward)
    return decision


@pytest.mark.parametrize(
    ("text", "command", "rest"),
    [
        ("/new", "new", ""),
        (" /reset \n", "reset", ""),
        ("/NEW", "new", ""),
        ("/new hello", "new", "hello"),
        ("/new: hello", "new", "hello"),
        ("/reset\nhello\nthere", "reset", "hello\nthere"),
        ("/newer", "", ""),
        ("/new@x", "", ""),
        ("//new", "", ""),
        ("hello /new", "", ""),
        ("\u200b/new", "", ""),
        ("", "", ""),
        (None, "", ""),
        (["/new"], "", ""),
    ],
)
def test_commands(text: object, command: str, rest: str) -> None:
    assert reset_command(text) == (command, rest)


def test_the_session_is_the_callers_and_the_rest_is_the_message() -> None:
    decision = asked("/new write a poem", "notes")
    assert (decision.reset, decision.params["message"], decision.params["sessionKey"]) == (
        "new",
        "write a poem",
        "agent:u-bob:notes",
    )
    assert decision.changed
    assert asked("hello").reset == ""
    with pytest.raises(ForeignKey):
        asked("/reset", "agent:u-alice:main")


def test_what_stands_behind_it_is_checked_too() -> None:
    with pytest.raises(MethodRefused, match="command"):
        asked("/new /bash ls")


def test_who_may_not_reset_may_not_say_it() -> None:
    for message in ("/new", "/reset now"):
        with pytest.raises(MethodRefused, match="command"):
            asked(message, roles=frozenset({"guest"}))


def test_a_table_whose_messages_reset_says_how() -> None:
    without = SOURCE.replace(b'[methods."sessions.reset"]', b'[methods."sessions.resett"]')
    assert without != SOURCE
    with pytest.raises(PolicyError, match=r"chat\.send: resets need a row sessions\.reset"):
        read_table(without)
