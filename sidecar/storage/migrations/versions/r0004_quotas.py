"""Quotas: what single users may in place of their role's, and what they were told when a limit came near."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    create index token_usage_logs_session on token_usage_logs (gateway_id, session_key, "timestamp")
    """,
    """
    alter table oauth_users add column roles text[] not null default '{user}'
    """,
    """
    comment on column oauth_users.roles is 'As the token of the last login named them.'
    """,
    """
    create table user_quotas (
        user_id text not null check (user_id <> ''),
        quota_type text not null check (
            quota_type in ('daily_tokens', 'monthly_cost', 'api_calls', 'concurrent_runs', 'messages_per_minute')
        ),
        limit_value numeric(24, 6) check (limit_value >= 0),
        current_value numeric(24, 6) not null default 0,
        reset_date timestamptz,
        last_checked_at timestamptz,
        updated_at timestamptz not null default now(),
        primary key (user_id, quota_type)
    )
    """,
    """
    comment on table user_quotas is 'What each user may, and where they stood when it was last looked at.'
    """,
    """
    comment on column user_quotas.limit_value is
        'In place of what the settings say for the role; tokens, USD or turns; 0: unlimited; null: as the settings say.'
    """,
    """
    comment on column user_quotas.current_value is 'For reports; what decides is derived from token_usage_logs.'
    """,
    """
    create table quota_alerts (
        id bigint generated always as identity primary key,
        user_id text not null check (user_id <> ''),
        alert_type text not null check (alert_type <> ''),
        period text not null check (period <> ''),
        used numeric(24, 9) not null,
        limit_value numeric(24, 9) not null,
        triggered_at timestamptz not null,
        acknowledged boolean not null default false,
        resolved_at timestamptz,
        resolved_by text not null default '',
        resolution_note text not null default '',
        notified_at timestamptz,
        tries integer not null default 0,
        next_try_at timestamptz not null default now(),
        created_at timestamptz not null default now(),
        unique (user_id, alert_type, period)
    )
    """,
    """
    comment on table quota_alerts is 'A user came near a limit, or to it: once for each limit, share and period.'
    """,
    """
    comment on column quota_alerts.alert_type is 'daily_tokens_80, _90, _100, monthly_cost_80, _100.'
    """,
    """
    comment on column quota_alerts.period is 'The day or the month, in the time zone of the quotas: 2026-11-27, 2026-11.'
    """,
    """
    comment on column quota_alerts.notified_at is 'When the webhook took it; null: not yet, or there is none.'
    """,
    """
    create index quota_alerts_unsent on quota_alerts (next_try_at) where notified_at is null
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("drop index token_usage_logs_session")
    op.execute("drop table quota_alerts")
    op.execute("drop table user_quotas")
    op.execute("alter table oauth_users drop column roles")
