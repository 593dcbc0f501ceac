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
    unique (provider, provider_user_id)
);
comment on table oauth_users is 'Who has logged in: written at each login from the verified token.';
comment on column oauth_users.user_id is '<provider>|<provider_user_id>: scoped by the issuer.';
comment on column oauth_users.provider is 'The issuer''s configured name.';
comment on column oauth_users.provider_user_id is 'The subject, as the issuer wrote it.';

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
