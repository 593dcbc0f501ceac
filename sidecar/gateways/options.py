"""How one gateway is reached."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sidecar.domain.namespace import Layout
from sidecar.protocol.handshake import SCOPES, forwarded_address, needs_origin

ADMIN_SCOPES = ("operator.admin", *SCOPES)


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """One row of `gateways`, as this room needs it."""

    id: str
    url: str
    auth: Literal["trusted-proxy", "token", "password"]
    user_header: str = "x-forwarded-user"
    password: str = ""
    admin_user: str = ""
    token: str = ""
    public_origin: str = ""
    """The origin that users' browsers see; sent for browser clients, so the gateway must allow it."""

    shared_agent: str = ""
    """The agent that all users share; empty: each has one of their own."""

    shared_tools_allow: Sequence[str] = ()
    """Tools of that agent; empty: none."""

    accepts_workspace: bool = False
    allow_open_gateway: bool = False
    trusted_versions: Collection[str] = ()
    """Versions for which the operator vouches although no policy table covers them."""

    @property
    def layout(self) -> Layout:
        return Layout(self.shared_agent, own_workspaces=self.accepts_workspace)

    def user_headers(self, slug: str, client_id: str, client_mode: str) -> dict[str, str]:
        """Headers of a user's upgrade. With a shared token the gateway refuses any forwarded header, so there are none."""
        if self.auth != "trusted-proxy":
            return {}
        headers = {
            self.user_header: slug,
            "x-forwarded-for": forwarded_address(slug),
            "x-openclaw-scopes": ",".join(SCOPES),
        }
        if needs_origin(client_id, client_mode):
            headers["origin"] = self.public_origin
        return headers

    def user_auth(self) -> Mapping[str, str]:
        """`connect.params.auth` of a user's connection."""
        if self.auth == "trusted-proxy":
            return {}
        return {"token": self.token} if self.auth == "token" else {"password": self.password}

    def admin_headers(self) -> dict[str, str]:
        """Headers of our own upgrade: none on the gateway's host, else the identity that has `operator.admin` there."""
        if self.auth != "trusted-proxy" or not self.admin_user:
            return {}
        return {
            self.user_header: self.admin_user,
            "x-forwarded-for": forwarded_address(self.admin_user),
            "x-openclaw-scopes": ",".join(ADMIN_SCOPES),
        }

    def admin_auth(self) -> Mapping[str, str]:
        if self.auth == "trusted-proxy":
            return {} if self.admin_user else {"password": self.password}
        return self.user_auth()
