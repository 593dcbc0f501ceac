-- Count a model call, once.
-- ARGV call, now ms, day and month of the call, tokens, cost, session.
-- Returns figures: `new` where it was counted now, `seen` where it was before, `unknown` where nobody counts yet: then the ledger,
-- in which the call will be, is read first.
local call, now, day, month, session = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[7]
local tokens, cost = tonumber(ARGV[5]), tonumber(ARGV[6])
if session ~= '' and tokens > 0 then
  if redis.call('HLEN', LAST) > 500 then
    redis.call('DEL', LAST)
  end
  redis.call('HSET', LAST, session, string.format('%d %d', tokens, cost))
  local least = tonumber(redis.call('HGET', LAST, 'least') or tokens)
  redis.call('HSET', LAST, 'least', string.format('%d', math.min(least, tokens)))
  redis.call('PEXPIRE', LAST, LAST_MS)
end
local counted = believed()
local building = redis.call('EXISTS', BUILDING) == 1
if not counted and not building then
  return figures('unknown', now)
end
redis.call('ZREMRANGEBYSCORE', SEEN, '-inf', now - SEEN_MS)
if redis.call('ZADD', SEEN, 'NX', now, call) == 0 then
  return figures('seen', now)
end
redis.call('PEXPIRE', SEEN, SEEN_MS)
if building then
  redis.call('HSET', LATE, call, string.format('%s %s %d %d', day, month, tokens, cost))
  redis.call('PEXPIRE', LATE, SEEN_MS)
end
if not counted then
  return figures('unknown', now)
end
add(day, month, tokens, cost)
return figures('new', now)
