-- Who did what, and what was denied.

-- name: append_audit
-- Write a batch in one statement: all rows or none, in the order given.
insert into audit_log (at, connection_id, user_id, action, method, code, request_id, details)
select * from unnest(
    $1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[]
)
