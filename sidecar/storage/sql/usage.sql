-- The ledger, `token_usage_logs`: each model call once, whoever saw it how often.

-- name: append_usage
-- Write calls of users' agents, those that are new; `slug` names the user on the gateway. The keys of what was written.
with given as (
    select distinct on (gateway_id, call_id) *
    from unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::numeric[], $14::timestamptz[], $15::jsonb[]
    ) as given (
        gateway_id, call_id, source, slug, session_key, request_id, provider, model,
        tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, cost_usd, at, metadata
    )
),
owned as (
    select given.*, home.user_id
    from given
    join user_openclaw_environments as home on home.gateway_id = given.gateway_id and home.profile_name = given.slug
),
fresh as (
    insert into usage_calls (gateway_id, call_id, "timestamp")
    select gateway_id, call_id, at from owned
    on conflict do nothing
    returning gateway_id, call_id
)
insert into token_usage_logs
    (gateway_id, call_id, source, user_id, session_key, request_id, provider, model,
    tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, cost_usd, "timestamp", metadata)
select gateway_id, call_id, source, user_id, session_key, request_id, provider, model,
    tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, cost_usd, at, metadata
from owned join fresh using (gateway_id, call_id)
returning gateway_id, call_id

-- name: months_of_usage
-- The partitions that are there, as the first day of each month.
select to_date(right(inhrelid::regclass::text, 7), 'YYYY_MM') as month
from pg_inherits
where inhparent = 'token_usage_logs'::regclass

-- name: forget_calls
-- The keys of calls before a moment, whose months are gone.
delete from usage_calls where "timestamp" < $1

-- name: read_until
-- Up to when a gateway was read; null: never.
select read_until from usage_watermarks where gateway_id = $1

-- name: set_read_until
-- Note up to when a gateway was read; it never moves back.
insert into usage_watermarks as known (gateway_id, read_until) values ($1, $2)
on conflict (gateway_id) do update set read_until = greatest(known.read_until, excluded.read_until)

-- name: used_by
-- What a user has used since the day and since the month began, with weights for what counts as a token, and the calls that were
-- written since a moment: those may still be told to whoever asks this.
select
    coalesce(sum(weighted) filter (where "timestamp" >= $3::timestamptz), 0) as day_tokens,
    coalesce(sum(cost_usd), 0) as month_cost,
    count(distinct request_id) filter (
        where "timestamp" >= $3::timestamptz and request_id <> ''
            and session_key not like '%:subagent:%' and session_key not like '%:cron:%' and session_key not like '%:run:%'
    ) as day_calls,
    coalesce(array_agg(gateway_id || ' ' || call_id) filter (where recorded_at >= $5::timestamptz), '{}') as recent
from (
    select *, tokens_input * $6::numeric + tokens_output * $7::numeric
        + tokens_cache_read * $8::numeric + tokens_cache_write * $9::numeric as weighted
    from token_usage_logs
    where user_id = (select user_id from user_openclaw_environments where gateway_id = $1 and profile_name = $2)
        and "timestamp" >= least($3, $4::timestamptz)
) as calls

-- name: last_call
-- The last call of a session that the model itself gave figures for.
select * from token_usage_logs
where gateway_id = $1 and session_key = $2 and "timestamp" <= $3 and source = 'message'
order by "timestamp" desc
limit 1

-- name: least_call
-- A user's call with the shortest prompt of late, sub-agents apart, who are told less.
select *
from token_usage_logs
where user_id = (select user_id from user_openclaw_environments where gateway_id = $1 and profile_name = $2)
    and gateway_id = $1 and source = 'message' and "timestamp" between $3::timestamptz - interval '30 days' and $3
    and session_key not like '%:subagent:%'
order by tokens_input + tokens_cache_read + tokens_cache_write
limit 1

-- name: open_runs
-- Runs of users' agents that had begun when it was last heard of them.
select run_id, slug, session_key, began_at from usage_open_runs where gateway_id = $1

-- name: open_more
-- Note runs that have begun.
insert into usage_open_runs (gateway_id, run_id, slug, session_key, began_at)
select $1, given.*
from unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[]) as given
on conflict do nothing

-- name: close_some
-- Forget runs that are over, and what they took is in the ledger.
delete from usage_open_runs where gateway_id = $1 and run_id = any($2::text[])

-- name: called_since
-- Is a call of a run in the ledger that was made after a moment?
select exists (
    select from token_usage_logs where gateway_id = $1 and request_id = $2 and "timestamp" > $3
)

-- name: recorded
-- Of these calls of a gateway those that the ledger has.
select call_id, tokens_total from token_usage_logs where gateway_id = $1 and call_id = any($2::text[])

-- name: summed
-- Usage from a moment up to another, of one user (empty: of all), added up by day, month, user, model or session.
select
    case $4
        when 'day' then to_char("timestamp" at time zone $5, 'YYYY-MM-DD')
        when 'month' then to_char("timestamp" at time zone $5, 'YYYY-MM')
        when 'user' then user_id
        when 'model' then provider || '/' || model
        else session_key
    end as "group",
    count(*) as calls,
    count(*) filter (where source = 'estimate') as estimated,
    sum(tokens_input)::bigint as input,
    sum(tokens_output)::bigint as output,
    sum(tokens_cache_read)::bigint as cache_read,
    sum(tokens_cache_write)::bigint as cache_write,
    sum(cost_usd) as cost_usd
from token_usage_logs
where "timestamp" >= $1 and "timestamp" < $2 and ($3 = '' or user_id = $3)
group by 1
order by 1
