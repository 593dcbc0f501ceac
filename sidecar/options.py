"""What an operator set, as each room takes it: settings stop here."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

from sidecar.domain.quota import Amount, Limits, QuotaType
from sidecar.domain.usage import Weights
from sidecar.gateways.options import GatewayOptions
from sidecar.identity.options import IssuerOptions
from sidecar.quota.options import ROLES, QuotaOptions, Rule
from sidecar.relay.server import HouseOptions
from sidecar.settings import Settings
from sidecar.usage.prices import Price


def prices(settings: Settings) -> list[Price]:
    """The operator's table."""
    return [
        Price(
            provider=row.provider,
            model=row.model,
            input=Decimal(str(row.input)),
            output=Decimal(str(row.output)),
            cache_read=Decimal(str(row.cache_read)),
            cache_write=Decimal(str(row.cache_write)),
            since=date.fromisoformat(row.since) if row.since else date.min,
        )
        for row in settings.usage.prices
    ]


def quota_options(settings: Settings) -> QuotaOptions:
    """The limits of each role, and how they are enforced."""
    quota, weights = settings.quota, settings.quota.weights
    names = {
        QuotaType.DAILY_TOKENS: "daily_tokens",
        QuotaType.MONTHLY_COST: "monthly_cost_usd",
        QuotaType.API_CALLS: "api_calls_per_day",
        QuotaType.CONCURRENT_RUNS: "concurrent_runs",
        QuotaType.MESSAGES_PER_MINUTE: "messages_per_minute",
    }

    def limits(role: str) -> Limits:
        own = getattr(quota.roles, role)
        values = {kind: (getattr(own, name), getattr(quota, name)) for kind, name in names.items()}
        return Limits(
            {kind: Decimal(str(of_all if of_role < 0 else of_role)) for kind, (of_role, of_all) in values.items()}
        )

    def rule(kind: QuotaType) -> Rule:
        row = getattr(quota.rules, kind)
        return Rule(row.mode == "hard", Decimal(str(row.grace_percent)), row.on_redis_failure or quota.on_redis_failure)

    return QuotaOptions(
        defaults={role: limits(role) for role in ROLES},
        rules={kind: rule(kind) for kind in QuotaType},
        zone=ZoneInfo(quota.timezone),
        weights=Weights(
            *(Decimal(str(one)) for one in (weights.input, weights.output, weights.cache_read, weights.cache_write))
        ),
        estimate=Amount(Decimal(quota.estimate_tokens), Decimal(str(quota.estimate_cost_usd))),
        replicas=quota.replicas,
    )


def issuer_options(settings: Settings) -> list[IssuerOptions]:
    """Each issuer of the settings, in their order."""
    return [
        IssuerOptions(
            name=row.name,
            issuer=row.issuer,
            audience=row.audience,
            jwks_url=row.jwks_url,
            algorithms=row.algorithms,
            user_claim=row.user_claim,
            roles_claim=row.roles_claim,
            leeway_seconds=row.leeway_seconds,
            readable_ids=row.readable_ids,
        )
        for row in settings.identity.issuers
    ]


def gateway_options(settings: Settings) -> list[GatewayOptions]:
    """How each gateway of the settings is reached, in their order."""
    return [
        GatewayOptions(
            id=row.id,
            url=row.url,
            auth=row.auth,
            user_header=row.user_header,
            password=row.password.get_secret_value(),
            admin_user=row.admin_user,
            token=row.token.get_secret_value(),
            public_origin=settings.server.public_url,
            shared_agent=row.shared_agent if row.namespace == "shared-agent" else "",
            shared_tools_allow=row.shared_tools_allow,
            accepts_workspace=row.accepts_workspace,
            allow_open_gateway=row.allow_open_gateway,
            trusted_versions=row.trusted_versions,
        )
        for row in settings.gateways
    ]


def house_options(settings: Settings) -> HouseOptions:
    """For whoever comes in."""
    server = settings.server
    return HouseOptions(
        origins=server.origins,
        trusted_proxies=server.trusted_proxies,
        max_connections=server.max_connections,
        max_connections_per_user=server.max_connections_per_user,
        max_unauthenticated_per_address=server.max_unauthenticated_per_address,
        drain_seconds=server.drain_seconds,
        slow_client_seconds=server.slow_client_seconds,
    )
