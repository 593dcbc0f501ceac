-- Count a user's live runs and admit one more, if the limit allows it.
-- KEYS[1] zset of the user's runs by end of life; ARGV run, limit (0: none), ttl ms, now ms.
-- Returns {admitted, live}: admitted 0 refused, 1 admitted, 2 was admitted before and lives on (a repeated request
-- costs nothing); live counts this run too when it was admitted. A run that nobody renews ends by itself.
local limit, ttl, now = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
local live = redis.call('ZCARD', KEYS[1])
if not known and limit > 0 and live >= limit then
  return {0, live}
end
redis.call('ZADD', KEYS[1], 'GT', now + ttl, ARGV[1])
if redis.call('PTTL', KEYS[1]) < ttl then
  redis.call('PEXPIRE', KEYS[1], ttl)
end
if known then
  return {2, live}
end
return {1, live + 1}
