-- Where a user stands.
-- ARGV now ms, day, month. Returns figures: `known`, or `unknown` where the ledger must be read first.
local now = tonumber(ARGV[1])
if not believed() then
  return figures('unknown', now)
end
turn(ARGV[2], ARGV[3])
return figures('known', now)
