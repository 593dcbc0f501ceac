"""The stack is real: gateway, echo model, OpenID provider and the users' clients, each doing what tests rely on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.stack.clients import CommandLine, GatewayClient
from tests.stack.driver import CommandError
from tests.stack.gateway import SESSION_TOOLS, Gateway, GatewayOptions, SessionTools, merge
from tests.stack.model import EchoModel
from tests.stack.node import VERSION
from tests.stack.process import StackError
from tests.stack.raw import ClosedError, RawClient, RequestError, add_agents, is_end_of, patch_config
from tests.stack.test_process import alive, eventually_gone

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
OLDER = "2026.8.2"


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("did not come true")


def key(agent: str = "main") -> str:
    return f"agent:{agent}:{uuid.uuid4().hex}"


@asynccontextmanager
async def admin_of(gateway: Gateway) -> AsyncIterator[RawClient]:
    async with RawClient.admin(gateway) as client:
        yield client


# Gateway and model


async def test_the_gateway_is_the_real_one(gateway: Gateway) -> None:
    async with admin_of(gateway) as admin:
        assert admin.hello["server"]["version"] == VERSION
        assert len(admin.hello["features"]["methods"]) > 400
        assert "operator.admin" in admin.hello["auth"]["scopes"]
        with pytest.raises(RequestError, match="unknown method") as refused:
            await admin.request("no.such.method")
    assert refused.value.code == "INVALID_REQUEST"


async def test_a_trusted_proxy_gateway_refuses_strangers(gateway: Gateway) -> None:
    with pytest.raises((RequestError, ClosedError)):
        async with RawClient.connect(gateway.url, {"password": "wrong"}):
            pass


@pytest.mark.deep
async def test_what_the_model_serves_is_what_the_transcript_says(gateway: Gateway, model: EchoModel) -> None:
    name = f"u-{uuid.uuid4().hex[:8]}"
    async with admin_of(gateway) as admin:
        await add_agents(admin, {name: {"workspace": str(gateway.workspaces / name)}})
        session = key(name)
        assert await admin.chat(session, "one two three") == "echo: one two three"
        assert await admin.chat(session, "[[slow 3 5]] [[reply a b c d]] [[cached 100]]") == "a b c d"
        history = await admin.request("chat.history", {"sessionKey": session})
    rows = [message["usage"] for message in history["messages"] if message["role"] == "assistant"]
    counts = model.counted(name)
    assert (counts.calls, counts.completion, counts.cached) == (2, 8, 100)
    assert [row["output"] for row in rows] == [4, 4]
    assert [row["cacheRead"] for row in rows] == [0, 100]
    assert sum(row["input"] + row["cacheRead"] for row in rows) == counts.prompt
    assert model.calls[-1].turn.session == session
    assert model.calls[-1].bearer == "fake-key"


@pytest.mark.deep
async def test_tools_run_and_the_model_tells_what_they_returned(gateway: Gateway) -> None:
    mark = uuid.uuid4().hex
    write = json.dumps({"path": f"{mark}.txt", "content": f"kept {mark}"})
    read = json.dumps({"path": f"{mark}.txt"})
    async with admin_of(gateway) as admin:
        answer = await admin.chat(key(), f"[[tool write {write}]] [[tool read {read}]] [[also ls {{}}]]")
    assert f"tool read: kept {mark}" in answer
    assert f"{mark}.txt" in answer.partition("tool ls: ")[2]
    assert (gateway.workspaces / "main" / f"{mark}.txt").read_text() == f"kept {mark}"


async def test_an_abort_reaches_the_model(gateway: Gateway, model: EchoModel) -> None:
    session = key()
    async with admin_of(gateway) as admin:
        run = uuid.uuid4().hex
        asked = {"sessionKey": session, "message": "[[slow 400 20]] [[long 400]]", "idempotencyKey": run}
        await admin.request("chat.send", asked)
        await eventually(lambda: any(call.turn.session == session and call.completion > 3 for call in model.calls))
        await admin.request("chat.abort", {"sessionKey": session, "runId": run})
        ended = await admin.wait_for(is_end_of(run))
    assert ended["payload"]["state"] == "aborted"
    (call,) = [call for call in model.calls if call.turn.session == session]
    await eventually(lambda: call.outcome == "aborted")
    assert 3 < call.completion < 400


async def test_the_gateway_tries_again_after_a_failure(gateway: Gateway, model: EchoModel) -> None:
    session = key()
    async with admin_of(gateway) as admin:
        assert await admin.chat(session, "[[fail 500 1]] hello", timeout=90) == "echo: hello"
    assert [call.outcome for call in model.calls if call.turn.session == session] == ["failed", "served"]


SESSIONS = '[[tool tool_call {"id": "sessions_list", "args": {}}]]'


@pytest.mark.deep
async def test_session_tools_closed_and_open(token_gateway: Gateway) -> None:
    theirs, ours = key(), key()
    async with admin_of(token_gateway) as admin:
        await admin.chat(theirs, "hello")
        answers: dict[SessionTools, str] = {}
        states: list[SessionTools] = ["open", "closed"]
        for state in states:
            await patch_config(admin, {"tools": SESSION_TOOLS[state]})
            answers[state] = await admin.chat(ours, SESSIONS)
    assert ours in answers["closed"]
    assert theirs not in answers["closed"]
    assert theirs in answers["open"]


@pytest.mark.deep
async def test_the_older_version_with_open_session_tools(model: EchoModel, tmp_path: Path) -> None:
    """2026.8.2 offers session tools by their own name; its agents see each other's sessions when nobody closes them."""
    options = GatewayOptions(tmp_path / "g", model.url, mode="token", version=OLDER, session_tools="open")
    async with Gateway(options) as gateway, RawClient.admin(gateway) as admin:
        assert admin.hello["server"]["version"] == OLDER
        assert gateway.token
        name = f"u-{uuid.uuid4().hex[:8]}"
        await add_agents(admin, {name: {"workspace": str(gateway.workspaces / name)}})
        ours, secret = key(name), uuid.uuid4().hex
        await admin.chat(key(), f"secret {secret}")
        theirs = model.calls[-1].turn.session
        answer = await admin.chat(ours, f"[[tool sessions_history {json.dumps({'sessionKey': theirs})}]]")
    assert model.calls[-1].turn.agent == name
    assert secret in answer


@pytest.mark.deep
async def test_kill_and_restart_keep_port_and_sessions(token_gateway: Gateway) -> None:
    session, port = key(), token_gateway.port
    async with admin_of(token_gateway) as admin:
        await admin.chat(session, "before")
        pid = token_gateway.pid
        assert pid is not None
        family = [pid, *children(pid)]
        await token_gateway.kill()
        with pytest.raises(ClosedError):
            await admin.wait_for(lambda _: False)
    assert len(family) > 1, "this gateway has children of its own, which must go too"
    await eventually_gone(family)
    assert (token_gateway.running, token_gateway.pid) == (False, None)
    await token_gateway.restart()
    assert token_gateway.port == port
    async with admin_of(token_gateway) as admin:
        history = await admin.request("chat.history", {"sessionKey": session})
    assert "echo: before" in json.dumps(history)


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


async def test_a_gateway_that_cannot_start_says_why(model: EchoModel, tmp_path: Path) -> None:
    extra = {"gateway": {"bind": "no-such-place"}}
    with pytest.raises(StackError, match=r"(?s)ended while it started; its log ends with:.*Invalid --bind"):
        await Gateway(GatewayOptions(tmp_path / "g", model.url, extra=extra)).start()


def test_extra_configuration_is_merged() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": None, "e": {"f": None, "g": 4}}, "d": [5]}) == {
        "a": {"c": 2, "e": {"g": 4}},
        "d": [5],
    }
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


# The users' clients


async def test_the_command_line(gateway: Gateway, tmp_path: Path) -> None:
    cli = CommandLine(tmp_path / "cli", gateway.url, password=gateway.password)
    answer = await cli.call("sessions.list", {"limit": 1})
    assert answer.status == 0, answer
    assert len(answer.json["sessions"]) <= 1
    text = uuid.uuid4().hex
    said = await cli.run("agent", "--session-key", key(), "--message", text, "--json")
    assert said.status == 0, said
    assert said.json["result"]["payloads"][0]["text"] == f"echo: {text}"
    refused = await CommandLine(tmp_path / "bad", gateway.url, password="wrong").call("health")
    assert refused.status == 1
    assert "unauthorized" in refused.stderr


async def test_a_command_that_takes_too_long_is_killed(gateway: Gateway, tmp_path: Path) -> None:
    cli = CommandLine(tmp_path / "cli", gateway.url, password=gateway.password)
    with pytest.raises(TimeoutError):
        await cli.run("gateway", "call", "health", timeout=0.1)


async def test_the_gateway_client(gateway: Gateway, tmp_path: Path) -> None:
    async with GatewayClient(tmp_path / "client") as client:
        hello = await client.connect(gateway.url, password=gateway.password)
        assert hello["server"]["version"] == VERSION
        session, run, text = key(), uuid.uuid4().hex, uuid.uuid4().hex
        asked = {"sessionKey": session, "message": f"{text} [[slow 3 5]]", "idempotencyKey": run}
        assert (await client.request("chat.send", asked))["runId"] == run
        final = await client.wait_for(is_end_of(run))
        assert final["payload"]["message"]["content"][0]["text"] == f"echo: {text}"
        assert any(text in line for line in client.received)
        asked = {"sessionKey": session, "message": "again", "idempotencyKey": uuid.uuid4().hex}
        done = await client.request("agent", asked, final=True)
        assert done["result"]["payloads"][0]["text"] == "echo: again"
        with pytest.raises(CommandError, match="unknown method") as refused:
            await client.request("no.such.method")
        assert refused.value.code == "INVALID_REQUEST"
        await client.close()
        await client.connect(gateway.url, password=gateway.password)
        assert [told["state"] for told in client.states if told["state"] == "hello"] == ["hello"] * 2


@pytest.mark.deep
async def test_the_gateway_client_that_is_refused(token_gateway: Gateway, tmp_path: Path) -> None:
    async with GatewayClient(tmp_path / "client") as client:
        with pytest.raises(CommandError) as refused:
            await client.connect(token_gateway.url, "wrong")
        assert refused.value.detail_code == "AUTH_TOKEN_MISMATCH"
        assert (await client.wait_for_state("paused"))["detailCode"] == "AUTH_TOKEN_MISMATCH"


@pytest.mark.deep
async def test_the_gateway_client_comes_back_by_itself(token_gateway: Gateway, tmp_path: Path) -> None:
    async with GatewayClient(tmp_path / "client") as client:
        await client.connect(token_gateway.url, token_gateway.token)
        await token_gateway.kill()
        await client.wait_for_state("closed")
        await token_gateway.restart()
        await client.wait_for_state("hello", since=1)
        assert "sessions" in await client.request("sessions.list", {})


async def test_a_killed_gateway_client(gateway: Gateway, tmp_path: Path) -> None:
    async with GatewayClient(tmp_path / "client") as client:
        await client.connect(gateway.url, password=gateway.password)
        await client.kill()
        with pytest.raises(StackError, match="not running"):
            await client.request("health")


# The command


@asynccontextmanager
async def stack_command(*arguments: str) -> AsyncIterator[subprocess.Popen[str]]:
    """`python -m tests.stack`, in a process that is killed at the end if need be."""
    command = [sys.executable, "-m", "tests.stack", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.deep
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_the_command_takes_everything_with_it(how: signal.Signals, tmp_path: Path) -> None:
    async with stack_command("--idp", "--mode", "token", "--folder", str(tmp_path / "g")) as running:
        assert running.stdout is not None
        ready = json.loads(await asyncio.to_thread(running.stdout.readline))
        family = descendants(running.pid)
        assert ready["pid"] in family
        assert len(family) >= 4, "the gateway, the provider and their leashes"
        assert set(ready["tokens"]) == {"alice", "bob", "admin-carol"}
        os.kill(running.pid, how)
        status = await asyncio.to_thread(running.wait)
    assert status == (0 if how is signal.SIGINT else -signal.SIGKILL)
    await eventually_gone(family)


async def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    async with stack_command("--folder", str(tmp_path / "g")) as running:
        assert running.stderr is not None
        line = await asyncio.to_thread(running.stderr.readline)
        assert re.match(r"gateway is starting: \d+ s", line)
        family = descendants(running.pid)
        assert any(map(alive, family))
        running.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(running.wait) == 0
    await eventually_gone(family)


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]
