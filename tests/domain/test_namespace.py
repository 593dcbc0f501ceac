"""Whatever a client writes lands in its own namespace, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.namespace import MAX_REST, RESERVED, Namespace, agent_of, canonical
from sidecar.errors import ForeignKey, MalformedFrame

BOB = Namespace("example|bob", "u-bob", "u-bob", frozenset({"bob", "example|bob", "u-bob"}))

SHARDS = ["agent", "main", "u-bob", "u-alice", "user", "bob", "alice", ":", "::", "cron", "subagent", "global", "x", "/", "%3A",
          "：", "\u212a", "\u200b", "\t", " ", "A", "ß", "İ", ".", "run", "\ud800", "\x00", "\n", "é"]  # fmt: skip
keys = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(SHARDS), max_size=9).map("".join))


@given(keys)
def test_adopt_is_total_owned_and_idempotent(key: str) -> None:
    try:
        adopted = BOB.adopt(key)
    except (ForeignKey, MalformedFrame):
        return
    assert BOB.owns(adopted)
    assert BOB.adopt(adopted) == adopted
    assert adopted.isascii()
    assert adopted.isprintable()
    assert adopted == canonical(adopted)
    assert not RESERVED.intersection(adopted.split(":")[2:])


@given(keys)
def test_adopt_existing_is_total_owned_and_idempotent(key: str) -> None:
    try:
        adopted = BOB.adopt_existing(key)
    except (ForeignKey, MalformedFrame):
        return
    assert BOB.owns(adopted)
    assert BOB.adopt_existing(adopted) == adopted


@given(keys)
def test_nobody_owns_what_another_adopted(key: str) -> None:
    alice = Namespace("example|alice", "u-alice", "u-alice", frozenset({"alice", "example|alice", "u-alice"}))
    try:
        adopted = BOB.adopt(key)
    except (ForeignKey, MalformedFrame):
        return
    assert not alice.owns(adopted)
    with pytest.raises(ForeignKey):
        alice.adopt(adopted)


@pytest.mark.parametrize(
    ("written", "adopted"),
    [
        ("main", "agent:u-bob:main"),
        ("MAIN\t", "agent:u-bob:main"),
        ("notes", "agent:u-bob:notes"),
        ("project:7", "agent:u-bob:project:7"),
        ("agent:main:notes", "agent:u-bob:notes"),
        ("agent:main:main", "agent:u-bob:main"),
        ("AGENT:U-Bob:Notes", "agent:u-bob:notes"),
        ("\tagent:u-bob:main", "agent:u-bob:main"),
        ("user:bob", "agent:u-bob:main"),
        ("user:example|bob", "agent:u-bob:main"),
        ("user:u-bob", "agent:u-bob:main"),
        ("user:bob:notes", "agent:u-bob:notes"),
        ("\u212aelvin", "agent:u-bob:kelvin"),
        ("agent:u-bob:dashboard:3f2b", "agent:u-bob:dashboard:3f2b"),
    ],
)
def test_what_users_write(written: str, adopted: str) -> None:
    assert BOB.adopt(written) == adopted


@pytest.mark.parametrize(
    "written",
    ["agent:u-alice:main", "Agent:U-ALICE:main", "user:alice", "user:alice:x", "user:bobby", "user:", "agent:u-bobby:main",
     "agent:u-alice/:x", "agent:u-bob\u200b:x", "agent::main", "agent:", "agent: u-bob:x", "agent:u-bo:b:main"],
)  # fmt: skip
def test_somebody_elses(written: str) -> None:
    with pytest.raises(ForeignKey):
        BOB.adopt(written)
    with pytest.raises(ForeignKey):
        BOB.adopt_existing(written)


@pytest.mark.parametrize(
    "written",
    ["", " ", "agent%3Au-alice%3Amain", "agent：u-alice：main", "a b", "a::b", ":a", "a:", "agent:u-bob:", "agent:u-bob", "x/../y",
     "global", "unknown", "cron:1", "subagent:1", "heartbeat", "agent:u-bob:cron:1", "agent:u-bob:agent:u-alice:main",
     "x:subagent:y", "hook:x", "\ufeffmain", "x" * (MAX_REST + 1)],
)  # fmt: skip
def test_no_key_of_a_client(written: str) -> None:
    with pytest.raises((MalformedFrame, ForeignKey)):
        BOB.adopt(written)


def test_the_gateways_own_sessions_are_named_in_full() -> None:
    assert BOB.adopt_existing("agent:u-bob:cron:7:run:1") == "agent:u-bob:cron:7:run:1"
    assert BOB.adopt_existing("notes") == "agent:u-bob:notes"
    for bare in ("cron:7", "agent:main:cron:7", "global", "agent:u-bob:global", "agent:u-bob:agent:u-alice:x"):
        with pytest.raises(MalformedFrame):
            BOB.adopt_existing(bare)


def test_the_length_is_counted_after_the_prefix() -> None:
    longest = "x" * MAX_REST
    assert BOB.adopt(longest) == BOB.prefix + longest


def test_ownership_is_whole() -> None:
    assert BOB.owns("agent:u-bob:cron:1")
    assert BOB.main == "agent:u-bob:main"
    assert BOB.owns_agent("u-bob")
    assert not BOB.owns_agent("u-bobby")
    for foreign in ("agent:u-bobby:main", "agent:u-bob:", "agent:u-bob", "global", "", "u-bob", "xagent:u-bob:main"):
        assert not BOB.owns(foreign)
    assert agent_of("agent:u-bob:x") == "u-bob"
    assert agent_of("main") is None
