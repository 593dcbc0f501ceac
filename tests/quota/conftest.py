from tests.quota.books import books
from tests.storage.engines import database, database_url, engines, redis_client, store

__all__ = ["books", "database", "database_url", "engines", "redis_client", "store"]
