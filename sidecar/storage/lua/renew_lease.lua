-- Keep a lease that is still ours: one that ended may belong to somebody by now, or to nobody for a reason.
-- KEYS[1] lease; ARGV owner, ttl ms. Returns 1 when kept, 0 when lost.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
