"""The ledger: a row for each model call, a partition for each month; and up to when each gateway was read."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    create table token_usage_logs (
        gateway_id text not null check (gateway_id <> ''),
        call_id text not null check (call_id <> ''),
        source text not null check (source in ('message', 'estimate', 'egress')),
        user_id text not null check (user_id <> ''),
        session_key text not null,
        request_id text not null,
        provider text not null,
        model text not null,
        tokens_input bigint not null check (tokens_input >= 0),
        tokens_output bigint not null check (tokens_output >= 0),
        tokens_cache_read bigint not null check (tokens_cache_read >= 0),
        tokens_cache_write bigint not null check (tokens_cache_write >= 0),
        tokens_total bigint not null
            generated always as (tokens_input + tokens_output + tokens_cache_read + tokens_cache_write) stored,
        cost_usd numeric(18, 9) not null check (cost_usd >= 0),
        metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
        "timestamp" timestamptz not null,
        recorded_at timestamptz not null default now(),
        primary key (gateway_id, call_id, "timestamp")
    ) partition by range ("timestamp")
    """,
    """
    comment on table token_usage_logs is 'Usage: a row for each model call. A partition for each month, in UTC.'
    """,
    """
    comment on column token_usage_logs.call_id is 'The id of its message in the transcript; after:<the last> where it has none.'
    """,
    """
    comment on column token_usage_logs.request_id is 'The run; empty where the gateway names none.'
    """,
    """
    comment on column token_usage_logs.tokens_input is 'Without those from the cache.'
    """,
    """
    comment on column token_usage_logs."timestamp" is 'When the gateway wrote the message, by its clock.'
    """,
    """
    create index token_usage_logs_user on token_usage_logs (user_id, "timestamp")
    """,
    """
    create table usage_calls (
        gateway_id text not null,
        call_id text not null,
        "timestamp" timestamptz not null,
        primary key (gateway_id, call_id)
    )
    """,
    """
    comment on table usage_calls is
        'The natural keys of token_usage_logs, over all months: a call that was seen is not written again, whatever its time.'
    """,
    """
    create index usage_calls_timestamp on usage_calls ("timestamp")
    """,
    """
    create table usage_watermarks (
        gateway_id text primary key check (gateway_id <> ''),
        read_until timestamptz not null
    )
    """,
    """
    comment on table usage_watermarks is
        'Up to when, by its own clock, all that a gateway''s transcripts tell is in the ledger.'
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in ("usage_watermarks", "usage_calls", "token_usage_logs"):
        op.execute(f"drop table {table}")
