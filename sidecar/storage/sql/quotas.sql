-- What users may use, and what they were told of it.

-- name: terms_of
-- Roles and own limits of the user whom a gateway knows by a slug.
select
    (select roles from oauth_users as known where known.user_id = home.user_id) as roles,
    array_agg(own.quota_type) filter (where own.limit_value is not null) as types,
    array_agg(own.limit_value) filter (where own.limit_value is not null) as limits
from user_openclaw_environments as home
left join user_quotas as own on own.user_id = home.user_id
where home.gateway_id = $1 and home.profile_name = $2
group by home.user_id

-- name: home_of
-- By which gateway and slug a user is known.
select gateway_id, profile_name from user_openclaw_environments where user_id = $1

-- name: slugs_on
-- All users of a gateway, by their slug.
select profile_name, user_id from user_openclaw_environments where gateway_id = $1 order by profile_name

-- name: set_limit
-- A user's own limit; null: as the settings say.
insert into user_quotas (user_id, quota_type, limit_value, updated_at) values ($1, $2, $3, now())
on conflict (user_id, quota_type) do update set limit_value = excluded.limit_value, updated_at = now()

-- name: note_standing
-- Where a user stood, for reports.
insert into user_quotas (user_id, quota_type, current_value, reset_date, last_checked_at)
select home.user_id, given.quota_type, given.current_value, given.reset_date, $6
from unnest($3::text[], $4::numeric[], $5::timestamptz[]) as given (quota_type, current_value, reset_date)
join user_openclaw_environments as home on home.gateway_id = $1 and home.profile_name = $2
on conflict (user_id, quota_type) do update set
    current_value = excluded.current_value,
    reset_date = excluded.reset_date,
    last_checked_at = excluded.last_checked_at

-- name: raise_alert
-- Tell of a limit that came near, once a period; no row where it was told before.
insert into quota_alerts (user_id, alert_type, period, used, limit_value, triggered_at)
select user_id, $3, $4, $5, $6, $7 from user_openclaw_environments where gateway_id = $1 and profile_name = $2
on conflict (user_id, alert_type, period) do nothing
returning id

-- name: take_unsent_alerts
-- What the webhook has not taken yet and is due: some, the oldest first, for this replica alone. Each further try waits twice as long.
update quota_alerts
set tries = tries + 1, next_try_at = $1::timestamptz + interval '15 seconds' * 2 ^ least(tries, 10)
where id in (
    select id from quota_alerts
    where notified_at is null and next_try_at <= $1 and triggered_at > $1 - interval '3 days'
    order by id
    limit 20
    for update skip locked
)
returning id, user_id, alert_type, period, used, limit_value, triggered_at, acknowledged, resolved_at, resolved_by, resolution_note

-- name: mark_alert_sent
-- The webhook took it.
update quota_alerts set notified_at = $2 where id = $1

-- name: last_alert
-- The highest number of an alert.
select coalesce(max(id), 0) from quota_alerts

-- name: alerts_since
-- What a gateway's users were told after the alert of a number.
select alert.id, home.profile_name, alert.alert_type, alert.period, alert.used, alert.limit_value
from quota_alerts as alert
join user_openclaw_environments as home on home.user_id = alert.user_id and home.gateway_id = $1
where alert.id > $2
order by alert.id
limit 5000

-- name: alerts
-- Alerts of one user (empty: of all), the newest first.
select id, user_id, alert_type, period, used, limit_value, triggered_at, acknowledged, resolved_at, resolved_by, resolution_note
from quota_alerts
where ($1 = '' or user_id = $1) and (not $2::boolean or resolved_at is null) and ($3::bigint = 0 or id < $3)
order by id desc
limit $4

-- name: acknowledge_alert
-- Note that somebody has read it. `$2` empty: whoever's it is.
update quota_alerts set acknowledged = true where id = $1 and ($2 = '' or user_id = $2) returning id

-- name: resolve_alert
-- Close it, with a note; what is closed stays as it was closed.
update quota_alerts
set resolved_at = coalesce(resolved_at, $3),
    resolved_by = case when resolved_at is null then $4 else resolved_by end,
    resolution_note = case when resolved_at is null then $5 else resolution_note end,
    acknowledged = true
where id = $1 and ($2 = '' or user_id = $2)
returning id
