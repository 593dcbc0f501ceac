"""Redis and PostgreSQL, ours or somebody's; the only room that speaks Lua and SQL.

    embedded   starts and supervises a PostgreSQL and a Valkey of our own below one data folder (`engines/`)
    schema     brings a database to the newest schema (`migrations/`; `sql/schema.sql` is what must come out)
    postgres   `Database`: named queries from `sql/`
    redis      `RedisStore`: leases, gates, runs and their owners; scripts from `lua/`

Whatever asyncpg, SQLAlchemy, Alembic, redis-py or the operating system raise stops here and becomes an error
of `sidecar.errors`: an outage is `StorageAway`, an engine that cannot be used is `EngineError`.
"""
