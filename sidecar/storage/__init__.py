"""Redis and PostgreSQL, ours or somebody's; the only room that speaks Lua and SQL."""
