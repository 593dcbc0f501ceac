"""Turns of the throw-away agents, over the sidecar's own kind of connection."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.doctor.attack.model import ScriptedModel, Turn
from sidecar.errors import GatewayAway
from sidecar.gateways.rpc import RequestRefused, Rpc

TURN_SECONDS = 90.0
CALLS_A_TURN = 32
DROPPED = "Tool not available: not offered, and its call was dropped"
"""What 2026.8.2 does and says nothing about; later gateways return a refusal."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where turns are run: the gateway, and the model that they ask."""

    rpc: Rpc
    model: ScriptedModel

    async def turn(
        self,
        agent: str,
        calls: Sequence[tuple[str, Mapping[str, Any]]] = (),
        *,
        reply: str = "done",
        say: str = "",
        session: str = "",
    ) -> Turn:
        """One turn to its end, in a session of its own unless `session` names one. Raises GatewayAway."""
        turn = self.model.expect(agent, calls, reply)
        params = {
            "sessionKey": f"agent:{agent}:{session or turn.ticket}",
            "message": f"{say} {turn.ticket}".strip(),
            "idempotencyKey": secrets.token_hex(16),
        }
        started = await self.rpc.request("chat.send", params, TURN_SECONDS)
        run_id = started.get("runId") if isinstance(started, dict) else None
        await self.rpc.request("agent.wait", {"runId": run_id, "timeoutMs": TURN_SECONDS * 1000}, TURN_SECONDS + 5)
        return turn

    async def calls(self, agent: str, wanted: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[int, str]:
        """All these calls, some in each turn: index → what the tool returned. What is missing never came back."""
        returned: dict[int, str] = {}
        for begin in range(0, len(wanted), CALLS_A_TURN):
            part = wanted[begin : begin + CALLS_A_TURN]
            turn = await self.turn(agent, part)
            if turn.answered.is_set():
                dropped = [index for index, (tool, _) in enumerate(part) if tool not in turn.tools]
                returned |= {begin + index: DROPPED for index in dropped}
            returned |= {begin + index: text for index, text in turn.results.items()}
        return returned

    async def invoke(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> str | None:
        """By `tools.invoke`; what it said, None where it said nothing in time."""
        params = {"name": tool, "args": dict(arguments), "sessionKey": f"agent:{agent}:invoke"}
        try:
            return json.dumps(await self.rpc.request("tools.invoke", params, 20.0), ensure_ascii=False)
        except RequestRefused as refused:
            return json.dumps(refused.error, ensure_ascii=False)
        except GatewayAway:
            return None

    async def history(self, key: str) -> list[dict[str, Any]]:
        """The messages of a session; none where there is no such session."""
        try:
            answer = await self.rpc.request("chat.history", {"sessionKey": key, "limit": 200})
        except RequestRefused:
            return []
        messages = answer.get("messages") if isinstance(answer, dict) else None
        return [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []

    async def sessions(self, agent: str) -> list[dict[str, Any]]:
        answer = await self.rpc.request("sessions.list", {"agentId": agent, "limit": 200})
        rows = answer.get("sessions") if isinstance(answer, dict) else None
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
