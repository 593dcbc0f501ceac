"""The composition root: makes every room, hands each what it needs, and ends them in the order that loses nothing.

start     telemetry, secret, engines, migrations, issuers' keys, gateways, listeners
stop      no new sockets, open ones drained, gateways, database, engines; each step bounded, each told in the log
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from sidecar.api.bearer import Bearers
from sidecar.api.health import Check, Health
from sidecar.api.reports import Reports
from sidecar.api.status import Status
from sidecar.environments.provisioning import Provisioner
from sidecar.environments.service import EnvironmentOptions, Environments
from sidecar.errors import SidecarError
from sidecar.gateways.admin import AdminConnection, State
from sidecar.gateways.configuration import AgentOptions
from sidecar.gateways.handles import Handles
from sidecar.gateways.options import GatewayOptions
from sidecar.identity.fetch import HttpFetch
from sidecar.identity.verifier import Verifier
from sidecar.listening import listen, operators_routes, routes
from sidecar.options import gateway_options, house_options, issuer_options, prices, quota_options
from sidecar.policy.table import Table, read_table
from sidecar.quota.accounts import Accounts
from sidecar.quota.runs import Runs
from sidecar.quota.watch import Watch
from sidecar.relay.cutting import Cutter
from sidecar.relay.door import Door
from sidecar.relay.ports import Rooms
from sidecar.relay.server import House
from sidecar.settings import Settings
from sidecar.storage.accounts import AccountStore
from sidecar.storage.embedded import EmbeddedEngines
from sidecar.storage.ledger import Ledger, months_ahead
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.quotas import QuotaBook
from sidecar.storage.redis import RedisOptions, RedisStore
from sidecar.storage.schema import migrate
from sidecar.storage.seal import load_seal
from sidecar.storage.spool import Spool
from sidecar.telemetry.facts import EngineState, Unexpected
from sidecar.telemetry.reporter import Telemetry
from sidecar.usage.alerts import Alerts
from sidecar.usage.collector import Collector, Ports
from sidecar.usage.estimates import Estimates
from sidecar.usage.keeping import keep_partitions
from sidecar.usage.open_runs import OpenRuns
from sidecar.usage.prices import Prices
from sidecar.usage.transcripts import Transcripts
from sidecar.usage.webhook import Webhook
from sidecar.usage.writer import Writer

TABLES = Path(__file__).parent / "policy"


@dataclass(slots=True)
class App:
    """A running sidecar."""

    url: str
    metrics_url: str
    house: House
    telemetry: Telemetry
    doors: dict[str, Door]


@dataclass(frozen=True, slots=True)
class Stores:
    """What all gateways of this process share."""

    database: Database
    redis: RedisStore
    ledger: Ledger
    writer: Writer
    book: QuotaBook
    accounts: dict[str, Accounts] = field(default_factory=dict)
    """By gateway id."""


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
        seal = load_seal(settings.storage.data_dir, settings.storage.secret.get_secret_value())
        stores = await _stores(settings, telemetry, clock, stack)
        await _webhook(settings, stores, telemetry, clock, stack)
        verifier = await _verifier(settings, clock, telemetry, stack)
        doors = {
            row.id: await _door(settings, row_options, policy, stores, telemetry, seal, clock, stack)
            for row, row_options in zip(settings.gateways, gateway_options(settings), strict=True)
        }
        environments = _environments(settings, stores.database, doors, clock)
        rooms = Rooms(verifier.verify, environments.ready, doors.__getitem__, telemetry.report)
        house = House(rooms, house_options(settings), telemetry.report, clock)
        health = Health(lambda: _checks(stores, verifier, doors))
        bearers = Bearers(verifier.verify, telemetry.report)
        status = Status(environments.find, doors.get)
        reports = Reports(stores.ledger, stores.book, stores.accounts, ZoneInfo(settings.quota.timezone), clock)
        url = await listen(
            stack, settings.server.host, settings.server.port, routes(house, health, bearers, status, reports)
        )
        metrics_url = await listen(
            stack, settings.server.host, settings.server.metrics_port, operators_routes(telemetry, health)
        )
        try:
            yield App(url, metrics_url, house, telemetry, doors)
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


async def _webhook(
    settings: Settings,
    stores: Stores,
    telemetry: Telemetry,
    clock: Callable[[], float],
    stack: contextlib.AsyncExitStack,
) -> None:
    hook = settings.quota.webhook
    if hook.url:
        secret = hook.secret.get_secret_value().encode()
        await _kept(stack, Webhook(hook.url, secret, stores.book, telemetry.report, clock).run, telemetry)


async def _stores(
    settings: Settings, telemetry: Telemetry, clock: Callable[[], float], stack: contextlib.AsyncExitStack
) -> Stores:
    """PostgreSQL and Redis, embedded where no address is set, and what stands on them. Raises EngineError."""
    storage, report = settings.storage, _engine_reporter(telemetry)
    database_url, redis_url = storage.database_url.get_secret_value(), storage.redis_url.get_secret_value()
    engines = await stack.enter_async_context(
        EmbeddedEngines(storage.data_dir, report, postgres=not database_url, redis=not redis_url)
    )
    database_url = database_url or engines.database_url
    await migrate(database_url)
    database = await stack.enter_async_context(Database(DatabaseOptions(database_url), report))
    redis = await stack.enter_async_context(RedisStore(RedisOptions(redis_url or engines.redis_url), report))
    telemetry.start(database)
    stack.push_async_callback(telemetry.stop)
    ledger = Ledger(database)
    return Stores(
        database, redis, ledger, await _writer(settings, ledger, telemetry, clock, stack), QuotaBook(database)
    )


async def _writer(
    settings: Settings,
    ledger: Ledger,
    telemetry: Telemetry,
    clock: Callable[[], float],
    stack: contextlib.AsyncExitStack,
) -> Writer:
    """The way into the ledger, and the months of the ledger itself."""
    usage = settings.usage
    spool = stack.enter_context(Spool(settings.storage.data_dir / "spool", usage.spool_max_mb * 1_000_000))
    writer = Writer(ledger, spool, telemetry.report)
    await _kept(stack, writer.run, telemetry)
    await _kept(
        stack,
        lambda: keep_partitions(ledger, months_ahead, usage.retention_months, clock, telemetry.report),
        telemetry,
    )
    return writer


async def _door(
    settings: Settings,
    gateway: GatewayOptions,
    tables: Sequence[Table],
    stores: Stores,
    telemetry: Telemetry,
    seal: bytes,
    clock: Callable[[], float],
    stack: contextlib.AsyncExitStack,
) -> Door:
    if gateway.auth != "trusted-proxy":
        tables = [table.without_profiles() for table in tables]
    admin = AdminConnection(gateway, tables, telemetry.report, lambda error: _unexpected(telemetry, "gateways", error))
    owner = secrets.token_hex(8)
    makers = _makers(settings, gateway, admin, stores, telemetry, owner)
    accounts = _accounts(settings, gateway, stores, telemetry, clock)
    runs = Runs(gateway.id, stores.redis, accounts, seal, clock)
    handles = Handles(gateway.id, stores.redis)
    collector = _collector(settings, gateway, admin, stores, accounts, telemetry, owner, clock)
    accounts.metered = collector.metered
    collector.endings.on_dead.append(runs.ended)
    alerts = Alerts(gateway.id, stores.book, accounts.options, telemetry.report, clock)
    watch = Watch(runs, gateway.layout)
    cutter = Cutter(gateway.id, admin, watch.sessions_of, accounts.options, telemetry.report, clock)
    accounts.on_standing += [alerts.stands, cutter.stands]
    door = Door(gateway, admin, makers, runs, handles, collector, watch, seal)
    alerts.on_alert.append(door.tell_alert)
    rooms = (collector, admin, makers, runs, handles, accounts, alerts, cutter)
    for room in rooms:
        await _kept(stack, room.run, telemetry)
    return door


def _makers(
    settings: Settings,
    gateway: GatewayOptions,
    admin: AdminConnection,
    stores: Stores,
    telemetry: Telemetry,
    owner: str,
) -> Provisioner:
    shared = bool(gateway.shared_agent)
    tools_allow = gateway.shared_tools_allow if shared else settings.environments.tools_allow
    return Provisioner(
        admin,
        stores.redis,
        AgentOptions(tools_allow, settings.environments.model_allow, shared=shared),
        telemetry.report,
        owner=owner,
        root=settings.environments.root,
        roster=lambda: stores.database.agents_on(gateway.id),
    )


def _accounts(
    settings: Settings, gateway: GatewayOptions, stores: Stores, telemetry: Telemetry, clock: Callable[[], float]
) -> Accounts:
    store, options = AccountStore(stores.redis), quota_options(settings)
    accounts = Accounts(gateway.id, store, stores.ledger, stores.book, options, telemetry.report, clock)
    stores.accounts[gateway.id] = accounts
    stores.writer.on_recorded.append(
        lambda calls: accounts.recorded([call for call in calls if call.gateway_id == gateway.id])
    )
    return accounts


def _collector(
    settings: Settings,
    gateway: GatewayOptions,
    admin: AdminConnection,
    stores: Stores,
    accounts: Accounts,
    telemetry: Telemetry,
    owner: str,
    clock: Callable[[], float],
) -> Collector:
    estimates, table = Estimates(gateway.id, stores.ledger, settings.quota.estimate_tokens), Prices(prices(settings))
    months = settings.usage.retention_months
    transcripts = Transcripts(gateway.id, gateway.layout, admin, estimates, table, telemetry.report, clock, months)
    open_runs = OpenRuns(gateway.id, gateway.layout, stores.ledger, clock)
    ports = Ports(stores.redis, stores.ledger, stores.writer, accounts, transcripts, open_runs)
    return Collector(gateway.id, ports, telemetry.report, owner)


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


def _checks(stores: Stores, verifier: Verifier, doors: dict[str, Door]) -> list[Check]:
    async def issuers() -> str:
        return "" if verifier.ready() else "no issuer's keys are known"

    async def any_gateway() -> str:
        whys = [await door.why_not_ready() for door in doors.values()]
        return "" if "" in whys else "; ".join(whys)

    closes = any(accounts.options.closes for accounts in stores.accounts.values())
    return [
        Check("postgres", lambda: _answers(stores.database.ping)),
        Check("redis", lambda: _answers(stores.redis.ping), required=closes),
        Check("issuers", issuers),
        Check("gateways", any_gateway),
        *(
            Check(f"gateway:{gateway_id}", door.why_not_ready, required=False, doubt=door.doubt)
            for gateway_id, door in doors.items()
        ),
        *(
            Check(f"quotas:{gateway_id}", functools.partial(accounts.why_blind, stores.redis.ping), required=False)
            for gateway_id, accounts in stores.accounts.items()
        ),
    ]


async def _answers(ping: Callable[[], Awaitable[None]]) -> str:
    try:
        await ping()
    except SidecarError as error:
        return error.message
    return ""
