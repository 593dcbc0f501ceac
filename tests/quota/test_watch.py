"""Runs as a gateway tells of them, over a real Redis. The tales are what 2026.9.6 and 2026.8.2 told, in their order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from sidecar.domain.namespace import Layout
from sidecar.errors import TooManyRuns
from sidecar.quota.runs import NOBODY
from sidecar.quota.watch import MOST_RUNS, MOST_SESSIONS, Watch
from sidecar.storage.redis import RedisStore
from tests.quota.test_runs import ALICE, an_id, counts, free_again, runs_of, telling

KEY = f"agent:{ALICE}:main"
CHILD = f"agent:{ALICE}:subagent:3f2b"
JOB = f"agent:{ALICE}:cron:7:run:8"
Word = Mapping[str, Any]


def raw(name: str, payload: Word) -> bytes:
    return json.dumps({"type": "event", "event": name, "payload": payload}, separators=(",", ":")).encode()


def change(key: str = KEY, **payload: Any) -> bytes:
    return raw("sessions.changed", {"sessionKey": key, "agentId": ALICE, "session": {"key": key}, **payload})


BUSY: Word = {"hasActiveRun": True, "activeRunIds": None}
IDLE: Word = {"hasActiveRun": False, "activeRunIds": []}


def named(*run_ids: str) -> Word:
    return {"hasActiveRun": True, "activeRunIds": list(run_ids)}


CHAT = [
    change(reason="send", **named("r")),
    change(reason="participants", **BUSY),
    change(phase="start", runId="r", **BUSY),
    change(phase="model", runId="r", **BUSY),
    change(phase="end", runId="r", **IDLE),
    change(reason="agent.input.settled", **IDLE),
]
SHORT_CHAT = [
    change(reason="send", **named("r")),
    change(reason="agent.input.settled", **IDLE),
    change(phase="start", runId="r", **IDLE),
    change(phase="model", runId="r", **IDLE),
    change(phase="end", runId="r", **IDLE),
]
COMMAND = [change(reason="participants", **named("r")), change(reason="agent.input.settled", **IDLE)]
ABORTED = [
    change(reason="send", **named("r")),
    change(phase="start", runId="r", **BUSY),
    change(reason="agent.input.settled", **IDLE),
    change(phase="end", runId="r", **IDLE),
    change(phase="model", runId="r", **IDLE),
    change(phase="error", runId="r", **IDLE),
]
OLDER = [
    change(reason="participants", **BUSY),
    change(phase="start", runId="r", **BUSY),
    change(phase="end", runId="r", **BUSY),
    change(reason="chat.run.settled", **IDLE),
]
SUBAGENT = [
    change(CHILD, reason="send", spawnedBy=KEY, **named("c")),
    change(CHILD, phase="start", runId="c", **BUSY),
    change(CHILD, reason="agent.input.settled", **IDLE),
    change(CHILD, phase="end", runId="c", **IDLE),
]
CRON = [
    raw("task", {"action": "upserted", "task": {"childSessionKey": JOB, "status": "running"}}),
    change(JOB, phase="start", runId="j", **BUSY),
    change(JOB, phase="model", runId="j", **IDLE),
    raw("cron", {"action": "finished", "sessionKey": JOB}),
]
OLDER_CRON = [change(JOB, phase="start", runId="j", **BUSY), raw("cron", {"action": "finished", "sessionKey": JOB})]
RENAMED = [
    change(phase="start", runId="r", clientRunId="c", **BUSY),
    change(phase="end", runId="r", clientRunId="c", **BUSY),
]


@pytest.mark.parametrize(
    "tale",
    [CHAT, SHORT_CHAT, COMMAND, ABORTED, OLDER, SUBAGENT, CRON, OLDER_CRON, RENAMED],
    ids=["chat", "short", "command", "aborted", "older", "subagent", "cron", "older cron", "renamed"],
)
async def test_at_a_tales_end_nothing_counts(store: RedisStore, tale: Sequence[bytes]) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        watch = Watch(runs, Layout())
        for run_id in (an_id("r"), an_id("r2")):
            await runs.begin(ALICE, run_id)
            for event in tale:
                watch.hear(event.replace(b'"r"', f'"{run_id}"'.encode()))
            if b'"r"' not in b"".join(tale):  # the tale has no word of it
                runs.silent(ALICE, run_id)
            await free_again(runs, ALICE)
            runs.ended(ALICE, an_id(f"probe-of-{ALICE}"))
            await free_again(runs, ALICE)
            runs.ended(ALICE, an_id(f"probe-of-{ALICE}"))
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("tale", [CHAT, OLDER, SUBAGENT, CRON, RENAMED])
async def test_what_lives_counts(store: RedisStore, tale: Sequence[bytes]) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        watch = Watch(runs, Layout())
        for event in tale[: next(at for at, event in enumerate(tale) if b'"start"' in event) + 1]:
            watch.hear(event)
        await counts(runs, ALICE)


async def test_what_is_over_by_a_users_own_connection_is_not_begun_by_a_late_word(store: RedisStore) -> None:
    """Another run keeps the session busy, so that the word of its begin cannot be known for an old one."""
    async with telling(runs_of(store, limit=1)) as runs:
        watch = Watch(runs, Layout())
        queued = an_id("queued")
        await runs.begin(ALICE, queued)
        runs.ended(ALICE, queued)
        watch.hear(change(phase="start", runId=queued, **named("other")))
        await free_again(runs, ALICE)


async def test_when_a_session_is_idle_only_its_own_runs_are_over(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=2)) as runs:
        watch = Watch(runs, Layout())
        for key, run_id in ((KEY, "here"), (f"{KEY}-2", "there")):
            watch.hear(change(key, phase="start", runId=run_id, **BUSY))
        watch.hear(change(KEY, reason="agent.input.settled", **IDLE))
        await free_again(runs, ALICE)
        with pytest.raises(TooManyRuns):
            await runs.admit(ALICE, "a third")


async def test_a_list_of_sessions_tells_of_what_lives(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1)) as runs:
        watch = Watch(runs, Layout())
        rows: list[dict[str, Any]] = [
            {"key": KEY, **named("r")},
            {"key": CHILD, **IDLE},
            {"key": "agent:main:main", **named("operators")},
            {"key": 7},
            {"key": f"{KEY}-2", "activeRunIds": [7]},
        ]
        assert watch.look(rows) == [(ALICE, KEY), (ALICE, CHILD), (ALICE, f"{KEY}-2")]
        await counts(runs, ALICE)
        assert runs._live["operators"] == NOBODY
        watch.hear(change(reason="agent.input.settled", **IDLE))
        await free_again(runs, ALICE)


@pytest.mark.parametrize("word", [{"reason": "send", **named("r")}, {"phase": "start", "runId": "r", **BUSY}])
async def test_what_an_operators_agent_runs_is_noted_as_nobodys(store: RedisStore, word: Word) -> None:
    runs = runs_of(store)
    watch = Watch(runs, Layout())
    assert watch.hear(change("agent:main:main", **word)) is None
    assert runs._live == {"r": NOBODY}
    assert watch.hear(change("agent:main:main", phase="end", runId="r", **IDLE)) is None
    assert runs._live == {}


async def test_with_the_gateway_everything_is_forgotten(store: RedisStore) -> None:
    async with telling(runs_of(store, limit=1, live_ms=300)) as runs:
        watch = Watch(runs, Layout())
        watch.hear(change(phase="start", runId="r", **BUSY))
        await counts(runs, ALICE)
        watch.forget()
        await free_again(runs, ALICE)


async def test_memory_is_bounded(store: RedisStore) -> None:
    watch = Watch(runs_of(store), Layout())
    for number in range(MOST_SESSIONS + 10):
        watch.hear(change(f"{KEY}-{number}", reason="send", **named("r")))
    for number in range(MOST_RUNS + 10):
        watch.hear(change(reason="send", **named(f"r{number}")))
    assert len(watch._living) == MOST_SESSIONS
    assert max(map(len, watch._living.values())) == MOST_RUNS


@pytest.mark.parametrize(
    ("event", "about"),
    [
        (change(phase="model", runId="r"), (ALICE, KEY)),
        (raw("session.message", {"sessionKey": KEY, "message": {"content": "x" * 5000}}), (ALICE, KEY)),
        (raw("task", {"task": {"childSessionKey": CHILD}}), (ALICE, CHILD)),
        (change("agent:main:main", phase="start", runId="r"), None),
        (change("global", phase="start", runId="r"), None),
        (raw("chat", {"sessionKey": KEY, "runId": "r", "state": "final"}), None),
        (raw("tick", {}), None),
    ],
)
async def test_which_session_an_event_is_about(store: RedisStore, event: bytes, about: tuple[str, str] | None) -> None:
    assert Watch(runs_of(store), Layout()).hear(event) == about


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("agent:shared:user:u-alice:main", True),
        ("agent:shared:user:u-alice:main:thread:7", True),
        ("agent:shared:subagent:3f2b", False),
        ("agent:shared:main", False),
        ("agent:u-alice:main", False),
    ],
)
async def test_sessions_of_a_shared_agent_are_the_users_whom_the_key_names(
    store: RedisStore, key: str, told: bool
) -> None:
    event = raw("sessions.changed", {"sessionKey": key, "agentId": "shared", "phase": "start", "runId": "r1"})
    assert Watch(runs_of(store), Layout("shared")).hear(event) == ((ALICE, key) if told else None)
