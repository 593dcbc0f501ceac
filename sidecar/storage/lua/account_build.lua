-- Begin to read the ledger for a user's figures. Returns 0 where they are known. From now on what is settled is noted beside, since
-- nobody can tell whether the reading will find it.
-- ARGV ms after which the reading is given up.
if believed() then
  return 0
end
if redis.call('EXISTS', BUILDING) == 0 then
  redis.call('DEL', SEEN, LATE)
end
redis.call('SET', BUILDING, '1', 'PX', ARGV[1])
return 1
