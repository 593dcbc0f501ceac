"""Every mistake in the configuration of issuers is named, with its setting and the mend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.identity.options import ALGORITHMS, IssuerOptions, is_loopback, problems, url_problem

GOOD = IssuerOptions("example", "https://login.example.com/", ("openclaw",))
READABLE = replace(GOOD, readable_ids=True)


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        replace(GOOD, algorithms=tuple(ALGORITHMS)),
        replace(GOOD, issuer="http://127.0.0.1:9000"),
        replace(GOOD, issuer="http://localhost:9000"),
        replace(GOOD, issuer="http://[::1]:9000"),
        replace(GOOD, issuer="accounts.example.com", jwks_url="https://keys.example.com/jwks?v=2"),
        replace(GOOD, issuer="http://old.example.com", jwks_url="https://keys.example.com/jwks"),
        replace(GOOD, leeway_seconds=0),
    ],
)
def test_good(good: IssuerOptions) -> None:
    assert problems([good]) == []


@pytest.mark.parametrize(
    ("changes", "setting", "says"),
    [
        ({"name": ""}, "name", "lower-case"),
        ({"name": "Example"}, "name", "lower-case"),
        ({"name": "a|b"}, "name", "lower-case"),
        ({"name": "example\n"}, "name", "lower-case"),
        ({"name": "é"}, "name", "lower-case"),
        ({"issuer": ""}, "issuer", "copy the `iss`"),
        ({"issuer": "http://login.example.com"}, "issuer", "https://"),
        ({"issuer": "http://localhost.example.com"}, "issuer", "https://"),
        ({"issuer": "http://127.0.0.1.example.com"}, "issuer", "https://"),
        ({"issuer": "login.example.com"}, "issuer", "https://"),
        ({"issuer": "https://"}, "issuer", "https://"),
        ({"issuer": "https://user:secret@login.example.com"}, "issuer", "user name"),
        ({"issuer": "https://login.example.com:99999"}, "issuer", "not a URL"),
        ({"issuer": "https://["}, "issuer", "not a URL"),
        ({"issuer": "https://login.example.com/?tenant=1"}, "issuer", "set jwks_url"),
        ({"jwks_url": "http://keys.example.com"}, "jwks_url", "sign as anybody"),
        ({"jwks_url": "file:///etc/keys"}, "jwks_url", "https://"),
        ({"audience": ()}, "audience", "any other service"),
        ({"audience": ("openclaw", "")}, "audience", "any other service"),
        ({"algorithms": ()}, "algorithms", "RS256"),
        ({"algorithms": ("RS256", "HS256")}, "algorithms", "can also make one"),
        ({"algorithms": ("hs512",)}, "algorithms", "can also make one"),
        ({"algorithms": ("None",)}, "algorithms", "can also make one"),
        ({"algorithms": ("RS1",)}, "algorithms", "not known"),
        ({"algorithms": ("ES256K",)}, "algorithms", "not known"),
        ({"user_claim": ""}, "user_claim", "sub"),
        ({"leeway_seconds": -1}, "leeway_seconds", "300"),
        ({"leeway_seconds": 301}, "leeway_seconds", "300"),
        ({"leeway_seconds": float("nan")}, "leeway_seconds", "300"),
    ],
)
def test_wrong(changes: dict[str, Any], setting: str, says: str) -> None:
    found = problems([GOOD, replace(GOOD, **{"name": "second", "issuer": "https://b.example.com", **changes})])
    assert [problem.setting for problem in found] == [f"identity.issuers[1].{setting}"]
    assert says in str(found[0])
    assert "secret" not in str(found[0])


def test_all_at_once() -> None:
    wrong = IssuerOptions("", "", (), algorithms=("none",), user_claim="", leeway_seconds=-1)
    assert len(problems([wrong, wrong])) == 12


@pytest.mark.parametrize(
    ("issuers", "says"),
    [
        ([], "no issuer"),
        ([GOOD, replace(GOOD, issuer="https://b.example.com")], "name 'example'"),
        ([GOOD, replace(GOOD, name="b")], "issuer 'https://login.example.com/'"),
        ([READABLE, replace(READABLE, name="b", issuer="https://b.example.com")], "readable_ids"),
    ],
)
def test_together(issuers: list[IssuerOptions], says: str) -> None:
    found = problems(issuers)
    assert [problem.setting for problem in found] == ["identity.issuers"]
    assert says in str(found[0])
    assert found[0].mend


def test_urls() -> None:
    assert url_problem("https://keys.example.com/jwks") == ""
    assert is_loopback("http://127.9.9.9/")
    assert not is_loopback("http://128.0.0.1/")
    assert not is_loopback("https://")
