"""What must be asked, counted or done for a request before it may go on: whose ids it names, its run, its session's reset.

Everything here waits for somebody: Redis, or the sidecar's own connection to the gateway.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from sidecar.errors import MethodRefused, SidecarError
from sidecar.gateways.rpc import RequestRefused
from sidecar.policy import resets
from sidecar.policy.requests import Claimed, Forward, replaced
from sidecar.policy.responses import error_of_gateway
from sidecar.protocol import frames
from sidecar.protocol.handshake import BROWSER_CLIENTS
from sidecar.quota.runs import ACT
from sidecar.relay.scope import Scope
from sidecar.relay.subscriptions import keys_begun
from sidecar.telemetry.facts import ActedAsAdmin, Report, RunAdmitted


class Errands:
    """Of one connection."""

    def __init__(self, scope: Scope, report: Report) -> None:
        self._scope = scope
        self._report = report

    async def own_ids(self, decision: Forward) -> dict[str, Any]:
        """The parameters with the ids that the gateway knows. Raises ForeignKey for one that is not the caller's; StorageAway."""
        params = decision.params
        for claimed in decision.claims:
            own = await self._own_id(claimed)
            if own != claimed.id:
                params = replaced(params, claimed.place, own)
        return params

    async def _own_id(self, claimed: Claimed) -> str:
        scope = self._scope
        if claimed.kind != "run":
            await scope.handles.require(claimed.kind, claimed.id, scope.namespace.slug)
            return claimed.id
        run_id = await scope.runs.require_own(scope.namespace.slug, claimed.id)
        if run_id != claimed.id:
            scope.alias(run_id, claimed.id)
        return run_id

    async def begun(self, decision: Forward, params: dict[str, Any], request_id: str) -> tuple[dict[str, Any], str]:
        """Count in the run that the request starts, or the act that counts as one; empty its session, if the message says so.

        The parameters with the run's id upstream, and that id where it is counted for this request. Raises SidecarError.
        """
        if decision.row.counts:
            act = f"{ACT}{secrets.token_hex(16)}"
            await self._scope.runs.admit(self._scope.namespace.slug, act)
            return params, act
        if decision.new_run is None:
            return params, ""
        run_id, counted = await self._admitted(decision.new_run, next(keys_begun(decision.row, params), ""))
        if run_id != decision.new_run:
            params = {**params, decision.new_run_param: run_id}
        if decision.reset:
            try:
                await self.reset(decision.reset, params["sessionKey"], request_id)
            except SidecarError:
                if counted:
                    self._scope.runs.ended(self._scope.namespace.slug, run_id)
                raise
        return params, run_id if counted else ""

    async def _admitted(self, wanted: str, session_key: str) -> tuple[str, bool]:
        """Count the run in, its id being the user's: the id to use upstream, and whether it is counted for this request."""
        scope = self._scope
        scope.still_open()
        run_id, counted = await scope.runs.begin(scope.namespace.slug, wanted, session_key)
        if run_id != wanted:
            scope.alias(run_id, wanted)
        self._report(RunAdmitted(scope.connection_id, scope.principal.user_id, run_id))
        return run_id, counted

    async def reset(self, reason: str, key: str, request_id: str) -> None:
        """Empty a session. Raises MethodRefused, and what `Scope.still_open` raises."""
        self._scope.still_open()
        answer = await self.as_admin(resets.METHOD, {"key": key, "reason": reason}, request_id)
        if answer["ok"] is not True:
            raise MethodRefused(error_of_gateway(answer["error"])["message"], detail_code="RESET_FAILED")

    async def as_admin(self, method: str, params: dict[str, Any], request_id: str) -> dict[str, Any]:
        """Have the sidecar's own connection do it, and tell the audit log, whatever becomes of it.

        What the gateway lets only admins do; all that `params` names is the caller's already. The answer: `ok`, and `payload` or
        `error`.
        """
        scope, outcome = self._scope, "unanswered"
        try:
            payload = await scope.as_admin(method, params)
            outcome = "ok"
        except RequestRefused as refused:
            outcome = str(refused.error.get("code", "refused"))[:64]
            return {"ok": False, "error": refused.error}
        except SidecarError as error:
            outcome = error.detail_code
            return {"ok": False, "error": error.to_wire()}
        finally:
            self._report(ActedAsAdmin(scope.connection_id, scope.principal.user_id, method, outcome, request_id[:64]))
        return {"ok": True, "payload": payload}


def reset_notice(decision: Forward) -> bytes:
    """The event by which the gateway itself ends a turn that is only `/new` (2026.9.6); no number, as for one client alone."""
    content = [{"type": "text", "text": resets.NOTICES[decision.reset], "openclawStatusNotice": True}]
    message = {"role": "assistant", "content": content, "timestamp": int(time.time() * 1000), "stopReason": "stop"}
    payload = {"runId": decision.new_run, "sessionKey": decision.params["sessionKey"], "seq": 1, "state": "final"}
    return frames.event("chat", {**payload, "message": message})


def shown_as_banner(client_id: str, decision: Forward) -> bool:
    """Does this client hide the refusal of a message in a tooltip ("Not sent"), and show the end of a failed turn? (2026.9.6)"""
    return decision.row.name == "chat.send" and client_id in BROWSER_CLIENTS


def refusal_notice(decision: Forward, error: SidecarError) -> bytes:
    """The event by which a gateway ends a turn that failed (2026.9.6), so that nothing waits for it."""
    payload = {"runId": decision.new_run, "sessionKey": decision.params["sessionKey"], "seq": 1, "state": "error"}
    return frames.event("chat", {**payload, "errorMessage": error.message})
