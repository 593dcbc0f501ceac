"""`RedisStore`: what all replicas must agree on at once. Nothing here is the only copy of anything.

Keys start with `oc:` and carry a hash tag, so that everything of one user, or of one gateway, lies in one slot of a
Redis Cluster: `oc:{<hash of the user>}:…`, `oc:{gw:<gateway>}:…`, `oc:{<name>}:…`. User ids and run ids are only
there as hashes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from sidecar.errors import ConfigurationError, Problem, StorageAway
from sidecar.storage.availability import Availability, ReportState, silent
from sidecar.storage.redis_pipeline import Pipeline, Script

_TAKE_LEASE = Script("take_lease")
_RENEW_LEASE = Script("renew_lease")
_RELEASE_LEASE = Script("release_lease")
_PASS_GATE = Script("pass_gate")
_RELEASE_DEAD_RUNS = Script("release_dead_runs")
_RENEW_RUNS = Script("renew_runs")
_CLAIM_RUN = Script("claim_run")


@dataclass(frozen=True, slots=True)
class RedisOptions:
    url: str
    """`redis://`, `rediss://` or `unix://`, as redis-py reads it."""

    connect_timeout: float = 2.0
    """Seconds for a new connection."""

    answer_timeout: float = 3.0
    """Seconds for one round trip, with the connection where one has to be made."""


class RedisStore:
    """Connects when it is needed and recovers by itself.

    Every method raises StorageAway while the server does not serve. All calls are safe to repeat. Times are
    milliseconds. `report` hears when the server goes away and comes back.
    """

    def __init__(self, options: RedisOptions, report: ReportState = silent) -> None:
        self._availability = Availability("redis", report)
        self._client = _client(options)
        self._pipeline = Pipeline(self._client, options.answer_timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._pipeline.close()
        await self._client.aclose()

    @property
    def up(self) -> bool:
        """Whether the last call was answered."""
        return self._availability.up

    async def ping(self) -> None:
        await self._command("PING")

    async def acquire(self, name: str, owner: str, ttl_ms: int) -> bool:
        """Take the lease `name`, or keep it where `owner` has it. `gw:<id>` is a good name for a gateway's."""
        return bool(await self._script(_TAKE_LEASE, _lease(name), owner, ttl_ms))

    async def renew(self, name: str, owner: str, ttl_ms: int) -> bool:
        """False: the lease is lost, and another may hold it."""
        return bool(await self._script(_RENEW_LEASE, _lease(name), owner, ttl_ms))

    async def release(self, name: str, owner: str) -> bool:
        """Give the lease back; False where it was lost before. Another owner's stays."""
        return bool(await self._script(_RELEASE_LEASE, _lease(name), owner))

    async def is_held(self, name: str) -> bool:
        """Whether anybody has the lease."""
        return bool(await self._command("EXISTS", _lease(name)))

    async def pass_gate(self, name: str, interval_ms: int) -> int:
        """0: go, and nobody else for `interval_ms`; else the milliseconds to wait before asking again."""
        return int(await self._script(_PASS_GATE, f"oc:{{{name}}}:gate", interval_ms))

    async def release_dead_runs(self, user_id: str, gateway_id: str, living: Iterable[str], ends_ms: int) -> int:
        """All runs of the user on one gateway are over but `living`, and those that would end by themselves after `ends_ms`.

        How many were counted still.
        """
        members = [member(gateway_id, run_id) for run_id in living]
        return int(await self._script(_RELEASE_DEAD_RUNS, runs_key(user_id), gateway_id, ends_ms, *members))

    async def renew_runs(self, user_id: str, gateway_id: str, run_ids: Iterable[str], ttl_ms: int, now_ms: int) -> int:
        """Let live runs live `ttl_ms` from now; how many of them there were. Ended ones stay ended."""
        members = [member(gateway_id, run_id) for run_id in run_ids]
        return int(await self._script(_RENEW_RUNS, runs_key(user_id), ttl_ms, now_ms, *members)) if members else 0

    async def claim_run(self, gateway_id: str, run_id: str, user_id: str, ttl_ms: int) -> bool:
        """True: the id is this user's, now or already. False: another's."""
        return bool(await self._script(_CLAIM_RUN, _run(gateway_id, run_id), digest(user_id), ttl_ms))

    async def owner_is(self, gateway_id: str, run_id: str, user_id: str) -> bool:
        """Whether this user claimed the id. Claims nothing."""
        return bool(await self._command("GET", _run(gateway_id, run_id)) == digest(user_id))

    async def claim_handle(self, gateway_id: str, kind: str, handle: str, owner: str, ttl_ms: int) -> bool:
        """As `claim_run`, for the id of another kind of object."""
        return bool(await self._script(_CLAIM_RUN, _handle(gateway_id, kind, handle), digest(owner), ttl_ms))

    async def owns_handle(self, gateway_id: str, kind: str, handle: str, owner: str) -> bool:
        """As `owner_is`."""
        return bool(await self._command("GET", _handle(gateway_id, kind, handle)) == digest(owner))

    async def script(self, script: Script, keys: tuple[str, ...], *arguments: str | int) -> Any:
        """For stores of their own subject that share this connection."""
        try:
            reply = await self._pipeline.script(script, keys, *arguments)
        except StorageAway as error:
            self._availability.away(error.message)
            raise
        self._availability.answered()
        return reply

    async def _script(self, script: Script, key: str, *arguments: str | int) -> Any:
        return await self.script(script, (key,), *arguments)

    async def _command(self, *words: str | int) -> Any:
        try:
            reply = await self._pipeline.command(*words)
        except StorageAway as error:
            self._availability.away(error.message)
            raise
        self._availability.answered()
        return reply


def _client(options: RedisOptions) -> Redis:
    """Two connections: one for the pipeline, one spare while a broken one is given up.

    One repetition after a lost connection: after a restart of the server the first call finds the old connection dead.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            options.url,
            max_connections=2,
            timeout=options.connect_timeout,
            socket_connect_timeout=options.connect_timeout,
            socket_timeout=options.answer_timeout,
            decode_responses=True,
            retry=Retry(ConstantBackoff(0.02), 1, supported_errors=(RedisConnectionError,)),
        )
    except ValueError:
        raise ConfigurationError(
            [Problem("storage.redis_url", "is no Redis URL", "write redis://host:6379/0, rediss:// or unix://")]
        ) from None
    return Redis.from_pool(pool)


def digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _lease(name: str) -> str:
    return f"oc:{{{name}}}:lease"


def runs_key(user_id: str) -> str:
    return f"oc:{{{digest(user_id)[:16]}}}:runs"


def _run(gateway_id: str, run_id: str) -> str:
    return f"oc:{{gw:{gateway_id}}}:run:{digest(run_id)}"


def _handle(gateway_id: str, kind: str, handle: str) -> str:
    return f"oc:{{gw:{gateway_id}}}:{kind}:{digest(handle)}"


def member(gateway_id: str, run_id: str) -> str:
    return f"{gateway_id}:{digest(run_id)}"
