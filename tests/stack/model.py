"""The echo model: a small OpenAI-compatible server that does what it is told and counts what it serves.

`POST /v1/chat/completions` (streamed and not), `GET /v1/models`, `GET /counts`. See `directives.py` for
what can be asked of it and for what a token is. Whom it served is known from the bearer and from the agent
that the gateway names in its prompt, so counts are kept per (bearer, agent).

    python -m tests.stack.model --port 8081
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

from tests.stack.directives import Directives, ToolCall, Turn, count_prompt, count_tokens, parse, read_turn

KEPT_CALLS = 500
MAX_BODY = 64 * 1024 * 1024
STEP_S = 0.02


@dataclass(slots=True)
class Counts:
    """What one bearer was served for one agent. A token is a word."""

    calls: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    """Part of `prompt`."""
    failures: int = 0
    """Calls answered with an HTTP error, or cut off, as directed. An HTTP error counts no tokens."""
    aborts: int = 0
    """Calls whose client went away before the end; their tokens count as far as they were sent."""


@dataclass(slots=True)
class Call:
    """One request, as it came and what became of it."""

    bearer: str
    turn: Turn
    directives: Directives
    body: dict[str, Any]
    headers: dict[str, str]
    prompt: int
    completion: int = 0
    outcome: str = "running"
    """`running`, `served`, `failed` or `aborted`."""
    ended: float = 0.0
    """Unix seconds; 0 while it runs."""


class CutOffError(ConnectionResetError):
    """We broke the connection off ourselves."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say: text, or tool calls."""

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)


class EchoModel:
    """`async with EchoModel() as model:` in this process; `model.url` is the provider's base URL."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.calls: deque[Call] = deque(maxlen=KEPT_CALLS)
        """The latest requests, oldest first."""
        self.counts: defaultdict[tuple[str, str], Counts] = defaultdict(Counts)
        """By (bearer, agent); both empty strings where there is none."""
        self._failed: Counter[tuple[str, str]] = Counter()
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> EchoModel:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/counts", self._get_counts)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.port = runner.addresses[0][1]
        self._runner = runner
        self._stopping.clear()

    async def stop(self) -> None:
        """Break off what streams and close. Stop the gateway first: it waits for its runs."""
        self._stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def counted(self, agent: str) -> Counts:
        """The counts of one agent over all bearers."""
        total = Counts()
        for (_, name), counts in self.counts.items():
            if name == agent:
                for key, value in asdict(counts).items():
                    setattr(total, key, getattr(total, key) + value)
        return total

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake-1", "object": "model"}]})

    async def _get_counts(self, request: web.Request) -> web.Response:
        rows = [{"bearer": key[0], "agent": key[1], **asdict(counts)} for key, counts in self.counts.items()]
        return web.json_response(rows)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
            call = self._take(request, body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return _error(400, f"not a chat completion request: {error!r}")
        counts = self.counts[call.bearer, call.turn.agent]
        counts.calls += 1
        try:
            return await self._answer(request, call, counts)
        except CutOffError:
            call.outcome = "failed"
            counts.failures += 1
        except ConnectionResetError:
            call.outcome = "aborted"
            counts.aborts += 1
        finally:
            call.ended = time.time()
            counts.completion += call.completion
        return web.Response()  # into a closed connection

    def _take(self, request: web.Request, body: dict[str, Any]) -> Call:
        messages = body["messages"]
        turn = read_turn(messages)
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        call = Call(bearer, turn, parse(turn.person), body, dict(request.headers), count_prompt(messages))
        self.calls.append(call)
        return call

    async def _answer(self, request: web.Request, call: Call, counts: Counts) -> web.StreamResponse:
        if self._must_fail(call):
            await self._pause(request, call.directives.wait)
            call.outcome = "failed"
            counts.failures += 1
            return _error(call.directives.fail_status, "failing as directed")
        counts.prompt += call.prompt
        counts.cached += min(call.directives.cached, call.prompt)
        await self._pause(request, call.directives.wait)
        response = await (self._stream if call.body.get("stream") else self._whole)(request, call, _decide(call))
        call.outcome = "served"
        return response

    def _must_fail(self, call: Call) -> bool:
        directives = call.directives
        if not directives.fail_status:
            return False
        key = (call.turn.session, call.turn.person)
        self._failed[key] += 1
        return directives.fail_times is None or self._failed[key] <= directives.fail_times

    async def _stream(self, request: web.Request, call: Call, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        head = {
            "id": _id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": "fake-1",
        }

        async def send(delta: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            await _write_event(request, response, head | {"choices": [choice]})

        await send({"role": "assistant", "content": ""})
        pieces = list(_pieces(answer.text, call.directives.chunks))
        for index, piece in enumerate(pieces):
            await self._pause(request, call.directives.delay)
            if call.directives.cut and index >= len(pieces) // 2:
                raise _cut_off(request)
            await send({"content": piece})
            call.completion += count_tokens(piece)
        if answer.calls:
            await send({"tool_calls": _tool_calls(answer, with_index=True)})
            call.completion += _tool_tokens(answer)
        await send({}, "tool_calls" if answer.calls else "stop")
        if (call.body.get("stream_options") or {}).get("include_usage") and not call.directives.uncounted:
            await _write_event(request, response, head | {"choices": [], "usage": _usage(call)})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _whole(self, request: web.Request, call: Call, answer: Answer) -> web.Response:
        for _ in _pieces(answer.text, call.directives.chunks):
            await self._pause(request, call.directives.delay)
        if call.directives.cut:
            raise _cut_off(request)
        call.completion += count_tokens(answer.text) + _tool_tokens(answer)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.calls:
            message["tool_calls"] = _tool_calls(answer)
        finish = "tool_calls" if answer.calls else "stop"
        return web.json_response(
            {
                "id": _id(),
                "object": "chat.completion",
                "created": int(time.time()),
                "model": "fake-1",
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": _usage(call),
            }
        )

    async def _pause(self, request: web.Request, seconds: float) -> None:
        """Sleep, and notice within a step that the client has left or that we stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            _check_present(request)
            if self._stopping.is_set():
                raise _cut_off(request)
            await asyncio.sleep(min(STEP_S, left))


def _decide(call: Call) -> Answer:
    directives, turn = call.directives, call.turn
    if turn.rounds_done < len(directives.rounds):
        return Answer(calls=directives.rounds[turn.rounds_done])
    if directives.reply is not None:
        return Answer(directives.reply)
    if turn.results:
        return Answer("\n".join(f"tool {name}: {text}" for name, text in turn.results))
    return Answer(f"echo: {directives.text}")


def _pieces(text: str, chunks: int) -> Iterator[str]:
    """Cut at word ends: `chunks` pieces, or a word each; joined they are `text`."""
    words = text.split(" ")
    count = min(chunks, len(words)) or len(words)
    for index in range(count):
        start, end = index * len(words) // count, (index + 1) * len(words) // count
        yield " ".join(words[start:end]) + (" " if end < len(words) else "")


def _tool_calls(answer: Answer, *, with_index: bool = False) -> list[dict[str, Any]]:
    return [
        ({"index": index} if with_index else {})
        | {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for index, call in enumerate(answer.calls)
    ]


def _tool_tokens(answer: Answer) -> int:
    return sum(count_tokens(f"{call.name} {json.dumps(call.arguments)}") for call in answer.calls)


def _usage(call: Call) -> dict[str, Any]:
    cached = min(call.directives.cached, call.prompt)
    return {
        "prompt_tokens": call.prompt,
        "completion_tokens": call.completion,
        "total_tokens": call.prompt + call.completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "echo_model", "code": status}}, status=status)


async def _write_event(request: web.Request, response: web.StreamResponse, event: dict[str, Any]) -> None:
    _check_present(request)
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


def _check_present(request: web.Request) -> None:
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the client went away")


def _cut_off(request: web.Request) -> CutOffError:
    if request.transport is not None:
        request.transport.abort()
    return CutOffError("cut off")


async def serve(port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with EchoModel(port) as model:
        print(json.dumps({"url": model.url}), flush=True)
        await ended.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The echo model.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    asyncio.run(serve(parser.parse_args().port))
