"""Hypothesis profiles (`HYPOTHESIS_PROFILE=fast|deep`) and the fixtures of the stack."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.stack.fixtures",)

settings.register_profile("fast", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those with a gateway first, whose files take minutes: what is short fills up the processes at the end."""
    items.sort(key=lambda item: item.get_closest_marker("live") is None)
