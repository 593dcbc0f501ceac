"""The echo model over HTTP, as a provider's client sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.stack.model import Counts, EchoModel
from tests.stack.test_directives import RUNTIME


@pytest.fixture
async def model() -> AsyncIterator[EchoModel]:
    async with EchoModel() as running:
        yield running


def body(text: str, *more: dict[str, Any], **over: Any) -> dict[str, Any]:
    return {"model": "fake-1", "messages": [{"role": "user", "content": text}, *more]} | over


async def ask(model: EchoModel, request: Any, bearer: str = "key") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {bearer}"}
    url = f"{model.url}/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=request, headers=headers) as response:
        return response.status, await response.json()


async def stream(model: EchoModel, text: str) -> list[Any]:
    request = body(text, stream=True, stream_options={"include_usage": True})
    url = f"{model.url}/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=request) as response:
        assert response.status == 200
        lines = [line.decode().strip() async for line in response.content if line.strip()]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def said(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def test_a_whole_answer_with_its_usage(model: EchoModel) -> None:
    status, answer = await ask(model, body(f"one two [[cached 3]]\n\n{RUNTIME}"))
    assert status == 200
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "echo: one two"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    prompt = model.calls[-1].prompt
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 3,
        "total_tokens": prompt + 3,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    assert model.counts == {("key", "u-alice"): Counts(calls=1, prompt=prompt, completion=3, cached=3)}


async def test_a_streamed_answer_in_pieces(model: EchoModel) -> None:
    chunks = await stream(model, "[[slow 2 1]] a b c")
    pieces = [said([chunk]) for chunk in chunks if said([chunk])]
    assert pieces == ["echo: a ", "b c"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == 4


async def test_tool_rounds(model: EchoModel) -> None:
    text = '[[tool read {"path": "a"}]] [[also ls {}]] [[tool ls {"path": "b"}]]'
    chunks = await stream(model, text)
    calls = next(
        choice["delta"]["tool_calls"]
        for chunk in chunks
        for choice in chunk["choices"]
        if "tool_calls" in choice["delta"]
    )
    assert [(call["index"], call["function"]["name"]) for call in calls] == [(0, "read"), (1, "ls")]
    assert json.loads(calls[0]["function"]["arguments"]) == {"path": "a"}
    first = {"role": "assistant", "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": call["id"], "content": call["function"]["name"]} for call in calls]
    _, answer = await ask(model, body(text, first, *results))
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    (second,) = answer["choices"][0]["message"]["tool_calls"]
    more = [answer["choices"][0]["message"], {"role": "tool", "tool_call_id": second["id"], "content": "third"}]
    _, answer = await ask(model, body(text, first, *results, *more))
    assert answer["choices"][0]["message"]["content"] == "tool read: read\ntool ls: ls\ntool ls: third"


async def test_failures_as_often_as_directed(model: EchoModel) -> None:
    statuses = [(await ask(model, body("[[fail 503 2]] x")))[0] for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert (await ask(model, body("[[fail 429]] y")))[0] == 429
    counts = model.counted("")
    assert (counts.calls, counts.failures, counts.completion) == (4, 3, 2)


@pytest.mark.parametrize("streamed", [True, False])
async def test_cut_off(model: EchoModel, streamed: bool) -> None:
    request = stream(model, "[[cut]] a b c") if streamed else ask(model, body("[[cut]] a b c"))
    with pytest.raises(aiohttp.ClientError):
        await request
    assert model.calls[-1].outcome == "failed"
    assert model.counted("").failures == 1
    assert model.counted("").completion == (2 if streamed else 0)


@pytest.mark.parametrize("directive", ["[[slow 500 20]] [[long 500]]", "[[wait 60000]]"])
async def test_a_client_that_leaves_is_counted(model: EchoModel, directive: str) -> None:
    leaving = asyncio.create_task(stream(model, directive))
    for _ in range(500):
        if model.calls and (model.calls[-1].completion >= 2 or "wait" in directive):
            break
        await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    for _ in range(500):
        if model.calls[-1].outcome != "running":
            break
        await asyncio.sleep(0.01)
    counts = model.counted("")
    assert (model.calls[-1].outcome, counts.aborts) == ("aborted", 1)
    assert counts.prompt == model.calls[-1].prompt
    assert counts.completion == model.calls[-1].completion < 500


@pytest.mark.parametrize(
    "request_body", [[], {}, {"messages": "no"}, {"messages": [1]}, {"messages": [{"role": "user", "content": 1}]}]
)
async def test_bad_requests_are_said_to_be(model: EchoModel, request_body: Any) -> None:
    status, answer = await ask(model, request_body)
    assert status == 400
    assert "not a chat completion request" in answer["error"]["message"]


async def test_models_and_counts_routes(model: EchoModel) -> None:
    await ask(model, body("x"), bearer="k1")
    await ask(model, body("y"), bearer="k2")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{model.url}/models") as response:
            assert [entry["id"] for entry in (await response.json())["data"]] == ["fake-1"]
        async with session.get(f"http://127.0.0.1:{model.port}/counts") as response:
            rows = await response.json()
    assert [(row["bearer"], row["agent"], row["calls"], row["completion"]) for row in rows] == [
        ("k1", "", 1, 2),
        ("k2", "", 1, 2),
    ]


async def test_stop_breaks_off_what_streams() -> None:
    model = EchoModel()
    await model.start()
    streaming = asyncio.create_task(stream(model, "[[slow 500 50]] [[long 500]]"))
    for _ in range(500):
        if model.calls and model.calls[-1].completion:
            break
        await asyncio.sleep(0.01)
    await model.stop()
    with pytest.raises(aiohttp.ClientError):
        await streaming
