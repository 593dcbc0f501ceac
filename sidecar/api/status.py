"""`GET /api/openclaw/status`: what a user may know of how they are served, for the bearer of an access token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from sidecar import __version__
from sidecar.domain.environment import Environment
from sidecar.domain.principal import Principal
from sidecar.errors import Outage, TokenRefused
from sidecar.gateways.standing import Standing
from sidecar.identity.carriers import token_from_request
from sidecar.telemetry.facts import Report, TokenRejected

_NO_STORE = {"cache-control": "no-store"}
_CHALLENGE = {"www-authenticate": 'Bearer realm="openclaw"'}
_UNAUTHORIZED = {
    "code": "UNAUTHORIZED",
    "message": "Sign in, and send your access token as 'Authorization: Bearer <token>'.",
}
_IN_ADDRESS = {
    "code": "TOKEN_IN_ADDRESS",
    "message": "A token in the address is refused, since addresses are logged: send it as 'Authorization: Bearer <token>'.",
}


class Door(Protocol):
    """One gateway."""

    def standing(self, agent_id: str) -> Standing: ...


class Status:
    """`verify`: (token, connection id) → who, raises TokenRefused, IdentityAway. `find`: what is stored of a user, None for who was
    never here; raises StorageAway. `door`: the gateway of that id, None for one that is not configured."""

    def __init__(
        self,
        verify: Callable[[str, str], Awaitable[Principal]],
        find: Callable[[Principal], Awaitable[Environment | None]],
        door: Callable[[str], Door | None],
        report: Report,
    ) -> None:
        self._verify = verify
        self._find = find
        self._door = door
        self._report = report

    async def get(self, request: web.Request) -> web.Response:
        """200 with what is said of the caller; 401 without a detail, 400 for a token in the address, 503 in an outage."""
        try:
            token = token_from_request(request.headers, request.rel_url.raw_query_string)
        except TokenRefused as refused:
            self._report(TokenRejected("", "", refused.reason))
            return _unauthorized() if refused.reason != "query" else _answer({"error": _IN_ADDRESS}, 400)
        try:
            principal = await self._verify(token, "")
            return _answer(self._said(principal, await self._find(principal)))
        except TokenRefused:
            return _unauthorized()
        except Outage as outage:
            return _answer({"error": outage.to_wire()}, outage.status)

    def _said(self, principal: Principal, environment: Environment | None) -> dict[str, Any]:
        said: dict[str, Any] = {
            "userId": principal.user_id,
            "agentId": environment.agent_id if environment else None,
            "gateway": None,
            "isolation": None,
            "policy": None,
            "sidecar": {"version": __version__},
        }
        if environment is None:
            return said
        door = self._door(environment.gateway_id)
        if door is None:
            why = "your data lives on a gateway that is not configured here; tell the operator"
            return said | {"gateway": {"id": environment.gateway_id, "ready": False, "why": why}}
        standing = door.standing(environment.agent_id)
        level = {"level": standing.level, "weakenedBy": standing.weakened_by}
        return said | {
            "gateway": {"id": environment.gateway_id, "ready": standing.ready, "why": standing.why},
            "isolation": level if standing.level is not None else None,
            "policy": {"gatewayVersion": standing.version, "covered": standing.covered, "runs": standing.runs},
        }


def _unauthorized() -> web.Response:
    return _answer({"error": _UNAUTHORIZED}, 401, _CHALLENGE)


def _answer(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers={**_NO_STORE, **(headers or {})})
