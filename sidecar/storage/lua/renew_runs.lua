-- Let runs live on that still live; one that ended or was released stays away.
-- KEYS[1] zset of the user's runs; ARGV ttl ms, now ms, run, run … Returns how many of them live.
local ttl, now, kept = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for index = 3, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[index]) then
    redis.call('ZADD', KEYS[1], 'XX', 'GT', now + ttl, ARGV[index])
    kept = kept + 1
  end
end
if kept > 0 and redis.call('PTTL', KEYS[1]) < ttl then
  redis.call('PEXPIRE', KEYS[1], ttl)
end
return kept
