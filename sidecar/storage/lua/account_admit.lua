-- Admit a turn, if every limit allows it, and reserve what it will take; all or nothing.
-- ARGV run, now ms, ttl ms, day, month, session, tokens, cost (for a session of which nothing is known), and the limits (0: none):
-- runs, turns a minute, calls a day, tokens a day, cost a month; then 1 where the turn runs already, whatever the limits say.
-- Returns figures, the turn's own tokens and cost, ms to wait. A run that nobody renews ends by itself.
local run, now, ttl, day, month, session = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local limit = {runs = tonumber(ARGV[9]), rate = tonumber(ARGV[10]), calls = tonumber(ARGV[11]),
  tokens = tonumber(ARGV[12]), cost = tonumber(ARGV[13])}
local adopt = ARGV[14] == '1'

local function answer(word, tokens, cost, wait)
  local told = figures(word, now)
  for _, value in ipairs({tokens or 0, cost or 0, wait or 0}) do
    told[#told + 1] = value
  end
  return told
end

local counted = believed()
if not counted and not adopt then
  return answer('unknown')
end
if counted then
  turn(day, month)
end
redis.call('ZREMRANGEBYSCORE', RUNS, '-inf', now)
local again = redis.call('ZSCORE', RUNS, run)
local tokens, cost = tonumber(ARGV[7]), tonumber(ARGV[8])
local last = redis.call('HGET', LAST, session)
if last then
  local t, c = string.match(last, '(%d+) (%d+)')
  tokens, cost = tonumber(t), tonumber(c)
end
tokens = math.max(tokens, tonumber(redis.call('HGET', LAST, 'least') or 0))
if not again and not adopt then
  local live = redis.call('ZCARD', RUNS)
  if limit.runs > 0 and live >= limit.runs then
    return answer('runs', tokens, cost)
  end
  redis.call('ZREMRANGEBYSCORE', SENT, '-inf', now - 60000)
  if limit.rate > 0 and redis.call('ZCARD', SENT) >= limit.rate then
    local first = redis.call('ZRANGE', SENT, 0, 0, 'WITHSCORES')
    return answer('rate', tokens, cost, math.max(tonumber(first[2]) + 60000 - now, 1))
  end
  local known = redis.call('HMGET', USED, 'tokens', 'cost', 'calls')
  if limit.calls > 0 and tonumber(known[3]) >= limit.calls then
    return answer('calls', tokens, cost)
  end
  local t, c = held(now)
  if limit.tokens > 0 and tonumber(known[1]) + t + math.max(tokens, 1) > limit.tokens then
    return answer('tokens', tokens, cost)
  end
  if limit.cost > 0 and tonumber(known[2]) + c + math.max(cost, 1) > limit.cost then
    return answer('cost', tokens, cost)
  end
  redis.call('HINCRBY', USED, 'calls', 1)
  redis.call('PEXPIRE', USED, KEEP_MS)
  if limit.rate > 0 then
    redis.call('ZADD', SENT, now, run .. ' ' .. now)
    redis.call('PEXPIRE', SENT, 60000)
  end
end
redis.call('ZADD', RUNS, 'GT', now + ttl, run)
if not again then
  redis.call('HSET', HELD, run, string.format('%d %d 0', tokens, cost))
end
if redis.call('PTTL', RUNS) < ttl then
  redis.call('PEXPIRE', RUNS, ttl)
end
redis.call('PEXPIRE', HELD, KEEP_MS)
return answer(again and 'repeated' or 'admitted', tokens, cost)
