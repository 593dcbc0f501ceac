-- A run is over. What it reserved stays so for a moment, until its last model call is settled.
-- ARGV run, ms until which it stays reserved, now ms. Returns how many runs ended: 1 or 0.
redis.call('ZREMRANGEBYSCORE', RUNS, '-inf', ARGV[3])
local reserved = redis.call('HGET', HELD, ARGV[1])
if redis.call('ZREM', RUNS, ARGV[1]) == 0 then
  return 0
end
if reserved then
  redis.call('HSET', HELD, ARGV[1], (string.gsub(reserved, '%d+$', ARGV[2])))
end
return 1
