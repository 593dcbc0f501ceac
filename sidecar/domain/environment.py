"""What one user has: their place on a gateway, as stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Environment:
    """One row per user; all times are aware, in UTC."""

    user_id: str
    """The owner: `Principal.user_id`."""

    gateway_id: str
    """The configured gateway that holds the user's transcripts; they stay there."""

    agent_id: str
    """The user's agent: their own, and then named as `profile_name`, or the one that all users of the gateway share."""

    workspace_dir: str
    """As the gateway sees it."""

    profile_name: str
    """Of the user's credentials at the gateway: their slug, unique there."""

    auth_profile_id: str
    """What patched gateways take in `chat.send`."""

    created_at: datetime
    updated_at: datetime
    last_used_at: datetime

    has_sandbox: bool = False
    """A sandbox exists."""

    sandbox_enabled: bool = False
    """The user's tools shall run in one."""

    quota_tokens_per_day: int | None = None
    """None: the configured default; 0: nothing."""

    quota_cost_per_month: Decimal | None = None
    """USD. None: the configured default; 0: nothing."""

    provisioned_at: datetime | None = None
    """When the agent was last written into the gateway's configuration; None: not yet."""

    @property
    def shares_agent(self) -> bool:
        """Is the agent everybody's, and only the transcript the user's own?"""
        return self.agent_id != self.profile_name
