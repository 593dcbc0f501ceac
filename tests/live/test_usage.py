"""What the model served is what the ledger says, for each user, whoever was connected."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from sidecar.storage.engines.running import running_database_url
from tests.live.conftest import House
from tests.stack.gateway import Gateway, GatewayOptions
from tests.stack.identity_provider import IdentityProvider
from tests.stack.model import EchoModel
from tests.stack.raw import Frame, RawClient, RequestError, is_end_of, text_of
from tests.stack.sidecar import Sidecar, SidecarOptions

pytestmark = pytest.mark.live

PATIENCE_S = 30.0
SETTINGS = {"environments": {"tools_allow": ["read", "write", "edit", "apply_patch", "sessions_spawn"]}}


@pytest_asyncio.fixture(scope="module")
async def metered(
    model: EchoModel, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A house of our own, whose sidecar and gateway may be killed."""
    folder = tmp_path_factory.mktemp("metered")
    async with (
        Gateway(GatewayOptions(folder=folder / "gateway", model_url=model.url)) as gateway,
        Sidecar(SidecarOptions(folder / "sidecar", gateway, identity_provider.issuer, SETTINGS)) as sidecar,
    ):
        yield House(gateway, model, identity_provider, sidecar)


def data_dir(house: House) -> Path:
    return house.sidecar.options.folder / "data"


async def rows(house: House, agent: str = "") -> list[asyncpg.Record]:
    """The ledger's, of one user."""
    connection = await asyncpg.connect(running_database_url(data_dir(house)))
    try:
        return await connection.fetch(
            "select log.* from token_usage_logs log join user_openclaw_environments using (user_id) "
            "where profile_name = $1 order by timestamp",
            agent,
        )
    finally:
        await connection.close()


def served(house: House, agent: str) -> tuple[int, int, int, int]:
    """Calls, prompt tokens that were not cached, cached ones, tokens of answers: by the model's own count."""
    calls = [call for call in house.model.calls if (call.turn.agent, call.outcome) == (agent, "served")]
    cached = [min(call.directives.cached, call.prompt) for call in calls]
    prompt = sum(call.prompt for call in calls)
    return len(calls), prompt - sum(cached), sum(cached), sum(call.completion for call in calls)


def billed(found: Sequence[asyncpg.Record]) -> tuple[int, int, int, int]:
    calls = [row for row in found if row["source"] == "message"]
    sums = [sum(row[f"tokens_{name}"] for row in calls) for name in ("input", "cache_read", "output")]
    return len(calls), *sums


async def settled(
    house: House, agent: str, holds: Callable[[list[asyncpg.Record]], bool] | None = None
) -> list[asyncpg.Record]:
    """The user's rows once they are what the model served."""
    found: list[asyncpg.Record] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await rows(house, agent)
                if billed(found) == served(house, agent) and (holds is None or holds(found)):
                    return found
                await asyncio.sleep(0.2)
    except TimeoutError:
        assert billed(found) == served(house, agent)
        raise


def new_login() -> tuple[str, str]:
    login = f"alice{uuid.uuid4().hex[:8]}"
    return login, f"u-{login}"


async def test_a_chat_is_a_row_for_each_call(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello [[cached 40]]")
        await alice.chat("main", '[[tool read {"path": "none.txt"}]] [[tool read {"path": "nor.txt"}]]')
    found = await settled(metered, agent)
    assert len(found) == 4
    assert {(row["provider"], row["source"], row["session_key"]) for row in found} == {
        (found[0]["provider"], "message", f"agent:{agent}:main")
    }
    assert len({row["request_id"] for row in found}) == 2


async def test_a_client_that_left_is_billed_all_the_same(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        await alice.request("chat.send", chat("main", "[[long 20]][[slow 20 50]]"))
    await settled(metered, agent, lambda found: len(found) == 2)


async def test_a_fork_bills_nothing_again(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        await alice.chat("main", "more")
        await settled(metered, agent)
        fork = await alice.request("sessions.create", {"parentSessionKey": "main", "fork": True})
        await alice.chat(fork["key"], "in the fork")
    found = await settled(metered, agent)
    assert len(found) == 3
    await metered_again(metered)
    assert len(await settled(metered, agent)) == 3


async def metered_again(house: House) -> None:
    """The sidecar is killed and reads all transcripts when it is back."""
    await house.sidecar.kill()
    await house.sidecar.start()


def chat(key: str, message: str) -> dict[str, Any]:
    return {"sessionKey": key, "message": message, "deliver": False, "idempotencyKey": str(uuid.uuid4())}


async def test_what_nobody_heard_is_read_from_the_transcripts(metered: House) -> None:
    """Runs go on while the sidecar is dead."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        await alice.request("chat.send", chat("main", "[[long 20]][[slow 20 60]]"))
        await alice.request("chat.send", chat("notes", "[[long 20]][[slow 20 60]]"))
        await metered.sidecar.kill()
    await asyncio.sleep(3)
    await metered.sidecar.start()
    await settled(metered, agent, lambda found: len(found) == 3)


async def test_what_is_deleted_was_read_before(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        for key in ("main", "notes"):
            await alice.chat(key, f"hello {key}")
        await alice.request("sessions.delete", {"key": "notes"})
        await alice.request("sessions.reset", {"key": "main"})
    assert len(await settled(metered, agent)) == 2


async def test_what_the_gateway_runs_by_itself(metered: House) -> None:
    """A job of the user's agent, a request at the gateway's own HTTP API, the admin's word: all are that agent's."""
    login, agent = new_login()
    async with metered.client(login) as alice, RawClient.admin(metered.gateway) as admin:
        await alice.chat("main", "hello")
        job = await admin.request(
            "cron.add",
            {
                "name": "job",
                "agentId": agent,
                "schedule": {"kind": "every", "everyMs": 3_600_000},
                "sessionTarget": "isolated",
                "wakeMode": "now",
                "payload": {"kind": "agentTurn", "message": "at work"},
                "delivery": {"mode": "none"},
            },
        )
        await admin.request("cron.run", {"id": job["id"], "mode": "force"})
        await admin.chat(f"agent:{agent}:main", "from the operator")
        found = await settled(metered, agent, lambda found: len(found) >= 3)
        await admin.request("cron.remove", {"id": job["id"]})
    assert {":cron:" in row["session_key"] for row in found} == {True, False}


async def test_a_sub_agent_is_its_users(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        spawn = {"id": "sessions_spawn", "args": {"task": "at work", "label": "helper"}}
        await alice.chat("main", f"[[tool tool_call {json.dumps(spawn)}]]")
        found = await settled(metered, agent, lambda found: any(":subagent:" in row["session_key"] for row in found))
    assert len(found) >= 3


async def test_the_operators_agents_are_nobodys(metered: House) -> None:
    async with RawClient.admin(metered.gateway) as admin:
        await admin.chat("agent:main:main", "hello")
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
    await settled(metered, agent, lambda found: len(found) == 1)  # so what came before is there, too
    connection = await asyncpg.connect(running_database_url(data_dir(metered)))
    try:
        assert (
            await connection.fetchval("select count(*) from token_usage_logs where session_key like 'agent:main:%'")
            == 0
        )
    finally:
        await connection.close()


LARGE = json.dumps({"path": "large.txt", "content": "x" * 150_000})
SHOWN_TO_NOBODY = (
    "[[reply NO_REPLY]]",
    "[[reply HEARTBEAT_OK and a little more]]",
    f"[[tool write {LARGE}]]",
)
"""What makes a gateway hide an answer, or most of it: nobody may spend for nothing by having it said."""


async def turns_shown_to_nobody(client: RawClient) -> None:
    for message in SHOWN_TO_NOBODY:
        run = chat("main", message)
        await client.request("chat.send", run)
        await client.wait_for(is_end_of(run["idempotencyKey"]), timeout=PATIENCE_S)


async def test_an_answer_that_the_gateway_shows_to_nobody_is_billed(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        await turns_shown_to_nobody(alice)
        found = await settled(metered, agent, lambda found: len(found) >= 5)
        assert sum(row["tokens_output"] <= 5 for row in found) >= 3
        history = await alice.request("chat.history", {"sessionKey": "main"})
        assert "NO_REPLY" not in [text_of(message) for message in history["messages"] if message["role"] == "assistant"]
    await metered_again(metered)
    assert len(await settled(metered, agent)) == len(found)


async def test_nor_is_it_free_while_nobody_looks_on(metered: House) -> None:
    """It is found by its place, which the transcript leaves out: between others, and as the last one."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
    await metered.sidecar.kill()
    async with RawClient.admin(metered.gateway) as admin:
        key = f"agent:{agent}:main"
        for message in (*SHOWN_TO_NOBODY, "seen", SHOWN_TO_NOBODY[1]):
            run = chat(key, message)
            await admin.request("chat.send", run)
            await admin.wait_for(is_end_of(run["idempotencyKey"]), timeout=PATIENCE_S)
    await metered.sidecar.start()
    await settled(metered, agent, lambda found: len(found) >= 7)


async def test_what_the_ledger_lacks_is_found_and_written(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        for key in ("main", "notes"):
            await alice.chat(key, "hello")
    lost, _ = await settled(metered, agent)
    code, out = await command(metered, "reconcile")
    assert (code, "not in the ledger" in out) == (0, False), out
    connection = await asyncpg.connect(running_database_url(data_dir(metered)))
    try:
        for table in ("token_usage_logs", "usage_calls"):
            await connection.execute(f"delete from {table} where call_id = $1", lost["call_id"])
    finally:
        await connection.close()
    code, out = await command(metered, "reconcile")
    assert code == 1
    assert f"example|{login}: 2 calls in transcripts; 1 not in the ledger ({lost['tokens_total']:,} tokens)" in out
    code, out = await command(metered, "backfill")
    assert (code, "1 written" in out) == (0, True)
    assert (await command(metered, "reconcile"))[0] == 0
    await settled(metered, agent, lambda found: len(found) == 2)


async def command(house: House, name: str) -> tuple[int | None, str]:
    """`sidecar usage …` beside the sidecar that runs: exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar.cli.main", "usage", name, "--config", str(house.sidecar.config_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode, out.decode()


async def broken_off(house: House, agent: str, count: int = 1) -> list[asyncpg.Record]:
    """The user's estimates, once there are so many and the model's own figures are whole."""
    found = await settled(house, agent, lambda found: sum(row["source"] == "estimate" for row in found) >= count)
    await asyncio.sleep(4)  # none comes twice
    found = await rows(house, agent)
    estimates = [row for row in found if row["source"] == "estimate"]
    assert len(estimates) == count
    return estimates


async def until_asked(house: House, agent: str, calls: int) -> None:
    """The model was asked so often."""
    async with asyncio.timeout(PATIENCE_S):
        while house.model.counted(agent).calls < calls:
            await asyncio.sleep(0.05)


async def test_an_answer_that_is_stopped_before_its_first_word(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        run = (await alice.request("chat.send", chat("main", "[[wait 20000]] hello")))["runId"]
        await until_asked(metered, agent, 2)
        await alice.request("chat.abort", {"sessionKey": "main", "runId": run})
    [estimate] = await broken_off(metered, agent)
    prompt = next(call.prompt for call in reversed(metered.model.calls) if call.turn.agent == agent)
    assert estimate["tokens_output"] == 0
    assert 0.8 * prompt < estimate["tokens_total"] < 1.2 * prompt


@pytest.mark.parametrize("message", ["[[wait 20000]] hello", "[[long 200]][[slow 200 100]]"])
async def test_a_turn_whose_time_is_up(metered: House, message: str) -> None:
    """Whoever sends it says how long it may take; it is no way to have a prompt read for nothing."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        run = chat("main", message) | {"timeoutMs": 4000}
        await alice.request("chat.send", run)
        await alice.wait_for(is_end_of(run["idempotencyKey"]), timeout=PATIENCE_S)
    [estimate] = await broken_off(metered, agent)
    prompt = next(call.prompt for call in reversed(metered.model.calls) if call.turn.agent == agent)
    assert 0.8 * prompt < estimate["tokens_total"] < 1.2 * prompt


async def stopped_unseen(house: House) -> tuple[str, asyncpg.Record]:
    """An answer is stopped half way while the sidecar is dead: the user's agent, and the estimate that is there afterwards."""
    login, agent = new_login()
    async with house.client(login) as alice, RawClient.admin(house.gateway) as admin:
        await alice.chat("main", "hello")
        await house.sidecar.kill()
        key = f"agent:{agent}:main"
        run = (await admin.request("chat.send", chat(key, "[[long 200]][[slow 100 40]]")))["runId"]

        def has_said_much(frame: Frame) -> bool:
            payload = frame.get("payload") or {}
            of_run = frame.get("event") == "chat" and payload.get("runId") == run
            return of_run and len(text_of(payload.get("message") or {}).split()) > 30

        await admin.wait_for(has_said_much, timeout=PATIENCE_S)
        await admin.request("chat.abort", {"sessionKey": key, "runId": run})
    await house.sidecar.start()
    [estimate] = await broken_off(house, agent)
    return agent, estimate


def said_last(house: House, agent: str) -> int:
    """Words of the agent's latest answer, so far."""
    return next(call.completion for call in reversed(house.model.calls) if call.turn.agent == agent)


async def test_an_answer_that_is_stopped_while_nobody_looks_on(metered: House) -> None:
    """All its words count, though transcripts are read with their texts cut."""
    agent, estimate = await stopped_unseen(metered)
    words = said_last(metered, agent)
    assert 0.5 * words < estimate["tokens_output"] < 1.5 * words


async def test_a_turn_that_goes_on_while_its_session_is_compacted_is_billed_once(metered: House) -> None:
    """Whether the gateway lets it go on or not."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        run = chat("main", "[[long 60]][[slow 60 120]]")
        await alice.request("chat.send", run)
        await until_asked(metered, agent, 2)
        with contextlib.suppress(RequestError):
            await alice.request("sessions.compact", {"key": "main"}, timeout=PATIENCE_S)
        await alice.wait_for(is_end_of(run["idempotencyKey"]), timeout=PATIENCE_S)
    await asyncio.sleep(4)
    found = await settled(metered, agent)
    counts = metered.model.counted(agent)
    assert len(found) == counts.calls, [row["source"] for row in found]


async def test_a_provider_that_counts_nothing(metered: House) -> None:
    """Nobody reads for free what nobody counts: the words are estimated, and the prompt by what agents send."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "[[uncounted]][[long 40]]")
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await rows(metered, agent)):
            await asyncio.sleep(0.2)
    assert [(row["source"], json.loads(row["metadata"])["reason"]) for row in found] == [("estimate", "uncounted")]
    prompt = next(call.prompt for call in reversed(metered.model.calls) if call.turn.agent == agent)
    assert 0.5 * prompt < found[0]["tokens_input"] < 1.5 * prompt
    assert found[0]["tokens_output"] > 10


async def test_the_first_answer_of_all_is_stopped(metered: House) -> None:
    """Nobody knows what the user's agent sends, but what the others' do is known."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        run = (await alice.request("chat.send", chat("main", "[[wait 20000]] hello")))["runId"]
        await until_asked(metered, agent, 1)
        await alice.request("chat.abort", {"sessionKey": "main", "runId": run})
    [estimate] = await broken_off(metered, agent)
    prompt = next(call.prompt for call in reversed(metered.model.calls) if call.turn.agent == agent)
    assert 0.5 * prompt < estimate["tokens_total"] < 1.5 * prompt


async def test_a_session_that_is_deleted_under_its_answer(metered: House) -> None:
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("gone", "hello")
        await alice.request("chat.send", chat("gone", "[[wait 20000]] hello"))
        await until_asked(metered, agent, 2)
        await alice.request("sessions.delete", {"key": "gone"})
    [estimate] = await broken_off(metered, agent)
    assert estimate["tokens_total"] > 1000


@pytest.mark.deep
async def test_a_gateway_that_is_killed_in_a_call(metered: House) -> None:
    """It goes on by itself, under an id of its own."""
    login, agent = new_login()
    async with metered.client(login) as alice:
        await alice.chat("main", "hello")
        await alice.request("chat.send", chat("main", "[[wait 4000]] hello"))
        await until_asked(metered, agent, 2)
        await asyncio.sleep(1)
        await metered.sidecar.kill()
        await metered.gateway.kill()
    await metered.gateway.start()
    await metered.sidecar.start()
    await until_asked(metered, agent, 3)
    await broken_off(metered, agent)
