"""The tree: every setting with its type, its default and its sentence. Frozen; made by `load`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sidecar.settings.values import (
    AdminUser,
    Algorithm,
    Claim,
    Count,
    DatabaseUrl,
    FilePath,
    Flag,
    Folder,
    GatewayVersion,
    HeaderName,
    Host,
    Kind,
    Leeway,
    Limit,
    Name,
    Network,
    OptionalFolder,
    Origin,
    Port,
    PublicUrl,
    RedisUrl,
    Seal,
    Seconds,
    Secret,
    SecureUrl,
    WebSocketUrl,
    Word,
)

_NO_SECRET = SecretStr("")


class Section(BaseModel):
    """A table of the file. An unknown key is an error; no error shows a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Server(Section):
    """What clients connect to."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: Port = Field(default=8080, description="Port for clients; 0 takes any free one.")
    public_url: PublicUrl = Field(
        default="http://127.0.0.1:8080",
        description="Where people reach the sidecar; browser pages from here may connect.",
    )
    metrics_port: Port = Field(
        default=9464,
        description="Port of a listener of its own for /metrics and for what /readyz waits for; 0 takes any free one.",
    )
    allowed_origins: tuple[Origin, ...] = Field(
        default=(), description="Origins of other browser pages that may connect, besides `public_url`."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="Networks whose `X-Forwarded-*` headers count; from elsewhere they are ignored.",
    )
    max_connections: Count = Field(default=10_000, description="Open WebSockets in all; more are turned away.")
    max_connections_per_user: Count = Field(default=32, description="Open WebSockets of one user.")
    max_unauthenticated_per_address: Count = Field(
        default=32, description="Open WebSockets of one address that have not shown a valid token yet."
    )
    drain_seconds: Seconds = Field(
        default=20, description="On SIGTERM, open WebSockets are closed one by one within this time."
    )
    slow_client_seconds: Seconds = Field(
        default=30,
        description="A client that takes nothing for this long while data waits for it is cut off.",
    )

    @property
    def origins(self) -> frozenset[str]:
        """Values of `Origin` that are let in, as browsers write them."""
        return frozenset((self.public_url, *self.allowed_origins))


class Gateway(Section):
    """One OpenClaw gateway behind the sidecar."""

    id: Name = Field(default="main", description="Its name here: in logs, in metrics and in the database.")
    url: WebSocketUrl = Field(default="ws://127.0.0.1:18789", description="Its WebSocket.")
    auth: Annotated[Literal["trusted-proxy", "token", "password"], Kind('"trusted-proxy", "token" or "password"')] = (
        Field(
            default="trusted-proxy",
            description="Its `gateway.auth.mode`. `trusted-proxy` is recommended: the gateway knows each user.",
        )
    )
    user_header: HeaderName = Field(
        default="x-forwarded-user",
        description="Its `gateway.auth.trustedProxy.userHeader`: the header that names the user.",
    )
    password: Secret = Field(
        default=_NO_SECRET,
        description='Its `gateway.auth.password`: with `auth = "password"` for all connections, with '
        "`trusted-proxy` on this host for the sidecar's own.",
    )
    password_file: FilePath = Field(default="", description="A file that holds `password`.")
    admin_user: AdminUser = Field(
        default="",
        description="With `trusted-proxy` on another host: the identity of the sidecar's own connection, "
        "which has `operator.admin` in the gateway's `gateway.auth.identityScopes`.",
    )
    token: Secret = Field(default=_NO_SECRET, description='Its `gateway.auth.token`, with `auth = "token"`.')
    token_file: FilePath = Field(default="", description="A file that holds `token`.")
    namespace: Annotated[Literal["agent", "shared-agent"], Kind('"agent" or "shared-agent"')] = Field(
        default="agent",
        description="What each user has on it: an agent of their own, or only sessions of their own in one agent for all. "
        "Changing it keeps users who are there already out: decide it first.",
    )
    shared_agent: Name = Field(
        default="shared",
        description="With `shared-agent`: the id of that agent. The sidecar writes it into the gateway's configuration, closed.",
    )
    shared_tools_allow: tuple[Word, ...] = Field(
        default=(),
        description="With `shared-agent`: tools that this agent may use; empty: none. `environments.tools_allow` does not count.",
    )
    accepts_workspace: Flag = Field(
        default=False,
        description="It is a patched gateway that takes `workspaceDir` and `authProfileId` with every run that a user starts.",
    )
    allow_open_gateway: Flag = Field(
        default=False,
        description="Serve users although the gateway's session tools let agents read each other.",
    )
    trusted_versions: tuple[GatewayVersion, ...] = Field(
        default=(),
        description='Exact versions, such as "2026.10.1", that may start runs although no policy table covers them: those '
        "whose `sidecar gateway diff` you have looked at. Without it users of such a gateway can only read.",
    )


class Issuer(Section):
    """One OpenID provider whose access tokens are accepted."""

    name: Name = Field(
        default="default",
        description="Its name here; it is the first part of each user id, so changing it makes new users.",
    )
    issuer: SecureUrl = Field(default="", description="Its issuer URL, exactly as in the `iss` of its tokens.")
    audience: tuple[Word, ...] = Field(default=("openclaw",), description="A token's `aud` must hold one of these.")
    jwks_url: SecureUrl = Field(default="", description="Where its keys are; empty: found by OpenID discovery.")
    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256", "ES256", "EdDSA"), description="Signature algorithms that are accepted."
    )
    user_claim: Claim = Field(
        default="sub", description="Claim that names the user; it must never be given to somebody else later."
    )
    roles_claim: Claim = Field(
        default="roles",
        description="Claim with the user's roles; dots lead into objects (`realm_access.roles`).",
    )
    leeway_seconds: Leeway = Field(
        default=30,
        description="How far the issuer's clock and ours may differ when times of a token are judged.",
    )
    readable_ids: Flag = Field(
        default=False,
        description="Agents and folders of its users are named `u-<sub>` where that is safe, else by a hash. "
        "One issuer at most. Changing it later moves people to new, empty agents: decide it first.",
    )


class Identity(Section):
    """Who may come in."""

    issuers: tuple[Issuer, ...] = Field(default=(), description="The accepted OpenID providers.")


class Environments(Section):
    """What a user gets on the gateway."""

    root: Folder = Field(
        default="/data/openclaw-users", description="Folder of all users' workspaces, as the gateway sees it."
    )
    local_root: OptionalFolder = Field(
        default="",
        description="The same folder as the sidecar sees it, to make and protect workspaces; empty: "
        "`root`, if it can be reached.",
    )
    model_allow: tuple[Word, ...] = Field(
        default=(),
        description="Models that users' agents may use, such as \"anthropic/*\"; empty: the gateway's "
        "default model only.",
    )
    tools_allow: tuple[Word, ...] = Field(
        default=("read", "write", "edit", "apply_patch"), description="Tools that users' agents may use."
    )


class Quota(Section):
    """How much a user may do."""

    concurrent_runs: Limit = Field(default=3, description="Runs of one user at a time; 0: unlimited.")


class Storage(Section):
    """Where state lives."""

    database_url: DatabaseUrl = Field(
        default=_NO_SECRET, description="PostgreSQL; empty: an embedded one, kept in `data_dir`."
    )
    database_url_file: FilePath = Field(default="", description="A file that holds `database_url`.")
    redis_url: RedisUrl = Field(
        default=_NO_SECRET, description="Redis or Valkey; empty: an embedded one, kept in `data_dir`."
    )
    redis_url_file: FilePath = Field(default="", description="A file that holds `redis_url`.")
    data_dir: Annotated[Path, Kind("the path of a folder")] = Field(
        default=Path("var"), description="Folder for everything that the sidecar keeps on disk."
    )
    secret: Seal = Field(
        default=_NO_SECRET,
        description="Device keys and seals derive from it; the same for all replicas, never changed. Empty: "
        "made once and kept in `data_dir`, readable by the owner only.",
    )
    secret_file: FilePath = Field(default="", description="A file that holds `secret`.")


class Telemetry(Section):
    """What the sidecar tells about itself."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Kind('"debug", "info", "warning" or "error"')
    ] = Field(default="info", description="The least severity that is logged.")
    log_format: Annotated[Literal["auto", "json", "console"], Kind('"auto", "json" or "console"')] = Field(
        default="auto", description="`auto`: console on a terminal, else JSON, one object a line."
    )


class Settings(BaseSettings):
    """The root. Takes what it is given; only `load` reads the file and the environment."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: Server = Field(default=Server(), description="What clients connect to.")
    gateways: tuple[Gateway, ...] = Field(default=(), description="The gateways behind the sidecar.")
    identity: Identity = Field(default=Identity(), description="Who may come in.")
    environments: Environments = Field(default=Environments(), description="What a user gets on the gateway.")
    quota: Quota = Field(default=Quota(), description="How much a user may do.")
    storage: Storage = Field(default=Storage(), description="Where state lives.")
    telemetry: Telemetry = Field(default=Telemetry(), description="What the sidecar tells about itself.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)
