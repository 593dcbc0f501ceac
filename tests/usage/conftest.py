from tests.storage.engines import database, database_url, engines, redis_client, store

__all__ = ["database", "database_url", "engines", "redis_client", "store"]
