"""The composition root: makes every room, hands each what it needs, and ends them in the order that loses nothing.

start     telemetry, secret, engines, migrations, issuers' keys, gateways, listeners
stop      no new sockets, open ones drained, gateways, database, engines; each step bounded, each told in the log
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from sidecar.api.health import Check, Health
from sidecar.api.status import Status
from sidecar.environments.provisioning import Provisioner
from sidecar.environments.service import EnvironmentOptions, Environments
from sidecar.errors import EngineError, SidecarError
from sidecar.gateways.admin import AdminConnection, State
from sidecar.gateways.configuration import AgentOptions
from sidecar.gateways.handles import Handles
from sidecar.gateways.options import GatewayOptions
from sidecar.identity.fetch import HttpFetch
from sidecar.identity.options import IssuerOptions
from sidecar.identity.verifier import Verifier
from sidecar.policy.table import Table, read_table
from sidecar.quota.runs import RunOptions, Runs
from sidecar.relay.door import Door
from sidecar.relay.ports import Rooms
from sidecar.relay.server import House, HouseOptions
from sidecar.settings import Settings
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.redis import RedisOptions, RedisStore
from sidecar.storage.schema import migrate
from sidecar.storage.seal import load_seal
from sidecar.telemetry.facts import EngineState, Unexpected
from sidecar.telemetry.metrics import CONTENT_TYPE
from sidecar.telemetry.reporter import Telemetry

TABLES = Path(__file__).parent / "policy"
IDLE_SECONDS = 30
"""How long a connection may stay without a request: who has not even asked costs no more than this."""


@dataclass(slots=True)
class App:
    """A running sidecar."""

    url: str
    metrics_url: str
    house: House
    telemetry: Telemetry
    engines: EmbeddedEngines
    doors: dict[str, Door]


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError and EngineError before anything listens."""
    _allow_open_files()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as app:
        print(f"openclaw-sidecar listens on {app.url}, metrics on {app.metrics_url}", flush=True)  # noqa: T201 - for people
        await stop.wait()


@contextlib.asynccontextmanager
async def serving(
    settings: Settings, clock: Callable[[], float] = time.time, *, tables: Sequence[Table] | None = None
) -> AsyncIterator[App]:
    """A sidecar that serves as long as the context lasts; leaving it drains. `tables`: the policy, None for those that ship."""
    policy = shipped_tables() if tables is None else tables
    async with contextlib.AsyncExitStack() as stack:
        telemetry = Telemetry(clock)
        asyncio.get_running_loop().set_exception_handler(telemetry.on_loop_exception)
        report_engine = _engine_reporter(telemetry)
        storage = settings.storage
        seal = load_seal(storage.data_dir, storage.secret.get_secret_value())
        engines = await stack.enter_async_context(
            EmbeddedEngines(
                storage.data_dir,
                report_engine,
                postgres=not storage.database_url.get_secret_value(),
                redis=not storage.redis_url.get_secret_value(),
            )
        )
        database_url = storage.database_url.get_secret_value() or engines.database_url
        await migrate(database_url)
        database = await stack.enter_async_context(Database(DatabaseOptions(database_url), report_engine))
        redis_url = storage.redis_url.get_secret_value() or engines.redis_url
        redis = await stack.enter_async_context(RedisStore(RedisOptions(redis_url), report_engine))
        telemetry.start(database)
        stack.push_async_callback(telemetry.stop)
        verifier = await _verifier(settings, clock, telemetry, stack)
        doors = {
            row.id: await _door(settings, row_options, policy, (database, redis), telemetry, seal, clock, stack)
            for row, row_options in zip(settings.gateways, gateway_options(settings), strict=True)
        }
        environments = _environments(settings, database, doors, clock)
        rooms = Rooms(verifier.verify, environments.ready, doors.__getitem__, telemetry.report)
        house = House(rooms, _house_options(settings), telemetry.report, clock)
        health = Health(lambda: _checks(database, redis, verifier, doors))
        status = Status(verifier.verify, environments.find, doors.get, telemetry.report)
        url = await _listen(stack, settings.server.host, settings.server.port, _routes(house, health, status))
        metrics_url = await _listen(
            stack, settings.server.host, settings.server.metrics_port, _operators_routes(telemetry, health)
        )
        try:
            yield App(url, metrics_url, house, telemetry, engines, doors)
        finally:
            health.draining = True
            await house.drain()


def _allow_open_files() -> None:
    """As many as the system lets us have: each user is two sockets."""
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _engine_reporter(telemetry: Telemetry) -> Callable[[str, str, str], None]:
    return lambda engine, state, why: telemetry.report(EngineState(engine, state, why))


async def _verifier(
    settings: Settings, clock: Callable[[], float], telemetry: Telemetry, stack: contextlib.AsyncExitStack
) -> Verifier:
    fetch = HttpFetch()
    stack.push_async_callback(fetch.aclose)
    verifier = Verifier(issuer_options(settings), fetch, clock, telemetry.report)
    stack.push_async_callback(verifier.aclose)
    await verifier.warm()
    return verifier


def issuer_options(settings: Settings) -> list[IssuerOptions]:
    """Each issuer of the settings, in their order."""
    return [
        IssuerOptions(
            name=row.name,
            issuer=row.issuer,
            audience=row.audience,
            jwks_url=row.jwks_url,
            algorithms=row.algorithms,
            user_claim=row.user_claim,
            roles_claim=row.roles_claim,
            leeway_seconds=row.leeway_seconds,
            readable_ids=row.readable_ids,
        )
        for row in settings.identity.issuers
    ]


def gateway_options(settings: Settings) -> list[GatewayOptions]:
    """How each gateway of the settings is reached, in their order."""
    return [
        GatewayOptions(
            id=row.id,
            url=row.url,
            auth=row.auth,
            user_header=row.user_header,
            password=row.password.get_secret_value(),
            admin_user=row.admin_user,
            token=row.token.get_secret_value(),
            public_origin=settings.server.public_url,
            shared_agent=row.shared_agent if row.namespace == "shared-agent" else "",
            shared_tools_allow=row.shared_tools_allow,
            accepts_workspace=row.accepts_workspace,
            allow_open_gateway=row.allow_open_gateway,
            trusted_versions=row.trusted_versions,
        )
        for row in settings.gateways
    ]


async def _door(
    settings: Settings,
    gateway: GatewayOptions,
    tables: Sequence[Table],
    stores: tuple[Database, RedisStore],
    telemetry: Telemetry,
    seal: bytes,
    clock: Callable[[], float],
    stack: contextlib.AsyncExitStack,
) -> Door:
    database, redis = stores
    if gateway.auth != "trusted-proxy":
        tables = [table.without_profiles() for table in tables]
    admin = AdminConnection(gateway, tables, telemetry.report, lambda error: _unexpected(telemetry, "gateways", error))
    shared = bool(gateway.shared_agent)
    tools_allow = gateway.shared_tools_allow if shared else settings.environments.tools_allow
    options = AgentOptions(tools_allow, settings.environments.model_allow, shared=shared)
    makers = Provisioner(
        admin,
        redis,
        options,
        telemetry.report,
        owner=secrets.token_hex(8),
        root=settings.environments.root,
        roster=lambda: database.agents_on(gateway.id),
    )
    runs = Runs(gateway.id, redis, RunOptions(settings.quota.concurrent_runs), seal, clock)
    handles = Handles(gateway.id, redis)
    for work in (admin.run, makers.run, runs.run, handles.run):
        await _kept(stack, work, telemetry)
    return Door(gateway, admin, makers, runs, handles, seal)


def shipped_tables() -> list[Table]:
    """The policy that this version brings, one table per range of gateway versions."""
    return [read_table(path.read_bytes()) for path in sorted(TABLES.glob("gateway-*.toml"))]


async def _kept(stack: contextlib.AsyncExitStack, work: Callable[[], Awaitable[None]], telemetry: Telemetry) -> None:
    """A task that lasts until the stack unwinds. A defect in it is told, and it begins again."""

    async def keep() -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - a task that ended would be a sidecar that looks alive
                _unexpected(telemetry, "app", error)
            await asyncio.sleep(1)

    task = asyncio.create_task(keep())

    async def end() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


def _unexpected(telemetry: Telemetry, where: str, error: Exception) -> None:
    telemetry.report(Unexpected(where, type(error).__name__))


def _environments(
    settings: Settings, database: Database, doors: dict[str, Door], clock: Callable[[], float]
) -> Environments:
    wanted = settings.environments
    local = Path(wanted.local_root or wanted.root)
    options = EnvironmentOptions(
        root=wanted.root,
        local_root=local if wanted.local_root or (local.is_dir() and os.access(local, os.W_OK)) else None,
        readable_issuer=next((row.name for row in settings.identity.issuers if row.readable_ids), ""),
        layouts={gateway_id: door.gateway.layout for gateway_id, door in doors.items()},
    )
    makers = {gateway_id: door.makers for gateway_id, door in doors.items()}
    return Environments(
        database,
        makers,
        lambda: _for_new_users(doors),
        options,
        clock,
    )


def _for_new_users(doors: dict[str, Door]) -> list[str]:
    """Where runs start, while there is such a gateway."""
    ready = [gateway_id for gateway_id, door in doors.items() if door.admin.state is State.READY]
    return ready or [gateway_id for gateway_id, door in doors.items() if door.admin.serves]


def _house_options(settings: Settings) -> HouseOptions:
    server = settings.server
    return HouseOptions(
        origins=server.origins,
        trusted_proxies=server.trusted_proxies,
        max_connections=server.max_connections,
        max_connections_per_user=server.max_connections_per_user,
        max_unauthenticated_per_address=server.max_unauthenticated_per_address,
        drain_seconds=server.drain_seconds,
        slow_client_seconds=server.slow_client_seconds,
    )


def _checks(database: Database, redis: RedisStore, verifier: Verifier, doors: dict[str, Door]) -> list[Check]:
    async def issuers() -> str:
        return "" if verifier.ready() else "no issuer's keys are known"

    async def any_gateway() -> str:
        whys = [await door.why_not_ready() for door in doors.values()]
        return "" if "" in whys else "; ".join(whys)

    return [
        Check("postgres", lambda: _answers(database.ping)),
        Check("redis", lambda: _answers(redis.ping)),
        Check("issuers", issuers),
        Check("gateways", any_gateway),
        *(
            Check(f"gateway:{gateway_id}", door.why_not_ready, required=False, doubt=door.doubt)
            for gateway_id, door in doors.items()
        ),
    ]


async def _answers(ping: Callable[[], Awaitable[None]]) -> str:
    try:
        await ping()
    except SidecarError as error:
        return error.message
    return ""


def _routes(house: House, health: Health, status: Status) -> list[web.RouteDef]:
    return [
        web.get("/", house.accept),
        web.get("/ws", house.accept),
        web.get("/healthz", health.alive),
        web.get("/readyz", health.ready),
        web.get("/api/openclaw/status", status.get),
    ]


def _operators_routes(telemetry: Telemetry, health: Health) -> list[web.RouteDef]:
    async def metrics(request: web.Request) -> web.Response:  # noqa: ARG001 - an aiohttp handler
        return web.Response(body=telemetry.metrics.render(), headers={"content-type": CONTENT_TYPE})

    return [web.get("/metrics", metrics), web.get("/readyz", health.explained)]


async def _listen(stack: contextlib.AsyncExitStack, host: str, port: int, routes: list[web.RouteDef]) -> str:
    """Listen until the stack unwinds; the URL. Raises EngineError where the address is taken."""
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(
        application, access_log=None, handle_signals=False, shutdown_timeout=2, keepalive_timeout=IDLE_SECONDS
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise EngineError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port in [server]"
        ) from None
    bound = runner.addresses[0][1]
    return f"http://{f'[{host}]' if ':' in host else host}:{bound}"
