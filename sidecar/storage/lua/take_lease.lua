-- Take or keep a lease.
-- KEYS[1] lease; ARGV owner, ttl ms. Returns 1 when the owner has it now (also when they had it), else 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
