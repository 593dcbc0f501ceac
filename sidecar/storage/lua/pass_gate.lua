-- Let one pass per interval, over all replicas.
-- KEYS[1] gate; ARGV interval ms. Returns 0 when the caller may go (the gate is closed behind it), else ms to wait.
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
  return 0
end
return math.max(redis.call('PTTL', KEYS[1]), 1)
