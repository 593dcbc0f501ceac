-- Take the figures that the ledger gave, and what was settled meanwhile and is not among them.
-- ARGV now ms, day, month, tokens, cost, calls, then the calls of which the ledger's figures hold those of late.
-- Returns 0 where the reading took too long: then it begins again.
if believed() then
  return 1
end
if redis.call('EXISTS', BUILDING) == 0 then
  return 0
end
local now = tonumber(ARGV[1])
redis.call('HSET', USED, 'life', life(), 'day', ARGV[2], 'month', ARGV[3], 'tokens', ARGV[4], 'cost', ARGV[5], 'calls', ARGV[6])
local found = {}
for index = 7, #ARGV do
  found[ARGV[index]] = true
  redis.call('ZADD', SEEN, now, ARGV[index])
end
local late = redis.call('HGETALL', LATE)
for index = 1, #late, 2 do
  if not found[late[index]] then
    local day, month, tokens, cost = string.match(late[index + 1], '(%S+) (%S+) (%d+) (%d+)')
    add(day, month, tokens, cost)
  end
end
redis.call('DEL', BUILDING, LATE)
redis.call('PEXPIRE', USED, KEEP_MS)
redis.call('PEXPIRE', SEEN, SEEN_MS)
return 1
