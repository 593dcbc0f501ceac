-- What a migrated database looks like. The migrations are tested to end here, table by table; nothing runs this file
-- outside that test.

create table oauth_users (
    user_id text primary key check (user_id <> ''),
    email text not null default '',
    name text not null default '',
    provider text not null,
    provider_user_id text not null,
    avatar_url text not null default '',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_login_at timestamptz not null default now(),
    roles text[] not null default '{user}',
    unique (provider, provider_user_id)
);
comment on table oauth_users is 'Who has logged in: written at each login from the verified token.';
comment on column oauth_users.user_id is '<provider>|<provider_user_id>: scoped by the issuer.';
comment on column oauth_users.provider is 'The issuer''s configured name.';
comment on column oauth_users.provider_user_id is 'The subject, as the issuer wrote it.';
comment on column oauth_users.roles is 'As the token of the last login named them.';

create table user_openclaw_environments (
    user_id text primary key check (user_id <> ''),
    gateway_id text not null check (gateway_id <> ''),
    agent_id text not null check (agent_id <> ''),
    workspace_dir text not null,
    profile_name text not null,
    auth_profile_id text not null,
    api_key_id text,
    api_key_encrypted bytea,
    has_sandbox boolean not null default false,
    sandbox_enabled boolean not null default false,
    quota_tokens_per_day bigint check (quota_tokens_per_day >= 0),
    quota_cost_per_month numeric(18, 6) check (quota_cost_per_month >= 0),
    provisioned_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_used_at timestamptz not null default now(),
    unique (gateway_id, profile_name),
    check ((api_key_id is null) = (api_key_encrypted is null))
);
create unique index user_openclaw_environments_own_agent
    on user_openclaw_environments (gateway_id, agent_id) where agent_id like 'u-%';
comment on table user_openclaw_environments is
    'Gateway, agent and workspace of a user, and what they may use.';
comment on column user_openclaw_environments.agent_id is
    'The user''s own agent, named as profile_name, or the one that all users of the gateway share.';
comment on column user_openclaw_environments.quota_cost_per_month is
    'USD; null: the configured default.';
comment on column user_openclaw_environments.provisioned_at is
    'When the agent was last written to its gateway; null: never.';

create table audit_log (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    connection_id text not null default '',
    user_id text not null default '',
    action text not null check (action <> ''),
    method text not null default '',
    code text not null default '',
    request_id text not null default '',
    details jsonb not null default '{}' check (jsonb_typeof(details) = 'object')
);
comment on table audit_log is 'Who did what to whom, and every denial.';
create index audit_log_at on audit_log (at);
create index audit_log_user on audit_log (user_id, at);


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
) partition by range ("timestamp");
comment on table token_usage_logs is 'Usage: a row for each model call. A partition for each month, in UTC.';
comment on column token_usage_logs.call_id is 'The id of its message in the transcript; after:<the last> where it has none.';
comment on column token_usage_logs.request_id is 'The run; empty where the gateway names none.';
comment on column token_usage_logs.tokens_input is 'Without those from the cache.';
comment on column token_usage_logs."timestamp" is 'When the gateway wrote the message, by its clock.';
create index token_usage_logs_user on token_usage_logs (user_id, "timestamp");
create index token_usage_logs_session on token_usage_logs (gateway_id, session_key, "timestamp");

create table usage_calls (
    gateway_id text not null,
    call_id text not null,
    "timestamp" timestamptz not null,
    primary key (gateway_id, call_id)
);
comment on table usage_calls is
    'The natural keys of token_usage_logs, over all months: a call that was seen is not written again, whatever its time.';
create index usage_calls_timestamp on usage_calls ("timestamp");

create table usage_watermarks (
    gateway_id text primary key check (gateway_id <> ''),
    read_until timestamptz not null
);
comment on table usage_watermarks is
    'Up to when, by its own clock, all that a gateway''s transcripts tell is in the ledger.';

create table usage_open_runs (
    gateway_id text not null check (gateway_id <> ''),
    run_id text not null check (run_id <> ''),
    slug text not null check (slug <> ''),
    session_key text not null,
    began_at timestamptz not null,
    primary key (gateway_id, run_id)
);
comment on table usage_open_runs is
    'Runs that began and whose end was not heard yet: where a gateway dies, what it was doing is estimated.';

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
);
comment on table user_quotas is 'What each user may, and where they stood when it was last looked at.';
comment on column user_quotas.limit_value is
    'In place of what the settings say for the role; tokens, USD or turns; 0: unlimited; null: as the settings say.';
comment on column user_quotas.current_value is 'For reports; what decides is derived from token_usage_logs.';

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
);
comment on table quota_alerts is 'A user came near a limit, or to it: once for each limit, share and period.';
comment on column quota_alerts.alert_type is 'daily_tokens_80, _90, _100, monthly_cost_80, _100.';
comment on column quota_alerts.period is 'The day or the month, in the time zone of the quotas: 2026-11-27, 2026-11.';
comment on column quota_alerts.notified_at is 'When the webhook took it; null: not yet, or there is none.';
create index quota_alerts_unsent on quota_alerts (next_try_at) where notified_at is null;
