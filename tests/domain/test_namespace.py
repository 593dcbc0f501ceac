"""Whatever a client writes lands in its own namespace, or is refused: with an agent each, and in a shared one."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.namespace import MAX_REST, RESERVED, Layout, Namespace, agent_of, canonical
from sidecar.errors import ForeignKey, MalformedFrame

BOB = Namespace("example|bob", "u-bob", "u-bob", frozenset({"bob", "example|bob", "u-bob"}))
LAYOUTS = [Layout(), Layout("shared"), Layout("main")]


def person(name: str, layout: Layout) -> Namespace:
    return layout.namespace(f"example|{name}", f"u-{name}", frozenset({name, f"example|{name}", f"u-{name}"}))


SHARDS = ["agent", "main", "shared", "u-bob", "u-alice", "u-bobby", "u-bo", "user", "bob", "alice", ":", ":", "::", "cron",
          "subagent", "global", "thread", "x", "/", "..", "%3A", "：", "\u212a", "\u017f", "\u200b", "\ufeff", "\t", " ", "\u00a0",
          "A", "ß", "İ", ".", "run", "\ud800", "\x00", "\n", "é", "agent:shared:user:", "agent:main:user:", "user:u-bob:",
          "agent:shared:user:u-alice:", "agent:u-alice:"]  # fmt: skip
keys = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(SHARDS), max_size=9).map("".join))
layouts = st.sampled_from(LAYOUTS)


@given(keys, layouts)
def test_adopt_is_total_owned_and_idempotent(key: str, layout: Layout) -> None:
    bob = person("bob", layout)
    try:
        adopted = bob.adopt(key)
    except (ForeignKey, MalformedFrame):
        return
    assert bob.owns(adopted)
    assert layout.slug_of(adopted, None) == "u-bob"
    assert bob.adopt(adopted) == adopted
    assert adopted.isascii()
    assert adopted.isprintable()
    assert adopted == canonical(adopted)
    assert adopted.startswith(bob.prefix)
    assert not RESERVED.intersection(adopted.removeprefix(bob.prefix).split(":"))


@given(keys, layouts)
def test_adopt_existing_is_total_owned_and_idempotent(key: str, layout: Layout) -> None:
    bob = person("bob", layout)
    try:
        adopted = bob.adopt_existing(key)
    except (ForeignKey, MalformedFrame):
        return
    assert bob.owns(adopted)
    assert bob.adopt_existing(adopted) == adopted


@given(keys, layouts, st.sampled_from(["alice", "bobby", "bo", "bob2"]))
def test_nobody_owns_what_another_adopted(key: str, layout: Layout, other: str) -> None:
    alice = person(other, layout)
    for adopt in (person("bob", layout).adopt, person("bob", layout).adopt_existing):
        try:
            adopted = adopt(key)
        except (ForeignKey, MalformedFrame):
            continue
        assert not alice.owns(adopted)
        assert not alice.covers(adopted, alice.agent_id)
        for theirs in (alice.adopt, alice.adopt_existing):
            with pytest.raises(ForeignKey):
                theirs(adopted)


@given(keys, layouts, st.sampled_from([None, "shared", "main", "u-bob", "u-alice", ""]))
def test_what_bob_covers_is_his_and_nobody_elses(key: str, layout: Layout, agent_id: str | None) -> None:
    bob, alice = person("bob", layout), person("alice", layout)
    for named in (key, None):
        if bob.covers(named, agent_id):
            assert layout.slug_of(named, agent_id) == "u-bob"
            assert not alice.covers(named, agent_id)
            assert named is None or bob.owns(named)


@given(keys, layouts)
def test_every_key_has_one_owner_at_most(key: str, layout: Layout) -> None:
    people = [person(name, layout) for name in ("bob", "alice", "bobby", "bo")]
    owners = [one.slug for one in people if one.owns(key)]
    assert len(owners) <= 1
    if owners:
        assert layout.slug_of(key, "whoever") == owners[0]


WRITTEN = [
    ("main", "main"),
    ("MAIN\t", "main"),
    ("notes", "notes"),
    ("project:7", "project:7"),
    ("agent:main:notes", "notes"),
    ("agent:main:main", "main"),
    ("user:bob", "main"),
    ("user:example|bob", "main"),
    ("user:u-bob", "main"),
    ("user:bob:notes", "notes"),
    ("User:U-Bob:Notes", "notes"),
    ("\u212aelvin", "kelvin"),
    ("user", "user"),
]


@pytest.mark.parametrize(("layout", "case"), [*product(LAYOUTS, WRITTEN)])
def test_what_users_write(layout: Layout, case: tuple[str, str]) -> None:
    written, rest = case
    bob = person("bob", layout)
    assert bob.adopt(written) == bob.adopt_existing(written) == bob.prefix + rest


@pytest.mark.parametrize("written", ["notes", "dashboard:3f2b", "main:thread:7"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_key_in_full_stays(layout: Layout, written: str) -> None:
    bob = person("bob", layout)
    for key in (bob.prefix + written, f"\t{bob.prefix}{written} ", (bob.prefix + written).upper()):
        assert bob.adopt(key) == bob.prefix + written
    assert bob.adopt(f"agent:{bob.agent_id}:{written}") == bob.prefix + written, "as clients make keys of an agent's id"


def test_the_prefixes() -> None:
    assert [person("bob", layout).main for layout in LAYOUTS] == [
        "agent:u-bob:main",
        "agent:shared:user:u-bob:main",
        "agent:main:user:u-bob:main",
    ]


@pytest.mark.parametrize(
    "written",
    ["agent:u-alice:main", "Agent:U-ALICE:main", "user:alice", "user:alice:x", "user:bobby", "user:", "agent:u-bobby:main",
     "agent:u-alice/:x", "agent:u-bob\u200b:x", "agent::main", "agent:", "agent: u-bob:x", "agent:u-bo:b:main"],
)  # fmt: skip
@pytest.mark.parametrize("layout", LAYOUTS)
def test_somebody_elses(written: str, layout: Layout) -> None:
    _refused_as_foreign(person("bob", layout), written)


@pytest.mark.parametrize(
    "below",
    ["user:u-alice:main", "user:u-alice:", "user:u-alice", "USER:U-ALICE:Main", "user:alice:main", "user:bob:main",
     "user:u-bobby:x", "user:u-bo:b:main", "user:u-bob\u200b:x", "user:u-bob/:x", "user:u-bob%3a:x", "user::x", "user:",
     "user:u-alice:../u-bob:x", "user:u-\u0430lice:x", "user:u-bob\t:x"],
)  # fmt: skip
@pytest.mark.parametrize("agent_id", ["main", "shared", "MAIN", "Shared", "\tshared"])
def test_another_corner_of_the_shared_agent(below: str, agent_id: str) -> None:
    prefix = f"\tagent:{agent_id.strip()}:" if agent_id.startswith("\t") else f"agent:{agent_id}:"
    _refused_as_foreign(person("bob", Layout("shared")), prefix + below)


def test_an_alias_is_no_slug_in_a_key_in_full() -> None:
    """Her provider calls her `u-bob`: bob's corner is not hers for that."""
    layout = Layout("shared")
    her = layout.namespace("other|u-bob", "u-ubobxyz", frozenset({"u-bob", "other|u-bob", "u-ubobxyz"}))
    assert her.adopt("user:u-bob:x") == "agent:shared:user:u-ubobxyz:x"
    _refused_as_foreign(her, "agent:shared:user:u-bob:x")
    assert not her.owns("agent:shared:user:u-bob:x")


def _refused_as_foreign(namespace: Namespace, written: str) -> None:
    for adopt in (namespace.adopt, namespace.adopt_existing):
        with pytest.raises(ForeignKey):
            adopt(written)


@pytest.mark.parametrize(
    "written",
    ["", " ", "agent%3Au-alice%3Amain", "agent：u-alice：main", "a b", "a::b", ":a", "a:", "agent:main:", "agent:main", "x/../y",
     "user:u-bob:", "user:u-bob:../x", "user:u-bob:a:..:/etc", "global", "unknown", "cron:1", "subagent:1", "heartbeat",
     "agent:main:cron:1", "agent:main:agent:u-alice:main", "x:subagent:y", "hook:x", "\ufeffmain", "x" * (MAX_REST + 1)],
)  # fmt: skip
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_key_of_a_client(written: str, layout: Layout) -> None:
    with pytest.raises((MalformedFrame, ForeignKey)):
        person("bob", layout).adopt(written)


def test_the_gateways_own_sessions_are_named_in_full() -> None:
    assert BOB.adopt_existing("agent:u-bob:cron:7:run:1") == "agent:u-bob:cron:7:run:1"
    assert BOB.adopt_existing("notes") == "agent:u-bob:notes"
    for bare in ("cron:7", "agent:main:cron:7", "global", "agent:u-bob:global", "agent:u-bob:agent:u-alice:x"):
        with pytest.raises(MalformedFrame):
            BOB.adopt_existing(bare)


@pytest.mark.parametrize("key", ["agent:shared:cron:7:run:1", "agent:shared:subagent:3f2b", "agent:shared:global"])
def test_the_gateways_own_sessions_of_a_shared_agent_are_nobodys(key: str) -> None:
    layout = Layout("shared")
    bob = person("bob", layout)
    assert not bob.owns(key)
    assert layout.slug_of(key, "shared") is None
    for adopt in (bob.adopt, bob.adopt_existing):
        with pytest.raises(MalformedFrame):
            adopt(key)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_length_is_counted_after_the_prefix(layout: Layout) -> None:
    longest, bob = "x" * MAX_REST, person("bob", layout)
    assert bob.adopt(longest) == bob.prefix + longest


def test_ownership_is_whole() -> None:
    assert BOB.owns("agent:u-bob:cron:1")
    assert BOB.owns_agent("u-bob")
    assert not BOB.owns_agent("u-bobby")
    for foreign in ("agent:u-bobby:main", "agent:u-bob:", "agent:u-bob", "global", "", "u-bob", "xagent:u-bob:main"):
        assert not BOB.owns(foreign)
    assert agent_of("agent:u-bob:x") == "u-bob"
    assert agent_of("main") is None


def test_ownership_in_a_shared_agent_is_whole() -> None:
    bob = person("bob", Layout("shared"))
    assert bob.owns("agent:shared:user:u-bob:main")
    assert bob.owns("agent:shared:user:u-bob:main:thread:7"), "what the gateway appends"
    for foreign in (
        "agent:shared:user:u-bobby:main",
        "agent:shared:user:u-bob:",
        "agent:shared:user:u-bob",
        "agent:shared:user:u-bob::x",
        "agent:shared:main",
        "agent:shared:x:user:u-bob:main",
        "agent:other:user:u-bob:main",
        "agent:u-bob:main",
        "xagent:shared:user:u-bob:main",
        "",
    ):
        assert not bob.owns(foreign)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_key_decides_and_an_agent_beside_it_must_fit(layout: Layout) -> None:
    bob = person("bob", layout)
    assert bob.covers(bob.main, None)
    assert bob.covers(bob.main, bob.agent_id)
    assert not bob.covers(bob.main, "u-alice")
    assert not bob.covers(bob.main, "")
    assert not bob.covers(person("alice", layout).main, bob.agent_id)
    assert not bob.covers(None, None)
    assert not bob.covers(None, "u-alice")


def test_an_agent_alone_is_its_users_or_nobodys() -> None:
    for layout in LAYOUTS:
        bob = person("bob", layout)
        assert bob.covers(None, bob.agent_id) is bob.owns_agent(bob.agent_id) is not bob.is_shared
        assert layout.slug_of(None, bob.agent_id) == (None if bob.is_shared else "u-bob")


@pytest.mark.parametrize(
    ("layout", "key", "agent_id", "slug"),
    [
        (Layout(), "agent:u-bob:cron:7", "u-alice", "u-bob"),
        (Layout(), None, "u-alice", "u-alice"),
        (Layout(), "agent:main:main", None, None),
        (Layout(), "global", "u-alice", None),
        (Layout(), None, None, None),
        (Layout("shared"), "agent:shared:user:u-bob:x", None, "u-bob"),
        (Layout("shared"), "agent:shared:user:eve:x", None, None),
        (Layout("shared"), "agent:u-bob:main", "u-bob", None),
        (Layout("shared"), None, "u-bob", None),
        (Layout("shared"), None, "shared", None),
    ],
)
def test_whose_the_gateways_words_are(layout: Layout, key: str | None, agent_id: str | None, slug: str | None) -> None:
    assert layout.slug_of(key, agent_id) == slug
