-- What the scripts about a user's account begin with. All keys carry one hash tag.
-- KEYS used (hash), runs (zset of live runs by end of life), held (hash: run → what it reserves), sent (zset of turns by time),
-- last (hash: session → what its last model call took), seen (zset of settled calls by time), building (set while the ledger is
-- read), late (hash: what was settled meanwhile).
-- Tokens are thousandths, money is billionths of a dollar: whole numbers, exact in Lua up to 2^53.
local USED, RUNS, HELD, SENT = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local LAST, SEEN, BUILDING, LATE = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local KEEP_MS, LAST_MS, SEEN_MS = 3 * 86400000, 30 * 86400000, 7200000

-- Each start of a server has a name. What an earlier one wrote may be older than what was lost since: it is not believed.
local function life()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%x+)') or '-'
end

local function believed()
  local written = redis.call('HGET', USED, 'life')
  if written and written ~= life() then
    redis.call('DEL', USED, SEEN, BUILDING, LATE)
    return false
  end
  return written and true or false
end

-- Begin the windows that are later than those counted in; an earlier one, by a clock that is behind, changes nothing.
local function turn(day, month)
  local known = redis.call('HMGET', USED, 'day', 'month')
  if day > known[1] then
    redis.call('HSET', USED, 'day', day, 'tokens', 0, 'calls', 0)
  end
  if month > known[2] then
    redis.call('HSET', USED, 'month', month, 'cost', 0)
  end
end

local function add(day, month, tokens, cost)
  turn(day, month)
  local known = redis.call('HMGET', USED, 'day', 'month')
  if day == known[1] then
    redis.call('HINCRBY', USED, 'tokens', tokens)
  end
  if month == known[2] then
    redis.call('HINCRBY', USED, 'cost', cost)
  end
  redis.call('PEXPIRE', USED, KEEP_MS)
end

-- What live runs reserve; and those that just ended, whose last call may not be settled yet.
local function held(now)
  local tokens, cost = 0, 0
  local all = redis.call('HGETALL', HELD)
  for index = 1, #all, 2 do
    local t, c, ends = string.match(all[index + 1], '(%d+) (%d+) (%d+)')
    ends = tonumber(ends)
    if (ends == 0 and redis.call('ZSCORE', RUNS, all[index])) or ends > now then
      tokens, cost = tokens + tonumber(t), cost + tonumber(c)
    else
      redis.call('HDEL', HELD, all[index])
    end
  end
  return tokens, cost
end

-- {word, day, tokens, held tokens, month, cost, held cost, calls, live}
local function figures(word, now)
  redis.call('ZREMRANGEBYSCORE', RUNS, '-inf', now)
  local t, c = held(now)
  local known = redis.call('HMGET', USED, 'day', 'tokens', 'month', 'cost', 'calls')
  return {
    word, known[1] or '', tonumber(known[2] or 0), t, known[3] or '', tonumber(known[4] or 0), c,
    tonumber(known[5] or 0), redis.call('ZCARD', RUNS)
  }
end
