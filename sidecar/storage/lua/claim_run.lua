-- A run id belongs to the user who claimed it first.
-- KEYS[1] run; ARGV hash of the user, ttl ms. Returns 1 when it is this user's (now or already), 0 when another's.
-- A repeated claim never shortens the life of the first.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 1
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
