-- Who did what, and what was denied.

-- name: append_audit
-- Write a batch in one statement: all rows or none, in the order given.
insert into audit_log (at, connection_id, user_id, action, method, code, request_id, details)
select * from unnest(
    $1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[]
)

-- name: last_audit
-- The last rows of a user and of an action (empty: of all) since a moment (null: ever), oldest first.
select * from (
    select id, at, action, connection_id, user_id, method, code, request_id, details
    from audit_log
    where ($1 = '' or user_id = $1) and ($2 = '' or action = $2) and ($3::timestamptz is null or at >= $3)
    order by id desc
    limit $4
) as last
order by id

-- name: audit_between
-- The rows of a user and of an action (empty: of all) in a range of ids, oldest first.
select id, at, action, connection_id, user_id, method, code, request_id, details
from audit_log
where id > $3 and id <= $4 and ($1 = '' or user_id = $1) and ($2 = '' or action = $2)
order by id

-- name: newest_audit
-- The highest id, 0 of an empty log.
select coalesce(max(id), 0) from audit_log
