"""Which paths are answered, and where."""

from __future__ import annotations

import contextlib

from aiohttp import web

from sidecar.api.bearer import Bearers
from sidecar.api.health import Health
from sidecar.api.reports import Reports
from sidecar.api.status import Status
from sidecar.errors import EngineError
from sidecar.relay.server import House
from sidecar.telemetry.metrics import CONTENT_TYPE
from sidecar.telemetry.reporter import Telemetry

IDLE_SECONDS = 30
"""How long a connection may stay without a request: who has not even asked costs no more than this."""


def routes(house: House, health: Health, bearers: Bearers, status: Status, reports: Reports) -> list[web.RouteDef]:
    return [
        web.get("/", house.accept),
        web.get("/ws", house.accept),
        web.get("/healthz", health.alive),
        web.get("/readyz", health.ready),
        web.get("/api/openclaw/status", bearers.only(status.get)),
        web.get("/api/openclaw/quota", bearers.only(reports.quota)),
        web.get("/api/openclaw/usage", bearers.only(reports.usage)),
        web.get("/api/openclaw/usage.csv", bearers.only(reports.usage_csv)),
        web.get("/api/openclaw/alerts", bearers.only(reports.alerts)),
        web.post("/api/openclaw/alerts/{id}/acknowledge", bearers.only(reports.acknowledge)),
        web.post("/api/openclaw/alerts/{id}/resolve", bearers.only(reports.resolve)),
    ]


def operators_routes(telemetry: Telemetry, health: Health) -> list[web.RouteDef]:
    async def metrics(request: web.Request) -> web.Response:  # noqa: ARG001 - an aiohttp handler
        return web.Response(body=telemetry.metrics.render(), headers={"content-type": CONTENT_TYPE})

    return [web.get("/metrics", metrics), web.get("/readyz", health.explained)]


async def listen(stack: contextlib.AsyncExitStack, host: str, port: int, routes: list[web.RouteDef]) -> str:
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
