"""A gateway's refusal and a stored entry, told again without what is nobody's business."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.domain.namespace import Namespace
from sidecar.policy.responses import changed_session, error_of_gateway

BOB = Namespace("example|bob", "u-bob", "u-bob")


def test_code_words_and_what_clients_branch_on_pass() -> None:
    error = {
        "code": "FORBIDDEN",
        "message": "missing scope: operator.approvals",
        "details": {"code": "MISSING_SCOPE", "missingScope": "operator.approvals", "stateDir": "/srv/state"},
        "retryable": True,
        "retryAfterMs": 500,
    }
    assert error_of_gateway(error) == {
        "code": "FORBIDDEN",
        "message": "missing scope: operator.approvals",
        "details": {"code": "MISSING_SCOPE", "missingScope": "operator.approvals"},
        "retryable": True,
        "retryAfterMs": 500,
    }


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("ENOENT: no such file, open '/srv/state/agents/u-alice/x.sqlite'", "ENOENT: no such file, open '…'"),
        ("see https://example.com/docs/errors for more", "see https://example.com/docs/errors for more"),
        ("yes and/or no", "yes and/or no"),
        ("bad config:/srv/state/openclaw.json", "bad config:…"),
        ("cannot load file:///srv/state/x.js now", "cannot load … now"),
        ("open C:\\Users\\op\\x.json failed", "open … failed"),
        ("x" * 600, "x" * 500),
    ],
)
def test_places_of_the_host_do_not(message: str, told: str) -> None:
    assert error_of_gateway({"code": "UNAVAILABLE", "message": message})["message"] == told


def test_neither_do_they_in_the_details() -> None:
    details = {
        "code": "X",
        "reason": "at /srv/state/x",
        "requiredScopes": ["a", "/srv/b/c", 7],
        "limit": 3,
        "method": {"at": "/srv"},
    }
    told = error_of_gateway({"code": "X", "message": "x", "details": details})["details"]
    assert told == {"code": "X", "reason": "at …", "requiredScopes": ["a"], "limit": 3, "method": None}


@pytest.mark.parametrize("error", [None, "no", {}, {"details": "x", "retryable": "yes", "retryAfterMs": "soon"}])
def test_an_error_of_no_known_shape_is_still_an_error(error: Any) -> None:
    assert error_of_gateway(error) == {"code": "UNAVAILABLE", "message": "the gateway gave no reason"}


def test_of_a_stored_entry_only_what_is_listed_passes() -> None:
    payload = {
        "ok": True,
        "key": "agent:u-bob:main",
        "path": "/srv/state/u-bob.sqlite",
        "entry": {
            "sessionId": "s",
            "label": "mine",
            "skillsSnapshot": {"prompt": "/srv/skills"},
            "anything": {"later": "/srv"},
            "parentSessionKey": "agent:u-bob:main",
        },
    }
    told = changed_session(payload, BOB)
    assert told == {
        "ok": True,
        "key": "agent:u-bob:main",
        "entry": {"sessionId": "s", "label": "mine", "parentSessionKey": "agent:u-bob:main"},
    }


def test_a_foreign_parent_is_not_told() -> None:
    payload = {"key": "agent:u-bob:x", "entry": {"parentSessionKey": "agent:u-alice:main"}}
    assert changed_session(payload, BOB) == {"key": "agent:u-bob:x", "entry": {}}


@pytest.mark.parametrize("payload", [None, [], "x", {"ok": True}, {"key": "agent:u-bob:x", "entry": None}])
def test_without_an_entry_it_is_an_own_session_or_nothing(payload: Any) -> None:
    told = changed_session(payload, BOB)
    assert told == (payload if isinstance(payload, dict) else None)


def test_a_foreign_session_is_not_told() -> None:
    assert changed_session({"key": "agent:u-alice:x", "entry": {"label": "hers"}}, BOB) == {"session": None}
