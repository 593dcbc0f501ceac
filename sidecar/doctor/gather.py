"""Reads what the checks judge: gateways over the sidecar's own kind of connection, issuers, engines, the data folder.

Nothing here changes anything, and nothing waits long: each thing that is away is told as away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sidecar.doctor.agents import known_agents
from sidecar.doctor.reach import first_word, is_here, own_addresses, reach
from sidecar.doctor.reading import EngineSeen, Expected, FolderSeen, GatewaySeen, IssuerSeen, Reach
from sidecar.doctor.shape import member
from sidecar.errors import EngineError, GatewayAway, IdentityAway, SidecarError
from sidecar.gateways.greeting import greet_as_admin
from sidecar.gateways.options import ADMIN_SCOPES, GatewayOptions
from sidecar.gateways.rpc import RequestRefused, Rpc
from sidecar.identity.fetch import Fetch
from sidecar.identity.jwks import fetch_keys
from sidecar.identity.options import IssuerOptions
from sidecar.protocol import frames
from sidecar.storage.engines import postgres, valkey
from sidecar.storage.engines.look import holder
from sidecar.storage.engines.running import running_database_url, running_redis_url
from sidecar.storage.probe import StoreLook, look_at_postgres, look_at_redis, newest_revision

CLOSE_SECONDS = 3.0
MIN_SEAL_BYTES = 32
SAMPLE = 5
"""Users' agents of which the gateway is asked what it would offer them; what the configuration says is looked at for all."""


@dataclass(frozen=True, slots=True)
class Admin:
    """A connection as the sidecar makes it for itself, and what its hello said."""

    rpc: Rpc
    hello: Mapping[str, Any]

    @property
    def version(self) -> str:
        return str(member(self.hello, "server.version") or "")


def ignored(error: Exception) -> None:
    """For sockets: what fails there is seen in the answer that does not come."""


@contextlib.asynccontextmanager
async def admin_of(gateway: GatewayOptions) -> AsyncIterator[Admin]:
    """Connected until the block ends. Raises GatewayAway."""
    upstream = await greet_as_admin(gateway, ADMIN_SCOPES, ignored)
    rpc = Rpc(upstream, lambda _: None)
    try:
        yield Admin(rpc, upstream.hello)
    finally:
        rpc.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await rpc.wait_closed()


async def skew(url: str, clock: Callable[[], float] = time.time) -> float | None:
    """Seconds that the gateway's clock is ahead of ours, by the challenge with which it greets everybody (the `ts` of `health` may
    be a minute old, 2026.9.6); None where there is none."""
    try:
        first = frames.parse(await first_word(url, {}, ignored)) or {}
    except (SidecarError, TimeoutError, ConnectionResetError):
        return None
    stamp = member(first, "payload.ts")
    return stamp / 1000 - clock() if isinstance(stamp, int) else None


async def gateway(expected: Expected, admin: Admin, ahead: float | None, around: Reach | None) -> GatewaySeen:
    """`ahead` as `skew` says, `around` as `around`. Raises GatewayAway."""
    answer = await admin.rpc.request("config.get", {})
    answer = answer if isinstance(answer, dict) else {}
    effective, source = (_object(answer.get(name)) for name in ("config", "sourceConfig"))
    valid = answer.get("valid") is not False and bool(effective)
    included = answer.get("includedPaths")
    owned = answer.get("agentRosterIncludeOwned") is True and isinstance(included, list)
    plugins = member(_object(member(admin.hello, "snapshot.health")), "plugins.loaded")
    return GatewaySeen(
        version=admin.version,
        valid=valid,
        effective=effective,
        source=source or effective,
        includes=len(included) if owned and isinstance(included, list) else 0,
        skew=ahead,
        plugins=tuple(str(one) for one in plugins) if isinstance(plugins, list) else (),
        state_dir=str(member(admin.hello, "snapshot.stateDir") or ""),
        log_file=await log_file(admin),
        offered=await _offered(expected, admin, source or effective),
        reach=around,
        cpus=len(os.sched_getaffinity(0)) if expected.local else 0,
    )


async def log_file(admin: Admin) -> str:
    """Where the gateway writes its log; empty where it does not say."""
    with contextlib.suppress(GatewayAway, RequestRefused):
        answer = await admin.rpc.request("logs.tail", {"limit": 1})
        return str(member(_object(answer), "file") or "")
    return ""


async def _offered(expected: Expected, admin: Admin, source: Mapping[str, Any]) -> dict[str, list[str]]:
    """`tools.effective` wants a session that is there, so agents without one are passed over."""
    offered: dict[str, list[str]] = {}
    for slug in list(known_agents(expected, source)):
        if len(offered) == SAMPLE:
            break
        with contextlib.suppress(GatewayAway):
            listed = await admin.rpc.request("sessions.list", {"agentId": slug, "limit": 1})
            key = next((row.get("key") for row in _rows(listed, "sessions")), None)
            if isinstance(key, str):
                offered[slug] = tools_of(await admin.rpc.request("tools.effective", {"sessionKey": key}))
    return offered


def tools_of(answer: Any) -> list[str]:
    """The ids in what `tools.effective` and `tools.catalog` answer."""
    tools = [tool for group in _rows(answer, "groups") for tool in _rows(group, "tools")]
    return [str(tool["id"]) for tool in tools if "id" in tool]


def _rows(answer: Any, name: str) -> list[dict[str, Any]]:
    rows = answer.get(name) if isinstance(answer, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


async def around(url: str) -> Reach | None:
    """Who else reaches the gateway's port; None where it is on another host."""
    own = await asyncio.to_thread(own_addresses)
    return await reach(url, own, ignored) if await is_here(url, own) else None


async def issuer(options: IssuerOptions, fetch: Fetch) -> IssuerSeen:
    """Its keys, fetched now."""
    pinned = bool(options.jwks_url)
    try:
        keys = await fetch_keys(options, fetch)
    except (IdentityAway, ValueError) as error:
        why = error.message if isinstance(error, SidecarError) else f"its keys cannot be read: {error}"
        return IssuerSeen(options.name, tuple(options.algorithms), why=why, pinned=pinned)
    found = [tuple(sorted(key.algorithms)) for key in keys]
    why = "" if found else "it publishes no key that can be used"
    return IssuerSeen(options.name, tuple(options.algorithms), keys=found, why=why, pinned=pinned)


async def engines(database_url: str, redis_url: str, data_dir: Path) -> list[EngineSeen]:
    """PostgreSQL, then Redis; an empty URL stands for the embedded one."""
    return [await _postgres(database_url, data_dir), await _redis(redis_url, data_dir)]


async def _postgres(url: str, data_dir: Path) -> EngineSeen:
    newest = await asyncio.to_thread(newest_revision)
    try:
        look = await look_at_postgres(url or running_database_url(data_dir))
    except SidecarError as error:
        return _away("postgres", error, data_dir, postgres.find_binaries, embedded=not url)
    return _seen("postgres", look, embedded=not url, newest=newest)


async def _redis(url: str, data_dir: Path) -> EngineSeen:
    try:
        look = await look_at_redis(url or running_redis_url(data_dir))
    except SidecarError as error:
        return _away("redis", error, data_dir, valkey.find_binary, embedded=not url)
    return _seen("redis", look, embedded=not url)


def _seen(name: Literal["postgres", "redis"], look: StoreLook, *, embedded: bool, newest: str = "") -> EngineSeen:
    return EngineSeen(
        name=name,
        embedded=embedded,
        answers=True,
        version=look.version,
        skew=look.skew,
        revision=look.revision,
        newest=newest,
        eviction=look.eviction,
    )


def _away(
    name: Literal["postgres", "redis"],
    error: SidecarError,
    data_dir: Path,
    find: Callable[[], Path],
    *,
    embedded: bool,
) -> EngineSeen:
    """An embedded engine that nobody runs is no outage, if it could be run."""
    if not embedded or holder(data_dir):
        return EngineSeen(name, embedded, answers=False, why=error.message)
    try:
        find()
    except EngineError as missing:
        return EngineSeen(name, embedded, answers=False, why=missing.message, running=False)
    return EngineSeen(name, embedded, answers=False, running=False)


def folder(data_dir: Path, *, seal_given: bool) -> FolderSeen:
    """Modes and who holds it. The secret is looked at, not kept."""
    path = data_dir.absolute()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return FolderSeen(str(path), exists=False, seal="given" if seal_given else "missing")
    state, seal_mode = _seal(path / "secret")
    if seal_given:
        state, seal_mode = "given", 0
    return FolderSeen(str(path), exists=True, mode=mode, holder=holder(path), seal=state, seal_mode=seal_mode)


def _seal(path: Path) -> tuple[Literal["given", "kept", "missing", "unreadable"], int]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        return ("kept" if len(path.read_bytes().strip()) >= MIN_SEAL_BYTES else "unreadable"), mode
    except FileNotFoundError:
        return "missing", 0
    except OSError:
        return "unreadable", 0
