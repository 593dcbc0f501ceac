"""The house: who may come in, who is inside, and how it empties.

Refused before the upgrade: a page that is not ours, a token in the address, an address or a house that is full, a house that is
closing. Everything else is told over the protocol, since that is what clients show to their people.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from aiohttp import web

from sidecar.domain.principal import Principal
from sidecar.errors import HouseFull, OriginRefused, Outage, Refusal, SidecarError, TokenRefused
from sidecar.identity.carriers import credential_from_upgrade, echo_protocol
from sidecar.protocol.handshake import MAX_CONNECT_BYTES, MAX_FRAME_BYTES
from sidecar.protocol.websocket import accept_key
from sidecar.relay.connection import SLOW_CLIENT, Connection
from sidecar.relay.opening import Socket, open_scope
from sidecar.relay.ports import Rooms
from sidecar.relay.scope import Scope
from sidecar.relay.takeover import take_over
from sidecar.telemetry.facts import (
    Report,
    SocketClosed,
    SocketOpened,
    SocketRefused,
    TokenRejected,
    Unexpected,
    UserConnected,
)
from sidecar.wire.wire import Inbox, Wire

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class HouseOptions:
    origins: Collection[str]
    """What a browser's `Origin` may be."""

    trusted_proxies: Sequence[Network] = ()
    max_connections: int = 10_000
    max_connections_per_user: int = 32
    max_unauthenticated_per_address: int = 32
    drain_seconds: float = 20.0
    slow_client_seconds: float = 30.0


class House:
    """`accept` is an aiohttp handler for the WebSocket's routes; `drain` ends everything, in time."""

    def __init__(self, rooms: Rooms, options: HouseOptions, report: Report, clock: Callable[[], float]) -> None:
        self._rooms = rooms
        self._options = options
        self._report = report
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._inside: dict[str, Connection] = {}
        self._strangers: Counter[str] = Counter()
        self._users: Counter[str] = Counter()
        self._closing = False

    @property
    def sockets(self) -> int:
        """Open client sockets, authenticated or not."""
        return len(self._tasks)

    async def accept(self, request: web.Request) -> web.StreamResponse:
        """Upgrade, then go on in a task of our own. Refusals are JSON with a status of `errors`."""
        address = self._address(request)
        try:
            self._check(request, address)
            credential = credential_from_upgrade(request.headers, request.rel_url.raw_query_string)
            transport, tail = take_over(request)
        except SidecarError as error:
            token = isinstance(error, TokenRefused)
            denied = isinstance(error, Refusal) and not token and not isinstance(error, _NotUpgraded)
            self._report(SocketRefused(address, error.detail_code, denied))
            if isinstance(error, TokenRefused):
                self._report(TokenRejected("", "", error.reason, address))
            return web.json_response({"error": error.to_wire()}, status=error.status)
        transport.write(_switching(request))
        inbox = Inbox()
        wire = Wire(client=False, max_size=MAX_CONNECT_BYTES, receiver=inbox, failed=self._failed)
        transport.set_protocol(wire)
        wire.connection_made(transport)
        socket = Socket(secrets.token_hex(8), wire, inbox, credential)
        self._report(SocketOpened(socket.connection_id, address))
        visit = _Visit(self._strangers, self._users, address, self._options.max_connections_per_user)
        task = asyncio.create_task(self._serve(socket, visit))
        self._tasks[socket.connection_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(socket.connection_id))
        if tail:
            wire.data_received(tail)
        return web.Response()

    async def drain(self) -> None:
        """No new sockets, no handshake goes on; open ones close spread over half of `drain_seconds`, the rest is cut at its end."""
        self._closing = True
        loop = asyncio.get_running_loop()
        for connection_id, task in self._tasks.items():
            if connection_id not in self._inside:
                task.cancel()
        for connection in list(self._inside.values()):
            delay = random.uniform(0, self._options.drain_seconds / 2)  # noqa: S311 - jitter
            loop.call_later(delay, connection.end, 1012, "drain")
        waiting = set(self._tasks.values())
        if waiting:
            await asyncio.wait(waiting, timeout=self._options.drain_seconds)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    # --- who may come in ----------------------------------------------------------------------------------------------

    def _check(self, request: web.Request, address: str) -> None:
        if self._closing:
            raise _Closing("the sidecar is restarting; connect again")
        if request.headers.get("upgrade", "").lower() != "websocket":
            raise _NotUpgraded("this address speaks WebSocket: connect with an OpenClaw client")
        if not request.headers.get("sec-websocket-key") or request.headers.get("sec-websocket-version") != "13":
            raise _NotUpgraded("WebSocket version 13 is needed")
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() not in self._options.origins:
            raise OriginRefused("pages of this origin may not connect: add it to server.allowed_origins if it is yours")
        if len(self._tasks) >= self._options.max_connections:
            raise HouseFull("too many connections; try again later")
        if self._strangers[address] >= self._options.max_unauthenticated_per_address:
            raise HouseFull("too many connections from this address are not signed in")

    def _address(self, request: web.Request) -> str:
        """The peer, or what the proxies that we trust say of it: the last address that is not theirs.

        As one counts it: of an IPv6 address the network, since a household has 2^64 of them.
        """
        peer = _plain(request.remote or "")
        hops = [hop.strip() for hop in ",".join(request.headers.getall("x-forwarded-for", [])).split(",")]
        while hops and self._is_proxy(peer):
            peer = _plain(hops.pop()) or peer
        return _network_of(peer)

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._options.trusted_proxies)

    # --- who is inside ------------------------------------------------------------------------------------------------

    async def _serve(self, socket: Socket, visit: _Visit) -> None:
        began = asyncio.get_running_loop().time()
        code, reason = 1006, "client"
        try:
            scope = await open_scope(socket, self._rooms, self._clock, visit.enter)
            if scope is not None:
                elapsed = asyncio.get_running_loop().time() - began
                self._report(_connected(scope, elapsed))
                code, reason = await self._relay(socket, scope)
        except asyncio.CancelledError:
            code, reason = 1012, "drain"
            raise
        except SidecarError as error:
            code, reason = error.close_code, error.detail_code
            if not isinstance(error, (Refusal, Outage)):
                self._failed(error)
        except Exception as error:  # noqa: BLE001 - one connection's defect ends that connection alone
            code, reason = 1011, "INTERNAL"
            self._failed(error)
        finally:
            visit.leave()
            await self._end(socket, code, reason)
            seconds = asyncio.get_running_loop().time() - began
            self._report(SocketClosed(socket.connection_id, visit.user_id, code, reason, seconds))

    async def _relay(self, socket: Socket, scope: Scope) -> tuple[int, str]:
        connection = Connection(scope, socket.wire, self._report, slow_client_seconds=self._options.slow_client_seconds)
        socket.wire.max_size = MAX_FRAME_BYTES
        self._inside[socket.connection_id] = connection
        left = max(0.0, scope.principal.expires_at - self._clock())
        expiry = asyncio.get_running_loop().call_later(left, connection.end, 1008, "expired")
        try:
            if socket.inbox.closed_with is not None:
                return socket.inbox.closed_with, "client"
            if self._closing:
                connection.end(1012, "drain")
            return await connection.run(socket.inbox.take_all())
        finally:
            expiry.cancel()
            del self._inside[socket.connection_id]
            connection.gateway.close(1000)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await connection.gateway.wait_closed()

    async def _end(self, socket: Socket, code: int, reason: str) -> None:
        """The client's socket, whoever ended the connection. A client that does not take our goodbye is cut."""
        may_be_sent = 1000 <= code < 5000 and code not in {1004, 1005, 1006, 1015}
        socket.wire.close(code if may_be_sent else 1000, _GOODBYES.get(reason, reason))
        try:
            async with asyncio.timeout(3):
                await socket.wire.wait_closed()
        except TimeoutError:
            socket.wire.abort()

    def _failed(self, error: Exception) -> None:
        self._report(Unexpected("relay", type(error).__name__))


class _Visit:
    """One socket on the counts: of its address until its caller is known, then of its user."""

    def __init__(self, strangers: Counter[str], users: Counter[str], address: str, per_user: int) -> None:
        self.user_id = ""
        self._strangers = strangers
        self._users = users
        self._address = address
        self._per_user = per_user
        strangers[address] += 1

    def enter(self, principal: Principal) -> None:
        """Raises HouseFull."""
        if self._users[principal.user_id] >= self._per_user:
            raise HouseFull("you have too many connections open; close one")
        _less(self._strangers, self._address)
        self.user_id = principal.user_id
        self._users[self.user_id] += 1

    def leave(self) -> None:
        _less(self._users, self.user_id) if self.user_id else _less(self._strangers, self._address)


def _plain(hop: str) -> str:
    """An address as proxies write it (`1.2.3.4:567`, `[::1]:567`, `::ffff:1.2.3.4`) without port and mapping; '' for no address."""
    bare = hop.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _network_of(address: str) -> str:
    return str(ipaddress.ip_network(f"{address}/64", strict=False)) if ":" in address else address


def _less(counts: Counter[str], one: str) -> None:
    counts[one] -= 1
    if counts[one] <= 0:
        del counts[one]


def _connected(scope: Scope, seconds: float) -> UserConnected:
    return UserConnected(
        scope.connection_id,
        scope.principal.user_id,
        scope.namespace.agent_id,
        scope.gateway_id,
        scope.hello.client_id,
        seconds,
    )


_GOODBYES = {
    "drain": "the service restarts",
    "gateway": "the connection to the gateway was lost",
    "expired": "the sign-in has ended",
    SLOW_CLIENT: "the client reads too slowly",
}
"""What a close frame says: people read it, in `openclaw tui` for instance as `gateway disconnected: …` (2026.9.6)."""


class _Closing(Outage):
    detail_code = "RESTARTING"


class _NotUpgraded(Refusal):
    detail_code = "UPGRADE_REQUIRED"
    status = 426


def _switching(request: web.Request) -> bytes:
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(request.headers['sec-websocket-key'])}",
    ]
    if (protocol := echo_protocol(request.headers)) is not None:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
