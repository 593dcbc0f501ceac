"""A principal's environment: found or made, the same on every connect and on every replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sidecar.domain.environment import Environment
from sidecar.domain.namespace import Namespace
from sidecar.domain.principal import Principal
from sidecar.environments.naming import namespace_of
from sidecar.environments.provisioning import Wanted
from sidecar.environments.workspace import make_workspace
from sidecar.errors import GatewayAway, SidecarError, StorageAway

MAX_KNOWN = 10_000


class EnvironmentStore(Protocol):
    """What PostgreSQL does for this room. All raise StorageAway."""

    async def record_login(self, principal: Principal, now: float) -> None: ...

    async def environment_of(self, user_id: str) -> Environment | None: ...

    async def put_environment(self, environment: Environment) -> Environment: ...

    async def touch_environment(self, user_id: str, now: float) -> None: ...

    async def mark_provisioned(self, user_ids: Iterable[str], now: float) -> None: ...

    async def users_per_gateway(self) -> dict[str, int]: ...


class AgentMaker(Protocol):
    async def ensure(self, wanted: Wanted) -> None: ...


@dataclass(frozen=True, slots=True)
class EnvironmentOptions:
    root: str
    """The workspaces root as the gateway sees it."""

    local_root: Path | None
    """The same folder as we see it; None where it cannot be reached from here."""

    readable_issuer: str
    """Name of the issuer whose users are called by their subject; may be empty."""


class Environments:
    """`makers`: one per gateway id, in the order of the configuration."""

    def __init__(
        self,
        store: EnvironmentStore,
        makers: Mapping[str, AgentMaker],
        ready_gateways: Callable[[], Iterable[str]],
        options: EnvironmentOptions,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._makers = makers
        self._ready_gateways = ready_gateways
        self._options = options
        self._clock = clock
        self._known: OrderedDict[str, Environment] = OrderedDict()

    def namespace(self, principal: Principal) -> Namespace:
        return namespace_of(principal, self._options.readable_issuer)

    async def ready(self, principal: Principal, namespace: Namespace) -> Environment:
        """The environment, its agent and its folders in place; `provisioned_at` is None the first time.

        Raises StorageAway, GatewayAway, GatewayOpen, SidecarError.

        While PostgreSQL is away, users whom this replica knows come in as before; new ones are asked to come again.
        """
        try:
            environment = await self._stored(principal, namespace)
        except StorageAway:
            known = self._known.get(principal.user_id)
            if known is None:
                raise
            environment = known
        if self._options.local_root is not None:
            await asyncio.to_thread(make_workspace, self._options.local_root, namespace.slug)
        maker = self._makers.get(environment.gateway_id)
        if maker is None:
            raise GatewayAway("your data lives on a gateway that is not configured here; tell the operator")
        await maker.ensure(Wanted(namespace.slug, environment.workspace_dir))
        if environment.provisioned_at is None:
            await self._mark(environment)
        return environment

    async def _mark(self, environment: Environment) -> None:
        """A note for reports; the gateway's configuration is the truth, so an outage here keeps nobody out."""
        now = self._clock()
        with contextlib.suppress(StorageAway):
            await self._store.mark_provisioned([environment.user_id], now)
            marked = replace(environment, provisioned_at=datetime.fromtimestamp(now, UTC))
            self._known[environment.user_id] = marked

    async def _stored(self, principal: Principal, namespace: Namespace) -> Environment:
        now = self._clock()
        await self._store.record_login(principal, now)
        environment = await self._store.environment_of(principal.user_id)
        if environment is None:
            environment = await self._store.put_environment(await self._new(namespace, now))
        elif environment.agent_id != namespace.agent_id:
            raise SidecarError(
                "the settings name this user otherwise than before: identity.issuers[].readable_ids must not change",
                detail_code="ENVIRONMENT_CONFLICT",
            )
        else:
            await self._store.touch_environment(principal.user_id, now)
        self._known[principal.user_id] = environment
        self._known.move_to_end(principal.user_id)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return environment

    async def _new(self, namespace: Namespace, now: float) -> Environment:
        """On the ready gateway with the fewest users; the first configured of several with as few."""
        ready = list(self._ready_gateways())
        if not ready:
            raise GatewayAway("no gateway is ready", retry_after_ms=1000)
        counts = await self._store.users_per_gateway() if len(ready) > 1 else {}
        gateway_id = min(ready, key=lambda one: counts.get(one, 0))
        moment = datetime.fromtimestamp(now, UTC)
        return Environment(
            user_id=namespace.user_id,
            gateway_id=gateway_id,
            agent_id=namespace.agent_id,
            workspace_dir=f"{self._options.root.rstrip('/')}/{namespace.slug}/workspace",
            profile_name=namespace.slug,
            auth_profile_id=f"user-{namespace.slug.removeprefix('u-')}-anthropic",
            created_at=moment,
            updated_at=moment,
            last_used_at=moment,
        )
