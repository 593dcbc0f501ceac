"""Gateways that were patched to take `workspaceDir` and `authProfileId`: they get the user's own, whatever a client wrote.

No released gateway takes them (2026.9.6: `unexpected property 'workspaceDir'`), so a stub stands for one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.relay.conftest import Narrow
from tests.stack.raw import RawClient


@pytest.mark.parametrize(
    "written",
    [{}, {"workspaceDir": "/", "authProfileId": "somebody-else"}, {"workspaceDir": None}],
    ids=["nothing", "another's", "nonsense"],
)
async def test_the_own_workspace_and_profile_are_set(roomy: Narrow, written: dict[str, object]) -> None:
    auth = {"token": await roomy.token("fay")}
    key = "agent:u-fay:work"
    async with RawClient.connect(roomy.sidecar.url, auth, sessionKey=key, workspaceDir="/") as client:
        assert client.hello["snapshot"]["sessionDefaults"]["mainSessionKey"] == key
        await client.request("chat.send", {"sessionKey": "main", "message": "hi", **written})
        requests = roomy.stub.of("u-fay")[-1].requests
        assert {"workspaceDir", "sessionKey"}.isdisjoint(requests[0]["params"])
        params = requests[-1]["params"]
        assert params["workspaceDir"] == str(Path(roomy.sidecar.options.gateway.workspaces) / "u-fay" / "workspace")
        assert params["authProfileId"] == "user-fay-anthropic"
        await client.request("chat.history", {"sessionKey": "main"})
        assert "workspaceDir" not in requests[-1]["params"]
