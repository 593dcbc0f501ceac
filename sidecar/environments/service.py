"""A principal's environment: found or made, the same on every connect and on every replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sidecar.domain.environment import Environment
from sidecar.domain.namespace import Layout, Namespace
from sidecar.domain.principal import Principal
from sidecar.environments.naming import namespace_of
from sidecar.environments.openness import Wanted
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

    layouts: Mapping[str, Layout] = field(default_factory=dict)
    """By gateway id; a gateway that is not named here gives each user an agent."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a user is: what is stored of it, and what they own there."""

    environment: Environment
    """`workspace_dir` is where their runs work, so that of the shared agent where there is one for all."""

    namespace: Namespace


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

    def namespace(self, principal: Principal, gateway_id: str) -> Namespace:
        return namespace_of(principal, self._options.readable_issuer, self._layout(gateway_id))

    async def ready(self, principal: Principal) -> Home:
        """The user's home, its agent and its folders in place; `provisioned_at` is None the first time.

        Raises StorageAway, GatewayAway, GatewayOpen, SidecarError.

        While PostgreSQL is away, users whom this replica knows come in as before; new ones are asked to come again.
        """
        try:
            environment = await self._stored(principal)
        except StorageAway:
            known = self._known.get(principal.user_id)
            if known is None:
                raise
            environment = known
        layout = self._layout(environment.gateway_id)
        namespace = self.namespace(principal, environment.gateway_id)
        if self._options.local_root is not None:
            for name in _folders(layout, namespace):
                await asyncio.to_thread(make_workspace, self._options.local_root, name)
        maker = self._makers.get(environment.gateway_id)
        if maker is None:
            raise GatewayAway("your data lives on a gateway that is not configured here; tell the operator")
        agents = self._workspace(namespace.agent_id) if namespace.is_shared else environment.workspace_dir
        await maker.ensure(Wanted(namespace.agent_id, agents))
        if environment.provisioned_at is None:
            await self._mark(environment)
        if namespace.is_shared and not layout.own_workspaces:
            environment = replace(environment, workspace_dir=agents)
        return Home(environment, namespace)

    async def find(self, principal: Principal) -> Environment | None:
        """What is stored of the user, None where they were never here; nothing is made. Raises StorageAway for who is not known."""
        try:
            return await self._store.environment_of(principal.user_id)
        except StorageAway:
            known = self._known.get(principal.user_id)
            if known is None:
                raise
            return known

    def _layout(self, gateway_id: str) -> Layout:
        return self._options.layouts.get(gateway_id, _AN_AGENT_EACH)

    def _workspace(self, name: str) -> str:
        return f"{self._options.root.rstrip('/')}/{name}/workspace"

    async def _mark(self, environment: Environment) -> None:
        """A note for reports; the gateway's configuration is the truth, so an outage here keeps nobody out."""
        now = self._clock()
        with contextlib.suppress(StorageAway):
            await self._store.mark_provisioned([environment.user_id], now)
            marked = replace(environment, provisioned_at=datetime.fromtimestamp(now, UTC))
            self._known[environment.user_id] = marked

    async def _stored(self, principal: Principal) -> Environment:
        now = self._clock()
        await self._store.record_login(principal, now)
        environment = await self._store.environment_of(principal.user_id)
        if environment is None:
            environment = await self._store.put_environment(await self._new(principal, now))
        elif not self._is_named(environment, self.namespace(principal, environment.gateway_id)):
            raise SidecarError(
                "the settings name this user otherwise than before: identity.issuers[].readable_ids, gateways[].namespace and "
                "gateways[].shared_agent must not change",
                detail_code="ENVIRONMENT_CONFLICT",
            )
        else:
            await self._store.touch_environment(principal.user_id, now)
        self._known[principal.user_id] = environment
        self._known.move_to_end(principal.user_id)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return environment

    def _is_named(self, environment: Environment, namespace: Namespace) -> bool:
        """Does what is stored lie where `namespace` says? Of a gateway that is gone from the settings nobody knows."""
        if environment.gateway_id not in self._makers:
            return True
        return (environment.agent_id, environment.profile_name) == (namespace.agent_id, namespace.slug)

    async def _new(self, principal: Principal, now: float) -> Environment:
        """On the ready gateway with the fewest users; the first configured of several with as few."""
        ready = list(self._ready_gateways())
        if not ready:
            raise GatewayAway("no gateway is ready", retry_after_ms=1000)
        counts = await self._store.users_per_gateway() if len(ready) > 1 else {}
        gateway_id = min(ready, key=lambda one: counts.get(one, 0))
        moment = datetime.fromtimestamp(now, UTC)
        namespace = self.namespace(principal, gateway_id)
        return Environment(
            user_id=namespace.user_id,
            gateway_id=gateway_id,
            agent_id=namespace.agent_id,
            workspace_dir=self._workspace(namespace.slug),
            profile_name=namespace.slug,
            auth_profile_id=f"user-{namespace.slug.removeprefix('u-')}-anthropic",
            created_at=moment,
            updated_at=moment,
            last_used_at=moment,
        )


_AN_AGENT_EACH = Layout()


def _folders(layout: Layout, namespace: Namespace) -> list[str]:
    """Names of the folders, below the root, that runs of this user work in."""
    if not namespace.is_shared:
        return [namespace.slug]
    return [namespace.agent_id, *([namespace.slug] if layout.own_workspaces else [])]
