"""From an accepted socket to `hello-ok`.

A stranger costs one socket: no connection to a gateway exists before the token is verified.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from sidecar.domain.principal import Principal
from sidecar.errors import DENIALS, MalformedFrame, SidecarError, TokenRefused
from sidecar.gateways.greeting import Upstream
from sidecar.identity.carriers import Credential, agreed_token, credential_from_connect
from sidecar.policy.requests import Patched
from sidecar.policy.shared import is_open
from sidecar.policy.table import GUEST
from sidecar.protocol import frames
from sidecar.protocol.handshake import GUEST_SCOPES, read_connect, rewrite_hello
from sidecar.protocol.requests import Request, decode
from sidecar.relay.ports import Rooms
from sidecar.relay.scope import Scope
from sidecar.telemetry.facts import Denied, TokenRejected
from sidecar.wire.wire import Inbox, Wire

CONNECT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Socket:
    """An accepted client, before anybody knows who it is."""

    connection_id: str
    wire: Wire
    inbox: Inbox
    credential: Credential | None
    """What the upgrade request carried."""


async def open_scope(
    socket: Socket, rooms: Rooms, clock: Callable[[], float], admitted: Callable[[Principal], None]
) -> Scope | None:
    """Greet the client. None where it left or was refused (it has been told why, and the socket closes).

    `admitted` is called once the caller is known and may raise HouseFull.
    """
    nonce = secrets.token_urlsafe(24)
    socket.wire.send(frames.event("connect.challenge", {"nonce": nonce, "ts": int(clock() * 1000)}))
    try:
        request = decode(await socket.inbox.next(CONNECT_SECONDS))
    except ConnectionResetError:
        return None
    except TimeoutError:
        socket.wire.close(1000, "no connect")
        return None
    except MalformedFrame as error:
        rooms.report(Denied(socket.connection_id, "", "connect", error.detail_code))
        socket.wire.close(error.close_code, error.message)
        return None
    caller = ""

    def known(principal: Principal) -> None:
        nonlocal caller
        caller = principal.user_id
        admitted(principal)

    try:
        if request.method != "connect":
            raise MalformedFrame("the first request is connect")
        return await _greeted(socket, request, rooms, known)
    except SidecarError as error:
        if isinstance(error, DENIALS) and not isinstance(error, TokenRefused):
            rooms.report(Denied(socket.connection_id, caller, "connect", error.detail_code, request.id[:64]))
        socket.wire.send(frames.refusal(request.id, error))
        socket.wire.close(error.close_code, error.message)
        raise


async def _greeted(socket: Socket, request: Request, rooms: Rooms, admitted: Callable[[Principal], None]) -> Scope:
    hello = read_connect(request.params)
    try:
        token = agreed_token(socket.credential, credential_from_connect(request.params))
    except TokenRefused as error:
        rooms.report(TokenRejected(socket.connection_id, "", error.reason))
        raise
    principal = await rooms.verify(token, socket.connection_id)
    admitted(principal)
    home = await rooms.home(principal)
    environment, namespace = home.environment, home.namespace
    open_in = namespace.adopt_existing(hello.session_key) if hello.session_key else namespace.main
    door = rooms.door(environment.gateway_id)
    table = door.require() if principal.roles - GUEST else door.require().for_guests()
    if principal.roles <= {"guest"}:
        hello = replace(hello, scopes=tuple(scope for scope in hello.scopes if scope in GUEST_SCOPES))
    upstream = await door.greet(namespace.slug, hello, first_time=environment.provisioned_at is None)
    try:
        answer = rewrite_hello(
            upstream.hello,
            namespace,
            open_in=open_in,
            passes_method=lambda name: (
                table.passes_method(name, principal.roles) and is_open(table.methods[name], namespace)
            ),
            passes_event=table.passes_event,
            connection_id=socket.connection_id,
        )
    except BaseException:
        upstream.link.wire.abort()
        raise
    socket.wire.send(frames.response(request.id, answer))
    return Scope(
        connection_id=socket.connection_id,
        principal=principal,
        namespace=namespace,
        gateway_id=environment.gateway_id,
        hello=hello,
        table=table,
        upstream=Upstream(upstream.link, {}),  # what hello said is told; kept, it would cost 40 KiB a connection
        runs=door.runs,
        handles=door.handles,
        as_admin=door.as_admin,
        still_open=lambda: door.require_runs(namespace.agent_id),
        audience=door.audience,
        patched=Patched(environment.workspace_dir, environment.auth_profile_id) if door.accepts_workspace else None,
    )
