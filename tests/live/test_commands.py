"""Slash commands in every field of a person's text, however they are dressed: a gateway obeys, so users are refused before."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.live.conftest import House
from tests.stack.raw import RawClient, RequestError, is_end_of, text_of

pytestmark = pytest.mark.live

DRESSED = ["/model list", " \ufeff/model list", "/mo\x01del list", "[Mon 10:00] /model list", "/MODEL: list"]
WAYS: dict[str, dict[str, Any]] = {
    "chat.send": {"sessionKey": "{key}", "message": "{text}", "idempotencyKey": "{new}"},
    "sessions.send": {"key": "{key}", "message": "{text}", "idempotencyKey": "{new}"},
    "sessions.steer": {"key": "{key}", "message": "{text}", "idempotencyKey": "{new}"},
    "sessions.create": {"message": "{text}"},
    "sessions.create, as a task": {"task": "{text}"},
}


def asked(way: str, key: str, text: str) -> tuple[str, dict[str, Any]]:
    words = {"{key}": key, "{text}": text, "{new}": str(uuid.uuid4())}
    return way.split(",", maxsplit=1)[0], {name: words[value] for name, value in WAYS[way].items()}


@pytest.mark.parametrize("way", WAYS)
async def test_a_gateway_obeys_and_no_user_gets_so_far(house: House, way: str) -> None:
    async with RawClient.admin(house.gateway) as operator, house.client("corinna") as corinna:
        for client in (operator, corinna):
            await client.chat("commands", "the session is there")
        await operator.request("sessions.subscribe", {})
        for text in DRESSED if way == "chat.send" else DRESSED[1:3]:
            assert "Providers:" in await answer(operator, *asked(way, "agent:main:commands", text)), text
            with pytest.raises(RequestError) as refused:
                await corinna.request(*asked(way, "commands", text))
            assert refused.value.detail_code == "COMMAND_NOT_ALLOWED", text


async def answer(client: RawClient, method: str, params: dict[str, Any]) -> str:
    """What the gateway says when the run is over."""
    run = (await client.request(method, params))["runId"]
    end = await client.wait_for(is_end_of(run), timeout=60)
    return text_of(end["payload"]["message"])
