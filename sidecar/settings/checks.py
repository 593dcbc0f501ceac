"""What can only be judged with several settings side by side: `problems` stop the start, `warnings` don't."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sidecar.errors import Problem
from sidecar.settings.tree import Gateway, Issuer, Settings
from sidecar.settings.values import is_loopback

# What decides together how a gateway is dialled; where one of them is wrong, the others cannot be judged.
_DIALLING = ("auth", "url", "admin_user", "password", "password_file", "token", "token_file")
_ROLES = ("administrator", "user", "guest")
_SAFE_TOOLS = frozenset({"read", "write", "edit", "apply_patch"})


def problems(settings: Settings) -> list[Problem]:
    """Everything that contradicts something else."""
    return [*_server(settings), *_gateways(settings), *_issuers(settings), *_environments(settings), *_quota(settings)]


def unjudged(reported: Iterable[str]) -> list[str]:
    """The settings that `problems` cannot judge, as `reported` ones have been replaced by their defaults."""
    names = list(reported)
    for name in tuple(names):
        entry, _, key = name.rpartition(".")
        if entry.startswith("gateways[") and key in _DIALLING:
            names += [f"{entry}.{other}" for other in _DIALLING]
    return names


def warnings(settings: Settings) -> list[Problem]:
    """Everything that works but weakens something, including secret files that others can read."""
    found = [*_server_warnings(settings), *_environment_warnings(settings), *_storage_warnings(settings)]
    for index, gateway in enumerate(settings.gateways):
        found += _gateway_warnings(gateway, f"gateways[{index}]")
    return found


def _server(settings: Settings) -> Iterator[Problem]:
    server = settings.server
    if server.port and server.port == server.metrics_port:
        yield Problem("server.metrics_port", "is the same as `server.port`", "give /metrics a port of its own")


def _gateways(settings: Settings) -> Iterator[Problem]:
    if not settings.gateways:
        yield Problem("gateways", "none is configured", "add a [[gateways]] table with `id`, `url` and `auth`")
    yield from _duplicates("gateways", "id", (gateway.id for gateway in settings.gateways))
    for index, gateway in enumerate(settings.gateways):
        yield from _gateway(gateway, f"gateways[{index}]")


def _gateway(gateway: Gateway, name: str) -> Iterator[Problem]:
    yield from _shared_agent(gateway, name)
    local = is_loopback(urlsplit(gateway.url).hostname or "")
    if gateway.auth == "trusted-proxy":
        yield from _trusted_proxy(gateway, name, local=local)
        return
    secret = gateway.token if gateway.auth == "token" else gateway.password
    if not secret.get_secret_value():
        yield Problem(
            f"{name}.{gateway.auth}",
            f'is needed with auth = "{gateway.auth}"',
            f"give `{gateway.auth}` or `{gateway.auth}_file`, the gateway's `gateway.auth.{gateway.auth}`",
        )
    if not local:
        # The gateway pairs a new device by itself on loopback only; elsewhere no user would get in.
        yield Problem(
            f"{name}.url",
            f'is on another host, which auth = "{gateway.auth}" cannot serve',
            'use auth = "trusted-proxy", or a gateway on this host',
        )


def _shared_agent(gateway: Gateway, name: str) -> Iterator[Problem]:
    shared = gateway.shared_agent
    if shared.startswith(("u-", "-")) or shared.endswith("-"):
        what = "looks like the agent of one user" if shared.startswith("u-") else "begins or ends with a hyphen"
        yield Problem(f"{name}.shared_agent", what, 'choose another name, as "shared"')
    for index, tool in enumerate(gateway.shared_tools_allow):
        if tool == "*":
            yield Problem(
                f"{name}.shared_tools_allow[{index}]", "opens every tool, of others' sessions too", "name the tools"
            )


def _trusted_proxy(gateway: Gateway, name: str, *, local: bool) -> Iterator[Problem]:
    password, admin = gateway.password.get_secret_value(), gateway.admin_user
    if password and admin:
        yield Problem(f"{name}.admin_user", "is set beside `password`", "keep `password` on this host, else this")
    elif not password and not admin:
        yield Problem(
            f"{name}.password" if local else f"{name}.admin_user",
            'is needed with auth = "trusted-proxy", for the sidecar\'s own connection',
            "give `password` or `password_file`, the gateway's `gateway.auth.password`"
            if local
            else "name an identity with `operator.admin` in the gateway's `gateway.auth.identityScopes`",
        )
    elif password and not local:
        yield Problem(f"{name}.password", "works only for a gateway on this host", "use `admin_user` instead")


def _issuers(settings: Settings) -> Iterator[Problem]:
    issuers = settings.identity.issuers
    if not issuers:
        yield Problem(
            "identity.issuers",
            "none is configured",
            "add an [[identity.issuers]] table with `name` and `issuer`",
        )
    yield from _duplicates("identity.issuers", "name", (issuer.name for issuer in issuers))
    yield from _duplicates("identity.issuers", "issuer", (issuer.issuer for issuer in issuers))
    readable = [index for index, issuer in enumerate(issuers) if issuer.readable_ids]
    for index in readable[1:]:
        yield Problem(
            f"identity.issuers[{index}].readable_ids",
            "is already true for another issuer, and both could have a user of one name",
            "keep it true for one",
        )
    for index, issuer in enumerate(issuers):
        yield from _issuer(issuer, f"identity.issuers[{index}]")


def _issuer(issuer: Issuer, name: str) -> Iterator[Problem]:
    if not issuer.issuer:
        yield Problem(f"{name}.issuer", "is needed", "give the URL that its tokens carry as `iss`")
    if not issuer.audience:
        yield Problem(
            f"{name}.audience",
            "is empty, so tokens made for other services would open this one",
            'as ["openclaw"]',
        )
    if not issuer.algorithms:
        yield Problem(f"{name}.algorithms", "is empty, so no token could be verified", 'as ["RS256"]')


def _environments(settings: Settings) -> Iterator[Problem]:
    if not settings.environments.tools_allow:
        yield Problem(
            "environments.tools_allow",
            "is empty, which the gateway takes as no limit at all",
            f"name the tools, as {sorted(_SAFE_TOOLS)}".replace("'", '"'),
        )
    for index, tool in enumerate(settings.environments.tools_allow):
        if tool == "*":
            yield Problem(
                f"environments.tools_allow[{index}]",
                "opens every tool, of others' sessions too",
                "name the tools",
            )


def _quota(settings: Settings) -> Iterator[Problem]:
    quota = settings.quota
    hook = quota.webhook
    if hook.url and not hook.secret.get_secret_value():
        mend = "give `quota.webhook.secret` or `secret_file`; make one with `openssl rand -base64 48`"
        yield Problem("quota.webhook.secret", "is missing, so that nobody could tell an alert from a forged one", mend)
    rows = {"quota": quota, **{f"quota.roles.{name}": getattr(quota.roles, name) for name in _ROLES}}
    for name, row in rows.items():
        for kind, estimate, rule in (
            ("daily_tokens", quota.estimate_tokens, quota.rules.daily_tokens),
            ("monthly_cost_usd", quota.estimate_cost_usd, quota.rules.monthly_cost),
        ):
            limit = getattr(row, kind)
            if rule.mode == "hard" and 0 < limit * (1 + rule.grace_percent / 100) < estimate:
                about = "estimate_tokens" if kind == "daily_tokens" else "estimate_cost_usd"
                yield Problem(
                    f"{name}.{kind}",
                    f"is less than `quota.{about}`, so that no turn in a new session would start",
                    f"raise it, or lower `quota.{about}`",
                )


def _duplicates(section: str, key: str, values: Iterable[str]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        if value and value in seen:
            yield Problem(f"{section}[{index}].{key}", f"is the same as {section}[{seen[value]}].{key}", "change one")
        seen.setdefault(value, index)


def _server_warnings(settings: Settings) -> Iterator[Problem]:
    url = urlsplit(settings.server.public_url)
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        yield Problem(
            "server.public_url",
            "is not https, so tokens travel in the clear",
            "end TLS in front, and write https://",
        )
    for index, network in enumerate(settings.server.trusted_proxies):
        if network.prefixlen == 0:
            yield Problem(
                f"server.trusted_proxies[{index}]",
                "is everybody, who may then claim any address",
                "name the proxies",
            )


def _gateway_warnings(gateway: Gateway, name: str) -> Iterator[Problem]:
    url = urlsplit(gateway.url)
    if url.scheme == "ws" and not is_loopback(url.hostname or ""):
        yield Problem(
            f"{name}.url",
            "is not wss, so whoever sits in between can act as any user",
            "use wss:// or a tunnel",
        )
    yield from _shared_agent_warnings(gateway, name)
    if gateway.allow_open_gateway:
        yield Problem(
            f"{name}.allow_open_gateway",
            "lets agents of one user read sessions of another",
            'on the gateway, set tools.agentToAgent.enabled to false and tools.sessions.visibility to "self"',
        )
    for index in range(len(gateway.trusted_versions)):
        yield Problem(
            f"{name}.trusted_versions[{index}]",
            "lets runs start on a version that the policy was not checked against",
            "update the sidecar when it covers that version, and remove it",
        )
    used = {"trusted-proxy": {"password"}, "token": {"token"}, "password": {"password"}}[gateway.auth]
    for key in {"password", "token"} - used:
        if getattr(gateway, key).get_secret_value():
            yield Problem(f"{name}.{key}", f'is not used with auth = "{gateway.auth}"', "remove it")
    if gateway.admin_user and gateway.auth != "trusted-proxy":
        yield Problem(f"{name}.admin_user", f'is not used with auth = "{gateway.auth}"', "remove it")
    yield from _open_file(gateway.password_file, f"{name}.password_file")
    yield from _open_file(gateway.token_file, f"{name}.token_file")


def _shared_agent_warnings(gateway: Gateway, name: str) -> Iterator[Problem]:
    if gateway.namespace == "agent":
        for key in ("shared_agent", "shared_tools_allow"):
            if getattr(gateway, key) != Gateway.model_fields[key].default:
                yield Problem(f"{name}.{key}", 'is not used with namespace = "agent"', "remove it")
        return
    yield Problem(
        f"{name}.namespace",
        "keeps only the transcripts of users apart",
        'keep it only if they may share everything else, or use "agent"',
    )
    if gateway.shared_agent == "main":
        yield Problem(
            f"{name}.shared_agent",
            "is the agent that a gateway has by itself: its tools, memory and workspace will be closed for the operator too",
            'use another name, as "shared"',
        )
    for index, tool in enumerate(gateway.shared_tools_allow):
        if tool == "*" or (tool in _SAFE_TOOLS and gateway.accepts_workspace):
            continue
        yield Problem(
            f"{name}.shared_tools_allow[{index}]",
            "lets each user read what others, and the gateway's memory of them, left in the one workspace"
            if tool in _SAFE_TOOLS
            else "opens a tool that may reach beyond the user's own sessions",
            "keep it only if users may see all of that of each other",
        )


def _environment_warnings(settings: Settings) -> Iterator[Problem]:
    for index, tool in enumerate(settings.environments.tools_allow):
        if tool not in _SAFE_TOOLS and tool != "*":
            yield Problem(
                f"environments.tools_allow[{index}]",
                "opens a tool that may reach beyond the user's own workspace",
                "keep it only if you know that it does not, or each user has a gateway",
            )


def _storage_warnings(settings: Settings) -> Iterator[Problem]:
    storage = settings.storage
    if storage.database_url.get_secret_value() and not storage.secret.get_secret_value():
        yield Problem(
            "storage.secret",
            "is made and kept on this host, while the database is shared",
            "give every replica the same one, or keep `data_dir` for good",
        )
    for key in ("database_url_file", "redis_url_file", "secret_file"):
        yield from _open_file(getattr(storage, key), f"storage.{key}")
    yield from _open_file(settings.quota.webhook.secret_file, "quota.webhook.secret_file")


def _open_file(path: str, setting: str) -> Iterator[Problem]:
    if path and Path(path).exists() and Path(path).stat().st_mode & 0o077:
        yield Problem(setting, "names a file that others can read", "chmod 600 it")
