#!/usr/bin/env python3
"""One question to your own agent, and its answer. Needs Python 3.11 and aiohttp.

OPENCLAW_GATEWAY_URL=ws://127.0.0.1:8080 OPENCLAW_GATEWAY_TOKEN=… python chat_example.py "What is in my workspace?"
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from typing import Any

import aiohttp

CONNECT = {
    "minProtocol": 4,
    "maxProtocol": 4,
    "client": {"id": "gateway-client", "version": "1.0.0", "platform": sys.platform, "mode": "backend"},
    "role": "operator",
    "scopes": ["operator.read", "operator.write"],
    "caps": [],
}


class Chat:
    """An open connection: requests go out numbered, answers and events come back in any order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        request_id = str(uuid.uuid4())
        await self._socket.send_json({"type": "req", "id": request_id, "method": method, "params": params})
        while True:
            frame = await self._next()
            if frame.get("type") == "res" and frame.get("id") == request_id:
                if frame["ok"]:
                    return frame["payload"]
                raise SystemExit(f"{method}: {frame['error']['message']}")

    async def ask(self, message: str) -> str:
        run_id = str(uuid.uuid4())
        params = {"sessionKey": "main", "message": message, "idempotencyKey": run_id}
        await self.request("chat.send", params)
        while True:
            frame = await self._next()
            payload: dict[str, Any] = frame.get("payload") or {}
            if frame.get("event") != "chat" or payload["runId"] != run_id:
                continue
            if payload["state"] == "final":
                return "".join(block.get("text", "") for block in payload["message"]["content"])
            if payload["state"] in {"aborted", "error"}:
                raise SystemExit(f"the run ended as {payload['state']}: {payload.get('errorMessage', '')}")

    async def _next(self) -> dict[str, Any]:
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise SystemExit(f"the connection was closed: {self._socket.close_code} {message.extra or ''}".rstrip())
        frame: dict[str, Any] = message.json()
        return frame


async def main() -> None:
    if "OPENCLAW_GATEWAY_URL" not in os.environ or "OPENCLAW_GATEWAY_TOKEN" not in os.environ:
        raise SystemExit("set OPENCLAW_GATEWAY_URL (ws://… or wss://…) and OPENCLAW_GATEWAY_TOKEN")
    url, token = os.environ["OPENCLAW_GATEWAY_URL"], os.environ["OPENCLAW_GATEWAY_TOKEN"]
    question = " ".join(sys.argv[1:]) or "hello"
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            chat = Chat(socket)
            hello = await chat.request("connect", CONNECT)
            print(f"connected as agent {hello['snapshot']['sessionDefaults']['defaultAgentId']}", file=sys.stderr)
            print(await chat.ask(question))
    except aiohttp.ClientError as error:
        raise SystemExit(f"no connection to {url}: {error}") from None


if __name__ == "__main__":
    asyncio.run(main())
