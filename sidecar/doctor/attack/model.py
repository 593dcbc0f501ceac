"""A model that does what it is told: an OpenAI-compatible server for the attack's own turns.

A turn is known by the ticket in its message. The first request of a turn is answered with its script (calls of tools, or a reply);
the next brings what the tools returned. Requests without a ticket (recaps, titles) are answered with a word.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MAX_BODY = 32 * 1024 * 1024
ASKED_AGAIN = 2
"""So often the calls of a turn are given: a request may be lost. 2026.8.2 drops calls of tools that it did not offer; where it
dropped all of them it asks again, without end."""

_TICKET = re.compile(r"ticket-[0-9a-f]{16}")


@dataclass(slots=True)
class Turn:
    """One turn that will come. `calls` are (tool, arguments); without any, `reply` is the answer."""

    ticket: str
    role: str
    """The model that its agent asks: the last word of the agent's name."""

    calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    reply: str = "done"
    results: dict[int, str] = field(default_factory=dict)
    """Index of a call → what its tool returned."""

    prompts: list[str] = field(default_factory=list)
    """Everything that the gateway sent for it, as JSON."""

    tools: set[str] = field(default_factory=set)
    """The tools that it offered."""

    answered: asyncio.Event = field(default_factory=asyncio.Event)


class ScriptedModel:
    """`async with ScriptedModel(host, port) as model:`; `base_url` is for the gateway's provider entry."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.key = secrets.token_hex(16)
        self.base_url = ""
        self._host = host
        self._port = port
        self._turns: dict[str, Turn] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> ScriptedModel:
        """Raises OSError where the address cannot be had."""
        application = web.Application(client_max_size=MAX_BODY)
        application.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        port = self._runner.addresses[0][1]
        self.base_url = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def expect(self, agent: str, calls: Sequence[tuple[str, Mapping[str, Any]]] = (), reply: str = "done") -> Turn:
        """A turn of this agent that is about to be asked for; its message has to hold the ticket."""
        turn = Turn(f"ticket-{secrets.token_hex(8)}", agent.rpartition("-")[2], calls, reply)
        self._turns[turn.ticket] = turn
        return turn

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get("authorization", ""), f"Bearer {self.key}"):
            return web.json_response({"error": {"message": "not for you"}}, status=401)
        body = await request.json()
        turn = self._turn(body)
        delta = _said("fine") if turn is None else self._next(turn, body)
        return await _answer(request, delta, stream=body.get("stream") is True)

    def _turn(self, body: Mapping[str, Any]) -> Turn | None:
        """The last message of a person that holds a ticket says which, if it is one of the agent that asks; later messages may be
        the gateway's own."""
        for message in reversed(body.get("messages", [])):
            if message.get("role") == "user" and (found := _TICKET.search(_text(message))):
                turn = self._turns.get(found[0])
                return turn if turn is not None and turn.role == body.get("model") else None
        return None

    def _next(self, turn: Turn, body: Mapping[str, Any]) -> dict[str, Any]:
        turn.prompts.append(json.dumps(body["messages"], ensure_ascii=False))
        turn.tools |= {str(tool.get("function", {}).get("name")) for tool in body.get("tools", [])}
        returned = {str(one.get("tool_call_id")): _text(one) for one in body["messages"] if one.get("role") == "tool"}
        for index in range(len(turn.calls)):
            if (text := returned.get(_call_id(turn, index))) is not None:
                turn.results[index] = text
        if turn.calls and not turn.results and len(turn.prompts) <= ASKED_AGAIN:
            return {
                "role": "assistant",
                "content": None,
                "tool_calls": [_call(turn, i) for i in range(len(turn.calls))],
            }
        turn.answered.set()
        return _said(turn.reply)


def _call_id(turn: Turn, index: int) -> str:
    return f"c{turn.ticket[-8:]}{index:03d}"


def _call(turn: Turn, index: int) -> dict[str, Any]:
    name, arguments = turn.calls[index]
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"index": index, "id": _call_id(turn, index), "type": "function", "function": function}


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content if isinstance(block, dict))


async def _answer(request: web.Request, message: Mapping[str, Any], *, stream: bool) -> web.StreamResponse:
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    head = {"id": "doctor", "created": 0, "model": "sidecar-doctor"}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    if not stream:
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for choices in (
        [{"index": 0, "delta": message, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": finish}],
    ):
        chunk = {**head, "object": "chat.completion.chunk", "choices": choices}
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


def listening(base_url: str) -> bool:
    """Does somebody answer where an earlier attack's model was? Then that attack still runs."""
    address, _, port = base_url.removeprefix("http://").partition("/")[0].rpartition(":")
    try:
        with socket.create_connection((address.strip("[]"), int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False
