-- Forget what a user has used: the ledger knows better. What runs, and what it reserves, stays. No ARGV.
redis.call('DEL', USED, SEEN, BUILDING, LATE)
return 1
