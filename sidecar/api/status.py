"""`GET /api/openclaw/status`: what a user may know of how they are served, for the bearer of an access token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from sidecar import __version__
from sidecar.api.bearer import answer
from sidecar.domain.environment import Environment
from sidecar.domain.principal import Principal
from sidecar.gateways.standing import Standing


class Door(Protocol):
    """One gateway."""

    def standing(self, agent_id: str) -> Standing: ...


class Status:
    """`find`: what is stored of a user, None for who was never here; raises StorageAway. `door`: the gateway of that id, None for
    one that is not configured."""

    def __init__(
        self, find: Callable[[Principal], Awaitable[Environment | None]], door: Callable[[str], Door | None]
    ) -> None:
        self._find = find
        self._door = door

    async def get(self, principal: Principal, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler
        """What is said of the caller. Raises StorageAway."""
        return answer(self._said(principal, await self._find(principal)))

    def _said(self, principal: Principal, environment: Environment | None) -> dict[str, Any]:
        said: dict[str, Any] = {
            "userId": principal.user_id,
            "agentId": environment.agent_id if environment else None,
            "gateway": None,
            "isolation": None,
            "policy": None,
            "usage": None,
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
            "usage": {"unmetered": standing.unmetered},
        }
