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
    Day,
    FilePath,
    Flag,
    Folder,
    GatewayVersion,
    HeaderName,
    Host,
    Kind,
    Leeway,
    Limit,
    Megabytes,
    Months,
    Name,
    Network,
    OptionalFolder,
    Origin,
    Percent,
    Port,
    PublicUrl,
    RedisUrl,
    RoleLimit,
    RoleTokens,
    RoleUsd,
    Seal,
    Seconds,
    Secret,
    SecureUrl,
    Tokens,
    Usd,
    WebSocketUrl,
    Weight,
    Word,
    Zone,
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


class QuotaRole(Section):
    """What a role may in place of what `quota` says for all."""

    daily_tokens: RoleTokens = Field(default=-1, description="Tokens a day.")
    monthly_cost_usd: RoleUsd = Field(default=-1.0, description="USD a month.")
    api_calls_per_day: RoleLimit = Field(default=-1, description="Turns a day.")
    concurrent_runs: RoleLimit = Field(default=-1, description="Turns at a time.")
    messages_per_minute: RoleLimit = Field(default=-1, description="Turns a minute.")


class QuotaRoles(Section):
    """Who has several roles is limited as the first of these that they have."""

    administrator: QuotaRole = Field(default=QuotaRole(), description="Of administrators.")
    user: QuotaRole = Field(default=QuotaRole(), description="Of users.")
    guest: QuotaRole = Field(default=QuotaRole(), description="Of guests.")


class QuotaRule(Section):
    """How one limit is enforced."""

    mode: Annotated[Literal["hard", "soft"], Kind('"hard" or "soft"')] = Field(
        default="hard", description="`hard`: turns are refused, and running ones stopped; `soft`: it is only told."
    )
    grace_percent: Percent = Field(default=0.0, description="By so much it may be passed before it is enforced.")
    on_redis_failure: Annotated[
        Literal["", "closed", "open", "local"], Kind('"closed", "open" or "local"; empty: as in `quota`')
    ] = Field(default="", description="While Redis is away; empty: `quota.on_redis_failure`.")


class QuotaRules(Section):
    """How each limit is enforced."""

    daily_tokens: QuotaRule = Field(default=QuotaRule(), description="Of `daily_tokens`.")
    monthly_cost: QuotaRule = Field(default=QuotaRule(), description="Of `monthly_cost_usd`.")
    api_calls: QuotaRule = Field(default=QuotaRule(), description="Of `api_calls_per_day`.")
    concurrent_runs: QuotaRule = Field(default=QuotaRule(), description="Of `concurrent_runs`.")
    messages_per_minute: QuotaRule = Field(default=QuotaRule(), description="Of `messages_per_minute`.")


class QuotaWeights(Section):
    """How much each kind of token counts towards `daily_tokens`; the ledger has the plain figures."""

    input: Weight = Field(default=1.0, description="Prompt tokens that were not cached.")
    output: Weight = Field(default=1.0, description="Tokens of answers.")
    cache_read: Weight = Field(default=1.0, description="Prompt tokens that were read from the provider's cache.")
    cache_write: Weight = Field(default=1.0, description="Prompt tokens that were written into it.")


class QuotaWebhook(Section):
    """Where alerts go."""

    url: SecureUrl = Field(default="", description="Gets a POST for each alert; empty: none is sent.")
    secret: Seal = Field(
        default=_NO_SECRET, description="Signs what is sent: `X-Sidecar-Signature: sha256=<HMAC of time and body>`."
    )
    secret_file: FilePath = Field(default="", description="A file that holds `secret`.")


class Quota(Section):
    """How much a user may do."""

    daily_tokens: Tokens = Field(default=100_000, description="Tokens of one user a day; 0: unlimited.")
    monthly_cost_usd: Usd = Field(default=100.0, description="What one user may cost a month; 0: unlimited.")
    api_calls_per_day: Limit = Field(default=0, description="Turns that one user may start a day; 0: unlimited.")
    concurrent_runs: Limit = Field(default=3, description="Runs of one user at a time; 0: unlimited.")
    messages_per_minute: Limit = Field(
        default=0, description="Turns that one user may start within any minute; 0: unlimited."
    )
    timezone: Zone = Field(default="UTC", description="Where days and months begin.")
    on_redis_failure: Annotated[Literal["closed", "open", "local"], Kind('"closed", "open" or "local"')] = Field(
        default="closed",
        description="While Redis is away: `closed` starts nothing; `open` starts everything; `local` starts what was left at last "
        "sight, divided by `replicas`.",
    )
    replicas: Count = Field(default=1, description="How many sidecars share the Redis; for `local`.")
    estimate_tokens: Tokens = Field(
        default=15_000, description="What a turn is taken to need in a session whose last model call is not known."
    )
    estimate_cost_usd: Usd = Field(default=0.05, description="The same in USD.")
    weights: QuotaWeights = Field(default=QuotaWeights(), description="How much each kind of token counts.")
    roles: QuotaRoles = Field(default=QuotaRoles(), description="What roles may otherwise.")
    rules: QuotaRules = Field(default=QuotaRules(), description="How limits are enforced.")
    webhook: QuotaWebhook = Field(default=QuotaWebhook(), description="Where alerts go.")


class Price(Section):
    """What one model costs, in USD per million tokens, where the gateway has no price for it."""

    provider: Word = Field(default="*", description="The provider's id at the gateway; `*` stands for any text.")
    model: Word = Field(default="*", description="The model's id at the gateway; `*` stands for any text.")
    input: Usd = Field(default=0.0, description="Prompt tokens that were not cached.")
    output: Usd = Field(default=0.0, description="Tokens of the answer.")
    cache_read: Usd = Field(default=0.0, description="Prompt tokens that were read from the provider's cache.")
    cache_write: Usd = Field(default=0.0, description="Prompt tokens that were written into it.")
    since: Day = Field(
        default="",
        description="The first day, in UTC, on which it holds; empty: always. Of rows that match, the latest that holds counts, "
        "then the first.",
    )


class Usage(Section):
    """How usage is kept, and what it costs."""

    spool_max_mb: Megabytes = Field(
        default=256, description="Usage that may wait in `storage.data_dir` while PostgreSQL is away."
    )
    retention_months: Months = Field(
        default=24, description="Whole months of usage that are kept besides the present one; 0: all."
    )
    prices: tuple[Price, ...] = Field(default=(), description="Prices of models for which the gateway has none.")


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
    usage: Usage = Field(default=Usage(), description="How usage is kept, and what it costs.")
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
