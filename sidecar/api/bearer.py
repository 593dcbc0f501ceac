"""Who asks over HTTP: the bearer of an access token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from sidecar.domain.principal import Principal
from sidecar.errors import Outage, Refusal, TokenRefused
from sidecar.identity.carriers import token_from_request
from sidecar.telemetry.facts import Denied, Report, TokenRejected

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
Said = Callable[[Principal, web.Request], Awaitable[web.Response]]


class Bearers:
    """`verify`: (token, connection id) → who; raises TokenRefused, IdentityAway."""

    def __init__(self, verify: Callable[[str, str], Awaitable[Principal]], report: Report) -> None:
        self._verify = verify
        self._report = report

    def only(self, said: Said) -> Callable[[web.Request], Awaitable[web.Response]]:
        """A handler that answers who has a token: 401 without a detail, 400 for a token in the address, 503 in an outage."""

        async def handler(request: web.Request) -> web.Response:
            try:
                token = token_from_request(request.headers, request.rel_url.raw_query_string)
            except TokenRefused as refused:
                self._report(TokenRejected("", "", refused.reason))
                return _unauthorized() if refused.reason != "query" else answer({"error": _IN_ADDRESS}, 400)
            caller = ""
            try:
                principal = await self._verify(token, "")
                caller = principal.user_id
                return await said(principal, request)
            except TokenRefused:
                return _unauthorized()
            except (Refusal, Outage) as error:
                if isinstance(error, Refusal):
                    self._report(Denied("", caller, _route(request), error.detail_code))
                return answer({"error": error.to_wire()}, error.status)

        return handler


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """JSON that nobody keeps."""
    return web.json_response(body, status=status, headers={**_NO_STORE, **(headers or {})})


def text(body: str, kind: str, name: str) -> web.Response:
    """A file to keep."""
    headers = {**_NO_STORE, "content-disposition": f'attachment; filename="{name}"'}
    return web.Response(text=body, content_type=kind, charset="utf-8", headers=headers)


def _route(request: web.Request) -> str:
    """One word for all addresses of a kind: `GET /api/openclaw/usage`."""
    resource = request.match_info.route.resource
    return f"{request.method} {resource.canonical if resource is not None else ''}"


def _unauthorized() -> web.Response:
    return answer({"error": _UNAUTHORIZED}, 401, _CHALLENGE)
