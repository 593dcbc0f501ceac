from tests.storage.engines import database, database_url, engines

__all__ = ["database", "database_url", "engines"]
