from tests.storage.engines import engines, redis_client, store

__all__ = ["engines", "redis_client", "store"]
