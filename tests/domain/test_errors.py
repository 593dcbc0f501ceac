"""Every error says the same to a client, an HTTP caller and a log; the tree in the docstring is the tree."""

from __future__ import annotations

import inspect
import re

import pytest

from sidecar import errors
from sidecar.errors import (
    ConfigurationError,
    EngineError,
    GatewayAway,
    HouseFull,
    MalformedFrame,
    Outage,
    Problem,
    Refusal,
    SidecarError,
    TokenRefused,
)

TREE = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, SidecarError)}


def make(kind: type[SidecarError], message: str = "say what to do") -> SidecarError:
    if issubclass(kind, ConfigurationError):
        return kind([Problem("server.port", message)])
    if issubclass(kind, TokenRefused):
        return kind(message, reason="expired")
    return kind(message)


def test_the_docstring_draws_the_tree() -> None:
    above: dict[int, str] = {}
    drawn = {}
    for indent, name in re.findall(r"^    ((?:[│├└─ ]*))(\w+)", errors.__doc__ or "", re.MULTILINE):
        if name in TREE:
            depth = len(indent) // 4
            above[depth] = name
            drawn[name] = above.get(depth - 1, "Exception")
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in TREE.items()}


@pytest.mark.parametrize("kind", TREE.values())
def test_on_the_wire(kind: type[SidecarError]) -> None:
    error = make(kind)
    wire = error.to_wire()
    assert wire["code"] in {"INVALID_REQUEST", "UNAVAILABLE"}
    assert "say what to do" in wire["message"]
    assert wire["message"] == str(error)
    assert re.fullmatch(r"[A-Z][A-Z_]+", wire["details"]["code"])
    assert wire.get("retryable", False) is kind.retryable
    assert set(wire) <= {"code", "message", "details", "retryable", "retryAfterMs"}


@pytest.mark.parametrize("kind", [kind for kind in TREE.values() if issubclass(kind, Refusal)])
def test_a_refusal_is_the_callers_to_mend(kind: type[Refusal]) -> None:
    assert 400 <= kind.status < 500
    assert kind.close_code in {1008, 1013}


@pytest.mark.parametrize("kind", [kind for kind in TREE.values() if issubclass(kind, Outage)])
def test_an_outage_is_retried(kind: type[Outage]) -> None:
    assert (kind.status, kind.close_code, kind.retryable, kind.code) == (503, 1013, True, "UNAVAILABLE")


def test_what_clients_branch_on_is_one_word_a_class() -> None:
    words = [kind.detail_code for kind in TREE.values()]
    assert len(set(words)) == len(words)


def test_details_and_a_retry_are_added() -> None:
    error = HouseFull("later", detail_code="TOO_MANY_OF_YOU", details={"limit": 3}, retry_after_ms=250)
    assert error.to_wire() == {
        "code": "UNAVAILABLE",
        "message": "later",
        "details": {"code": "TOO_MANY_OF_YOU", "limit": 3},
        "retryable": True,
        "retryAfterMs": 250,
    }
    assert HouseFull("later").detail_code == "TOO_MANY_CONNECTIONS"
    assert "retryAfterMs" not in MalformedFrame("no frame").to_wire()


def test_the_details_given_are_copied() -> None:
    details = {"limit": 3}
    error = HouseFull("later", details=details)
    details["limit"] = 4
    assert error.details == {"limit": 3}


def test_a_gateway_that_is_away_looks_like_one_that_starts() -> None:
    wire = GatewayAway("the gateway is not ready").to_wire()
    assert wire["details"] == {"code": "GATEWAY_UNAVAILABLE", "reason": "startup-sidecars"}
    assert wire["retryAfterMs"] == 1000
    assert GatewayAway("not ready", retry_after_ms=5).to_wire()["retryAfterMs"] == 5


def test_a_token_is_refused_for_a_reason() -> None:
    error = TokenRefused("log in again", reason="expired", detail_code="AUTH_EXPIRED")
    assert (error.reason, error.detail_code, error.status) == ("expired", "AUTH_EXPIRED", 401)


def test_all_problems_at_once() -> None:
    first = Problem("server.port", "is no port", "take one below 65536")
    second = Problem("identity", "names no issuer")
    error = ConfigurationError([first, second])
    assert error.problems == (first, second)
    assert str(error) == "server.port: is no port — take one below 65536\nidentity: names no issuer"


def test_an_engine_is_our_own_trouble() -> None:
    assert (EngineError.status, EngineError.close_code, EngineError.retryable) == (500, 1011, False)
