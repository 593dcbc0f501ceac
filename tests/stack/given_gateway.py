"""A gateway that somebody else runs on this host, named by `GATEWAY_URL`: looked at before anything is promised."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from sidecar.gateways.configuration import open_settings
from tests.stack.gateway import USER_HEADER
from tests.stack.process import StackError
from tests.stack.raw import ADMIN_SCOPES, ClosedError, RawClient, RequestError

TIMEOUT_S = 20.0

WITH_PASSWORD = """\
{
  gateway: {
    trustedProxies: ["127.0.0.1"],
    auth: {
      mode: "trusted-proxy",
      password: "…",                       // GATEWAY_PASSWORD
      trustedProxy: {
        userHeader: "x-forwarded-user",    // GATEWAY_USER_HEADER
        allowLoopback: true,
        deviceAutoApprove: {
          enabled: true,
          scopes: ["operator.read", "operator.write", "operator.approvals", "operator.questions"],
        },
      },
    },
  },
  tools: { agentToAgent: { enabled: false }, sessions: { visibility: "self" } },
}"""
WITH_TOKEN = """\
{
  gateway: { auth: { mode: "token", token: "…" } },    // GATEWAY_TOKEN
  tools: { agentToAgent: { enabled: false }, sessions: { visibility: "self" } },
}"""


@dataclass(frozen=True, slots=True)
class GivenGateway:
    """As the environment names it. One of `token` and `password` is empty."""

    url: str
    token: str
    password: str
    user_header: str
    workspaces: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], folder: Path) -> GivenGateway | None:
        """None without `GATEWAY_URL`. Raises StackError, which names the variable."""
        url = environ.get("GATEWAY_URL", "")
        if not url:
            return None
        _check_url(url)
        token, password = environ.get("GATEWAY_TOKEN", ""), environ.get("GATEWAY_PASSWORD", "")
        if bool(token) == bool(password):
            raise StackError(
                "GATEWAY_URL needs one secret beside it: GATEWAY_PASSWORD (the gateway's gateway.auth.password, for "
                'gateway.auth.mode "trusted-proxy") or GATEWAY_TOKEN (its gateway.auth.token, for mode "token")'
            )
        workspaces = Path(environ.get("GATEWAY_WORKSPACES") or folder / "workspaces")
        if not workspaces.is_absolute():
            raise StackError("GATEWAY_WORKSPACES must be an absolute path, as the gateway sees it")
        return cls(url, token, password, environ.get("GATEWAY_USER_HEADER") or USER_HEADER, workspaces)

    async def check(self) -> str:
        """Its version. Raises StackError where it is away, refuses us, or is not configured for a proxy."""
        try:
            async with RawClient.connect(self.url, self._auth(), scopes=list(ADMIN_SCOPES)) as client:
                answer = await client.request("config.get", timeout=TIMEOUT_S)
                version = str(client.hello.get("server", {}).get("version", "?"))
        except aiohttp.WSServerHandshakeError as error:
            raise StackError(
                f"{self.url} answers, but not as a gateway: HTTP {error.status}; mend GATEWAY_URL"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            why = str(error) or type(error).__name__
            raise StackError(f"the gateway cannot be reached: {why}; start it, or mend GATEWAY_URL") from None
        except (ClosedError, RequestError) as error:
            secret = "GATEWAY_TOKEN" if self.token else "GATEWAY_PASSWORD"
            raise StackError(f"the gateway at {self.url} refuses {secret}: {error}\n\n{self._needs()}") from None
        self._judge(answer.get("config") or {})
        return version

    def _auth(self) -> dict[str, str]:
        return {"token": self.token} if self.token else {"password": self.password}

    def _judge(self, config: Mapping[str, Any]) -> None:
        wrong = [*open_settings(config), *([] if self.token else self._proxy_complaints(config.get("gateway") or {}))]
        if wrong:
            listed = "\n".join(f"  - {line}" for line in wrong)
            raise StackError(f"the gateway at {self.url} is not set up for a sidecar:\n{listed}\n\n{self._needs()}")

    def _proxy_complaints(self, gateway: Mapping[str, Any]) -> list[str]:
        auth = gateway.get("auth") or {}
        proxy = auth.get("trustedProxy") or {}
        wrong = []
        if auth.get("mode") != "trusted-proxy":
            return ['gateway.auth.mode must be "trusted-proxy"; for mode "token" give GATEWAY_TOKEN instead']
        if str(proxy.get("userHeader", "")).lower() != self.user_header.lower():
            wrong.append(
                f"gateway.auth.trustedProxy.userHeader must be what GATEWAY_USER_HEADER says: {self.user_header}"
            )
        if proxy.get("allowLoopback") is not True:
            wrong.append("gateway.auth.trustedProxy.allowLoopback must be true")
        if (proxy.get("deviceAutoApprove") or {}).get("enabled") is not True:
            wrong.append("gateway.auth.trustedProxy.deviceAutoApprove.enabled must be true")
        if not gateway.get("trustedProxies"):
            wrong.append('gateway.trustedProxies must hold "127.0.0.1"')
        return wrong

    def _needs(self) -> str:
        return "Its configuration (openclaw.json) needs:\n" + (WITH_TOKEN if self.token else WITH_PASSWORD)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"ws", "wss"} or not parts.hostname:
        raise StackError("GATEWAY_URL must be a WebSocket URL, as ws://127.0.0.1:18789")
    if parts.hostname != "localhost" and not _is_loopback(parts.hostname):
        raise StackError(
            "GATEWAY_URL must be on this host: another host needs `admin_user`, so write a configuration and use `sidecar run`"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
