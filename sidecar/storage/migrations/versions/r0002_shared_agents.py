"""Users of one gateway may share an agent, which is never named as a user's is; what stays one user's own there is the name."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_UP = (
    """
    alter table user_openclaw_environments
        drop constraint user_openclaw_environments_gateway_id_agent_id_key,
        add unique (gateway_id, profile_name)
    """,
    """
    create unique index user_openclaw_environments_own_agent
        on user_openclaw_environments (gateway_id, agent_id) where agent_id like 'u-%'
    """,
    """
    comment on column user_openclaw_environments.agent_id is
        'The user''s own agent, named as profile_name, or the one that all users of the gateway share.'
    """,
)
_DOWN = (
    "comment on column user_openclaw_environments.agent_id is null",
    "drop index user_openclaw_environments_own_agent",
    """
    alter table user_openclaw_environments
        drop constraint user_openclaw_environments_gateway_id_profile_name_key,
        add unique (gateway_id, agent_id)
    """,
)


def upgrade() -> None:
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.execute(statement)
