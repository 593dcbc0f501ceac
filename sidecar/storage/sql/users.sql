-- People who have logged in.

-- name: record_login
-- Keep what the verified token says of a person; a login that arrives late never moves `last_login_at` back.
insert into oauth_users as known
    (user_id, email, name, provider, provider_user_id, avatar_url, created_at, updated_at, last_login_at, roles)
values ($1, $2, $3, $4, $5, $6, $7, $7, $7, $8)
on conflict (user_id) do update set
    email = excluded.email,
    name = excluded.name,
    avatar_url = excluded.avatar_url,
    roles = excluded.roles,
    updated_at = case
        when (known.email, known.name, known.avatar_url, known.roles)
            = (excluded.email, excluded.name, excluded.avatar_url, excluded.roles)
        then known.updated_at
        else greatest(known.updated_at, excluded.updated_at)
    end,
    last_login_at = greatest(known.last_login_at, excluded.last_login_at)
