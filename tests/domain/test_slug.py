"""Two users never share a slug, and no slug ever changes."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.slug import MAX_SLUG, slug_of

GOLDEN = [
    ("example|alice", True, "u-alice"),
    ("example|alice", False, "u-alicepjcc534ocgx2dftnus5yfktuiosnrej4"),
    ("other|alice", False, "u-alice3hfn7ouoinh3flqz3jn3g4yicilzyus4"),
    ("example|main", True, "u-main"),
    ("example|0123456789abcdefghijkl", True, "u-0123456789abcdefghijkl"),
    ("example|0123456789abcdefghijklm", True, "u-0123456789abcdefg56wzkqfka2kmpnikvxnrc3uk24kl3rh"),
    ("example|Alice", True, "u-alicenlhnkdncoeu2el2io6zvkeaeo6s44qsn"),
    ("example|alice@example.com", True, "u-aliceexamplecomrbf4nub547wpeoqk5oirzdlfwifvwapz"),
    ("auth0|auth0|5f7c8ec7c33c6c004bbafe82", False, "u-auth05f7c8ec7c33l3qni3qevtzprv5wxynqkjyxvnidoh5w"),
    ("example|../../etc/passwd", True, "u-etcpasswda22fmti55b55spfbml7nbgkhpuaeboi6"),
    ("example|\u212aelvin", True, "u-elvina4jgw2g36gokygplken7pvvhk5ve7q57"),
    ("example|\u611b\u9e97\u7d72", True, "u-nlx2nkoywyo2butri2x5elluh27zcjpi"),
    ("example|a b\tc\n", True, "u-abcssbzuryl2q7gfi7jh7b5u5qnqxccat3f"),
    ("example||", True, "u-rqxfvzbhmeukydyan677sslhvbhmoyvv"),
]
"""Folders on disk and agents on gateways carry these: a line here may be added, never changed."""

issuers = st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True)
LOOKALIKES = [
    *(
        "alice",
        "Alice",
        "ALICE",
        "\uff41lice",
        "al\u200bice",
        "k",
        "K",
        "\u212a",
        "ß",
        "ss",
        "ſ",
        "s",
        "İ",
        "i\u0307",
    ),
    *("é", "e\u0301", ".", "..", "/", "\\", "|", "\x00", "~", "-", " ", "1", "\uff12"),
]
subjects = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.lists(st.sampled_from(LOOKALIKES), min_size=1, max_size=6).map("".join),
    st.from_regex(r"[a-z0-9]{1,40}", fullmatch=True),
)
user_ids = st.builds("{}|{}".format, issuers, subjects)


@pytest.mark.parametrize(("user_id", "readable", "slug"), GOLDEN)
def test_golden(user_id: str, readable: bool, slug: str) -> None:
    assert slug_of(user_id, readable) == slug


@given(user_ids, st.booleans())
def test_charset_and_length(user_id: str, readable: bool) -> None:
    slug = slug_of(user_id, readable)
    assert re.fullmatch(r"u-[a-z0-9]+", slug)
    assert len(slug) <= MAX_SLUG <= 64


@given(subjects, subjects)
def test_injective_within_an_issuer(one: str, other: str) -> None:
    for readable in (True, False):
        slugs = {slug_of(f"example|{subject}", readable) for subject in (one, other)}
        assert len(slugs) == len({one, other})


@given(st.lists(st.one_of(user_ids, st.builds("example|{}".format, subjects)), min_size=2, max_size=6))
def test_injective_over_issuers_of_which_one_is_readable(drawn: list[str]) -> None:
    slugs = {user_id: slug_of(user_id, user_id.startswith("example|")) for user_id in drawn}
    assert len(set(slugs.values())) == len(slugs)


@given(issuers, issuers, subjects)
def test_issuers_are_kept_apart(one: str, other: str, subject: str) -> None:
    readable, hashed = slug_of(f"{one}|{subject}", True), slug_of(f"{other}|{subject}", False)
    assert readable != hashed or (one == other and len(readable) >= 34)


@given(user_ids)
def test_the_forms_are_disjoint_by_length(user_id: str) -> None:
    hashed = slug_of(user_id, False)
    readable = slug_of(user_id, True)
    assert 34 <= len(hashed) <= 50
    assert readable == hashed or len(readable) <= 24


@given(user_ids, st.booleans())
def test_what_a_gateway_does_to_names_leaves_it_alone(user_id: str, readable: bool) -> None:
    slug = slug_of(user_id, readable)
    normalised = {unicodedata.normalize(form, slug) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    assert {slug.lower(), slug.casefold(), slug.strip(), *normalised} == {slug}


@given(user_ids, st.booleans())
def test_stays_below_the_root(user_id: str, readable: bool) -> None:
    slug = slug_of(user_id, readable)
    assert (PurePosixPath("/data/users") / slug).parts == ("/", "data", "users", slug)
    assert PureWindowsPath(slug).parts == (slug,)
    assert not slug.startswith(("-", "."))


@given(st.from_regex(r"[a-z0-9]{1,22}", fullmatch=True))
def test_readable_ids_stay_readable(subject: str) -> None:
    assert slug_of(f"example|{subject}", True) == f"u-{subject}"


@pytest.mark.parametrize("subject", ["alice\n", "Alice", "a.b", "", "a" * 23, "\u0661", "\uff41"])
def test_only_safe_ids_are_readable(subject: str) -> None:
    if subject:
        assert len(slug_of(f"example|{subject}", True)) >= 34
    else:
        with pytest.raises(ValueError, match="issuer name"):
            slug_of("example|", True)


@pytest.mark.parametrize("user_id", ["", "alice", "|alice", "Example|alice", "exa mple|alice", "example", "é|alice"])
def test_what_is_no_user_id(user_id: str) -> None:
    with pytest.raises(ValueError, match="<issuer name>"):
        slug_of(user_id, False)


@pytest.mark.parametrize("readable", [True, False])
def test_a_lone_surrogate_is_refused(readable: bool) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        slug_of("example|\ud800", readable)
