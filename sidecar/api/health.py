"""`/healthz`: this process turns its loop. `/readyz`: a user who comes now is served, and if not, why.

Why not names gateways, their versions and settings: that is for operators, on the listener of the metrics. Everybody else is told
which kind of thing is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

PROBE_SECONDS = 2.0
KEPT_SECONDS = 1.0
"""An answer stands this long: who asks in a loop asks us, not the engines behind."""


@dataclass(frozen=True, slots=True)
class Check:
    """`required`: whether a failure means not ready. `probe` returns why not, or an empty string; it may raise nothing.

    `doubt` is told of what passed: it works, but an operator should know.
    """

    name: str
    probe: Callable[[], Awaitable[str]]
    required: bool = True
    doubt: Callable[[], str] = lambda: ""


class Health:
    def __init__(self, checks: Callable[[], list[Check]]) -> None:
        self._checks = checks
        self._kept: tuple[float, bool, dict[str, Mapping[str, object]]] | None = None
        self.draining = False

    async def alive(self, request: web.Request) -> web.Response:  # noqa: ARG002 - an aiohttp handler
        return web.json_response({"ok": True})

    async def ready(self, request: web.Request) -> web.Response:  # noqa: ARG002 - an aiohttp handler
        """For everybody: 200 or 503 with `{"ready", "checks": {name: {"ok"}}, "why"?}`, of what is required."""
        required = {check.name for check in self._checks() if check.required}
        ready, lines = await self._state()
        return self._told(ready, {name: {"ok": line["ok"]} for name, line in lines.items() if name in required})

    async def explained(self, request: web.Request) -> web.Response:  # noqa: ARG002 - an aiohttp handler
        """For operators: 200 or 503 with `{"ready", "checks": {name: {"ok", "why"?, "doubt"?}}, "why"?}`."""
        return self._told(*await self._state())

    def _told(self, ready: bool, lines: Mapping[str, object]) -> web.Response:
        body: dict[str, object] = {"ready": ready and not self.draining, "checks": lines}
        if self.draining:
            body["why"] = "draining"
        return web.json_response(body, status=200 if body["ready"] else 503)

    async def _state(self) -> tuple[bool, dict[str, Mapping[str, object]]]:
        now = asyncio.get_running_loop().time()
        if self._kept is None or now - self._kept[0] > KEPT_SECONDS:
            checks = self._checks()
            whys = await asyncio.gather(*(self._why(check) for check in checks))
            ready = all(not why for check, why in zip(checks, whys, strict=True) if check.required)
            self._kept = (now, ready, dict(map(_line, checks, whys)))
        return self._kept[1], self._kept[2]

    async def _why(self, check: Check) -> str:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await check.probe()
        except TimeoutError:
            return f"no answer in {PROBE_SECONDS:g} s"


def _line(check: Check, why: str) -> tuple[str, Mapping[str, object]]:
    said = {"why": why, "doubt": "" if why else check.doubt()}
    return check.name, {"ok": not why, **{name: text for name, text in said.items() if text}}
