-- Where users live. API keys are read by queries of their own, never along with the rest.

-- name: environment_of
-- One user's environment.
select user_id, gateway_id, agent_id, workspace_dir, profile_name, auth_profile_id, created_at, updated_at,
    last_used_at, has_sandbox, sandbox_enabled, quota_tokens_per_day, quota_cost_per_month, provisioned_at
from user_openclaw_environments
where user_id = $1

-- name: put_environment
-- Insert a user's environment. Where the user has one already (another replica was first) or the agent is another
-- user's nothing changes: a conflict with any index, since two inserts of one user may meet at either of them.
insert into user_openclaw_environments
    (user_id, gateway_id, agent_id, workspace_dir, profile_name, auth_profile_id, created_at, updated_at,
    last_used_at, has_sandbox, sandbox_enabled, quota_tokens_per_day, quota_cost_per_month, provisioned_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
on conflict do nothing

-- name: touch_environment
-- The user was here; the time never moves back.
update user_openclaw_environments set last_used_at = greatest(last_used_at, $2) where user_id = $1

-- name: mark_provisioned
-- The agents of these users stand in the gateway's configuration.
update user_openclaw_environments
set provisioned_at = $2, updated_at = greatest(updated_at, $2)
where user_id = any($1::text[])

-- name: users_per_gateway
-- How many users each gateway has; one without users has no row.
select gateway_id, count(*) as users from user_openclaw_environments group by gateway_id

-- name: agents_on
-- The agents that a gateway must have for one user each, and where they work. One that is shared is named in the settings.
select agent_id, workspace_dir from user_openclaw_environments where gateway_id = $1 and agent_id = profile_name
