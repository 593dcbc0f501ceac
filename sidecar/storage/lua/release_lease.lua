-- Give a lease back, unless it is somebody else's by now.
-- KEYS[1] lease; ARGV owner. Returns 1 when given back, 0 when it was not ours.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
