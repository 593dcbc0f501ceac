"""The nouns cannot be changed once they are made, and what is left out means what the docstrings say."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from sidecar.domain import audit, environment, namespace, principal

NOW = datetime(2026, 11, 21, tzinfo=UTC)
NOUNS = [
    noun
    for room in (audit, environment, namespace, principal)
    for noun in vars(room).values()
    if dataclasses.is_dataclass(noun) and isinstance(noun, type)
]
PRINCIPAL = principal.Principal(
    user_id="example|bob", issuer="example", subject="bob", token_id="9f" * 32, expires_at=1795219909.0
)
ENVIRONMENT = environment.Environment(
    user_id="example|bob",
    gateway_id="main",
    agent_id="u-bob",
    workspace_dir="/srv/openclaw/users/u-bob",
    profile_name="u-bob",
    auth_profile_id="u-bob",
    created_at=NOW,
    updated_at=NOW,
    last_used_at=NOW,
)


@pytest.mark.parametrize("noun", NOUNS)
def test_frozen(noun: Any) -> None:
    assert noun.__dataclass_params__.frozen
    assert "__slots__" in vars(noun)


@pytest.mark.parametrize("noun", [PRINCIPAL, ENVIRONMENT])
def test_an_attribute_cannot_be_set(noun: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        noun.user_id = "example|alice"


def test_a_principal_is_somebody_without_rights_of_its_own() -> None:
    assert PRINCIPAL.roles == frozenset()
    assert (PRINCIPAL.name, PRINCIPAL.email, PRINCIPAL.avatar_url) == ("", "", "")


def test_an_environment_has_the_configured_quota_and_is_not_provisioned() -> None:
    assert (ENVIRONMENT.quota_tokens_per_day, ENVIRONMENT.quota_cost_per_month) == (None, None)
    assert ENVIRONMENT.provisioned_at is None
    assert (ENVIRONMENT.has_sandbox, ENVIRONMENT.sandbox_enabled) == (False, False)


def test_an_environment_says_whether_its_agent_is_the_users_own() -> None:
    assert not ENVIRONMENT.shares_agent
    assert dataclasses.replace(ENVIRONMENT, agent_id="shared").shares_agent
