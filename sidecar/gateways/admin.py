"""The sidecar's own connection to one gateway: kept up, and asked before anything is promised to a user.

    away ──dial──► starting ──hello, config.get──► ready        every user may come
      ▲                                   ├──────► uncovered    no table covers its version: users read, no run starts
      │                                   └──────► open         session tools are open: users are refused
      └──────────── lost ◄────────────────────────────┘         back-off, then again

It hears of every session's changes, whoever is connected, and hands that to whoever listens. What is said in the sessions comes
once, on their users' own connections (the capability `session-scoped-events`).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.errors import GatewayAway, GatewayNotCovered, GatewayOpen, SidecarError
from sidecar.gateways.configuration import open_settings
from sidecar.gateways.greeting import Failed, greet_as_admin
from sidecar.gateways.options import ADMIN_SCOPES, GatewayOptions
from sidecar.gateways.rpc import Rpc
from sidecar.gateways.shared import shared_settings
from sidecar.policy.table import Table, month_of
from sidecar.policy.versions import Choice, choose, span
from sidecar.telemetry.facts import FramesHeard, GatewayState, Report

BACKOFF_SECONDS = (0.25, 10.0)
SCOPED_SINCE = (2026, 8)
"""From these versions on a gateway sends a session's events to who subscribed to them alone, where that is asked for."""

RECENT = {"activeMinutes": 5, "limit": 100}
_CONFIG_CHANGED = b'{"type":"event","event":"config.changed"'


class State(enum.StrEnum):
    AWAY = "away"
    STARTING = "starting"
    OPEN = "open"
    UNCOVERED = "uncovered"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Configuration:
    """One look at a gateway's configuration."""

    hash: str
    """What `config.patch` wants as `baseHash`."""

    source: Mapping[str, Any]
    """As written in the file; what is compared and patched."""

    effective: Mapping[str, Any]
    """With the gateway's defaults; what is obeyed."""


@dataclass(slots=True)
class Listeners:
    """Called in the event loop; may neither block nor raise."""

    on_event: list[Callable[[bytes], None]] = field(default_factory=list)
    on_sessions: list[Callable[[Sequence[Mapping[str, Any]]], None]] = field(default_factory=list)
    """With the latest sessions' rows, newest first, each time that listening begins: what was missed is among them."""

    on_configuration: list[Callable[[Configuration], None]] = field(default_factory=list)
    """With each look at the configuration of a gateway that may serve users, before the state says so."""

    on_configuration_changed: list[Callable[[], None]] = field(default_factory=list)
    on_lost: list[Callable[[], None]] = field(default_factory=list)


class AdminConnection:
    """`run()` in a task of the caller's; everything else may be called at any time."""

    def __init__(self, gateway: GatewayOptions, tables: Sequence[Table], report: Report, failed: Failed) -> None:
        self.gateway = gateway
        self.listeners = Listeners()
        self.state = State.AWAY
        self.version = ""
        self.why = "not connected yet"
        self.choice: Choice | None = None
        """The policy for the gateway's version; None before it is known, and where there is none."""

        self.seen: Configuration | None = None
        """The last look at the gateway's configuration; None while there is no connection."""

        self._tables = tables
        self._report = report
        self.failed = failed
        self._rpc: Rpc | None = None
        self._recheck = asyncio.Event()
        self._listens = False

    def require(self) -> Table:
        """The policy table in force. Raises GatewayAway or GatewayOpen where users cannot be served."""
        if self.serves and self.choice is not None:
            return self.choice.table
        if self.state is State.OPEN:
            raise GatewayOpen(f"this gateway is not safe for several people yet: {self.why}")
        raise GatewayAway("the gateway is starting", retry_after_ms=1000)

    def require_runs(self) -> Table:
        """As `require`, before a run starts or something is done as admin. Raises GatewayNotCovered too."""
        table = self.require()
        if self.state is State.UNCOVERED:
            raise GatewayNotCovered(
                f"the gateway's version {self.version} is not one that this service was checked against: "
                "you can read, but nothing is run until its operator allows it"
            )
        return table

    @property
    def scopes_events(self) -> bool:
        """Does this gateway know the capability `session-scoped-events`?"""
        return (month_of(self.version) or (0, 0)) >= SCOPED_SINCE

    @property
    def serves(self) -> bool:
        """Are users let in?"""
        return self.state in {State.READY, State.UNCOVERED}

    async def request(self, method: str, params: Mapping[str, Any], timeout: float = 30.0) -> Any:
        """As `Rpc.request`."""
        if self._rpc is None:
            raise GatewayAway("the connection to the gateway is lost")
        return await self._rpc.request(method, params, timeout)

    async def configuration(self) -> Configuration:
        """Ask for the configuration. Raises GatewayAway."""
        answer = await self.request("config.get", {})
        if not isinstance(answer, dict) or not isinstance(answer.get("hash"), str):
            raise GatewayAway("the gateway's configuration has no readable form")
        if answer.get("valid") is False:
            # It goes on with the last valid one, but does not tell which that is: `config` is empty (2026.9.6).
            raise GatewayAway("the gateway's configuration file is not valid; its log says where")
        effective = answer.get("config")
        source = answer.get("sourceConfig", effective)
        if not isinstance(effective, dict) or not isinstance(source, dict):
            raise GatewayAway("the gateway's configuration has no readable form")
        return Configuration(answer["hash"], source, effective)

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        wait = BACKOFF_SECONDS[0]
        try:
            while True:
                lasted = await self._once()
                wait = BACKOFF_SECONDS[0] if lasted else min(wait * 2, BACKOFF_SECONDS[1])
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        finally:
            if self._rpc is not None:
                self._rpc.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2):
                        await self._rpc.wait_closed()

    async def _once(self) -> bool:
        """One connection, from dialling to its end. True where it came past hello."""
        try:
            upstream = await greet_as_admin(self.gateway, ADMIN_SCOPES, self.failed)
        except SidecarError as error:
            self._is(State.STARTING if error.retry_after_ms is not None else State.AWAY, error.message)
            return False
        server = upstream.hello.get("server")
        self.version = str(server.get("version", "")) if isinstance(server, dict) else ""
        self.choice = choose(self._tables, self.version, self.gateway.trusted_versions)
        self._rpc = rpc = Rpc(upstream, self._event, lambda count: self._report(FramesHeard(self.gateway.id, count)))
        self._listens = False
        self._recheck.set()
        checker = asyncio.create_task(self._check())
        try:
            await rpc.wait_closed()
        finally:
            checker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await checker
        self._rpc = self.seen = None
        self._is(State.AWAY, "the connection was lost")
        for lost in self.listeners.on_lost:
            lost()
        return True

    async def _check(self) -> None:
        while True:
            await self._recheck.wait()
            self._recheck.clear()
            try:
                if not self._listens:
                    await self._listen()
                configuration = self.seen = await self.configuration()
                state, why = self._judge(configuration.effective)
                for looked in self.listeners.on_configuration if self.choice is not None else ():
                    looked(configuration)
            except GatewayAway as error:
                state, why = State.AWAY, error.message
                asyncio.get_running_loop().call_later(1.0, self._recheck.set)
            except Exception as error:  # noqa: BLE001 - a checker that ended would leave the last state standing
                self.failed(error)
                state, why = State.AWAY, "the gateway's configuration could not be judged"
                asyncio.get_running_loop().call_later(10.0, self._recheck.set)
            self._is(state, why)

    async def _listen(self) -> None:
        """Hear of all sessions from now on. Raises GatewayAway."""
        await self.request("sessions.subscribe", {})
        self._listens = True
        answer = await self.request("sessions.list", RECENT)
        rows = answer.get("sessions") if isinstance(answer, dict) else None
        sessions = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        for told in self.listeners.on_sessions:
            told(sessions)

    def _judge(self, config: Mapping[str, Any]) -> tuple[State, str]:
        if self.choice is None:
            return State.AWAY, f"no policy table covers gateway version {self.version or '?'}; use one that is covered"
        wrong = [] if self.gateway.allow_open_gateway else open_settings(config)
        wrong += shared_settings(config) if self.gateway.shared_agent else []
        if wrong:
            return State.OPEN, " and ".join(wrong)
        return (State.READY, "") if self.choice.runs else (State.UNCOVERED, _uncovered(self.version, self.choice))

    def _is(self, state: State, why: str) -> None:
        if (state, why) != (self.state, self.why):
            self.state, self.why = state, why
            self._report(GatewayState(self.gateway.id, state.value, self.version, why))

    def _event(self, raw: bytes) -> None:
        if raw.startswith(_CONFIG_CHANGED):
            self._recheck.set()
            for changed in self.listeners.on_configuration_changed:
                changed()
        for heard in self.listeners.on_event:
            heard(raw)


def _uncovered(version: str, choice: Choice) -> str:
    return (
        f"no policy table covers gateway version {version} (the nearest: {span(choice.table)}), so users read and no run starts; "
        f'look at `sidecar gateway diff`, then allow it: gateways[].trusted_versions = ["{version}"]'
    )
