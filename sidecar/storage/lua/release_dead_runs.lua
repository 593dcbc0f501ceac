-- What is counted of a user and lives no more is taken off.
-- KEYS[1] zset of the user's runs by end of life; ARGV gateway, end of life up to which they are looked at, living run …
-- Returns how many were taken off.
local living, dead = {}, 0
for index = 3, #ARGV do
  living[ARGV[index]] = true
end
for _, run in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])) do
  if string.match(run, '^(.*):') == ARGV[1] and not living[run] then
    dead = dead + redis.call('ZREM', KEYS[1], run)
  end
end
return dead
