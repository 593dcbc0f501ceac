"""What the attack makes in a gateway, and how it is taken back, this time's and what an earlier one left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.doctor.attack.ground import OURS, PREFIX, PROVIDER, leftovers
from sidecar.doctor.attack.model import listening
from sidecar.doctor.shape import member
from sidecar.errors import GatewayAway, SidecarError
from sidecar.gateways.configuration import replaced_arrays
from sidecar.gateways.rpc import RequestRefused, Rpc

ATTEMPTS = 6
DELETE_SECONDS = 90.0


class AttackRefused(SidecarError):
    """The attack cannot begin; the message says why."""

    detail_code = "ATTACK_REFUSED"


@dataclass(slots=True)
class Belongings:
    """Of one gateway. `local_root` is `environments.root` as we see it, None where it cannot be reached from here."""

    rpc: Rpc
    local_root: Path | None
    state_dir: Path | None
    """The gateway's, where it is on this host."""

    kept: list[str] = field(default_factory=list)
    """What could not be taken back, for people."""

    async def configuration(self) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
        """(hash, source, effective). Raises AttackRefused, GatewayAway."""
        answer = await self.rpc.request("config.get", {})
        effective, source = member(answer, "config"), member(answer, "sourceConfig")
        if not isinstance(effective, Mapping) or not isinstance(source, Mapping) or not effective:
            raise AttackRefused("the gateway's configuration file is not valid: mend it first")
        return str(member(answer, "hash")), source, effective

    async def patch(self, make: Mapping[str, Any]) -> None:
        """Merge into the configuration; again where somebody else wrote at that moment. Raises AttackRefused, GatewayAway."""
        for _ in range(ATTEMPTS):
            base, source, _effective = await self.configuration()
            params: dict[str, Any] = {"raw": json.dumps(make), "baseHash": base}
            if replaced := replaced_arrays(source, make):
                params["replacePaths"] = replaced
            try:
                await self.rpc.request("config.patch", params)
            except RequestRefused as refused:
                await self._after(refused)
            else:
                return
        raise AttackRefused("the gateway's configuration is being changed by somebody else all the time")

    async def _after(self, refused: RequestRefused) -> None:
        message, retry = str(refused.error.get("message", "")), refused.error.get("retryAfterMs")
        if isinstance(retry, int):
            await asyncio.sleep(min(retry, 60_000) / 1000)
        elif "changed since last load" in message:
            await asyncio.sleep(0.5)
        else:
            raise AttackRefused(f"the gateway refuses to be written: {message[:200]}")

    async def take_back_earlier(self) -> list[str]:
        """The agents that an earlier attack left behind, which are gone now. Raises AttackRefused where one still runs."""
        _, source, _ = await self.configuration()
        agents, provider = leftovers(source)
        url = member(source, f"models.providers.{PROVIDER}.baseUrl")
        if isinstance(url, str) and await asyncio.to_thread(listening, url):
            raise AttackRefused("another `doctor --attack` runs against this gateway: wait for its end")
        if agents or provider:
            await self.take_back(agents)
        self._sweep()
        return agents

    async def take_back(self, agents: Sequence[str]) -> None:
        """Agents with sessions and workspaces, provider, jobs, folders. Never raises; `kept` says what is still there.

        Agents go by `agents.delete`: a patch that drops one is refused (2026.9.6).
        """
        with contextlib.suppress(GatewayAway):
            await self._jobs()
        try:
            await self._delete(agents)
            _, source, _ = await self.configuration()
            still, provider = leftovers(source)
            if provider:
                await self.patch({"models": {"providers": {PROVIDER: None}}})
        except (AttackRefused, GatewayAway) as error:
            self.kept.append(f"agents and provider called {PREFIX}… ({error.message})")
        else:
            self.kept += [f"the agent {agent}" for agent in still]
        self._sweep()

    async def _delete(self, agents: Sequence[str]) -> None:
        """Again where the configuration was written at that moment. Raises GatewayAway."""
        for _ in range(ATTEMPTS):
            _, source, _ = await self.configuration()
            there = [agent for agent in leftovers(source)[0] if agent in agents]
            for agent in there:
                with contextlib.suppress(RequestRefused):
                    await self.rpc.request("agents.delete", {"agentId": agent, "deleteFiles": True}, DELETE_SECONDS)
            if not there:
                return
            await asyncio.sleep(0.5)

    async def _jobs(self) -> None:
        answer = await self.rpc.request("cron.list", {"includeDisabled": True})
        jobs = answer.get("jobs") if isinstance(answer, dict) else None
        for job in jobs if isinstance(jobs, list) else ():
            if isinstance(job, dict) and OURS.search(json.dumps(job)):
                await self.rpc.request("cron.remove", {"id": job.get("id")})

    def _sweep(self) -> None:
        """Folders that `agents.delete` leaves: it moves what is in them to the trash of the gateway's user (2026.9.6)."""
        for root in (self.local_root, self.state_dir / "agents" if self.state_dir else None):
            with contextlib.suppress(OSError):
                for folder in list(root.iterdir()) if root else ():
                    if OURS.fullmatch(folder.name) and not folder.is_symlink():
                        shutil.rmtree(folder)
