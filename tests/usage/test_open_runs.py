"""Runs whose end nobody heard yet, over restarts and changes of who leads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.domain.namespace import Layout
from sidecar.domain.usage import OpenRun
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database
from sidecar.usage.open_runs import EARLIER_SECONDS, LONGEST_SECONDS, OpenRuns
from tests.storage.test_postgres import environment

NOW = 1_795_000_000.0
KEY = "agent:u-alice:main"
RUN = OpenRun("run-1", "u-alice", KEY, NOW - EARLIER_SECONDS)


def changed(key: str = KEY, **said: Any) -> bytes:
    """As 2026.9.6 writes it."""
    payload = {"sessionKey": key, "agentId": "u-alice", "ts": NOW * 1000, **said}
    return json.dumps(
        {"type": "event", "event": "sessions.changed", "payload": payload}, separators=(",", ":")
    ).encode()


BEGAN = changed(phase="start", runId="run-1", hasActiveRun=True, activeRunIds=None)
ENDED = changed(phase="end", runId="run-1", hasActiveRun=False, activeRunIds=[], abortedLastRun=False)
ABORTED = changed(phase="end", runId="run-1", hasActiveRun=False, activeRunIds=[], abortedLastRun=True)


class Room:
    """One sidecar after another, over one database."""

    def __init__(self, database: Database) -> None:
        self.ledger = Ledger(database)
        self.now = NOW

    def next(self) -> OpenRuns:
        return OpenRuns("main", Layout(), self.ledger, lambda: self.now)


@pytest.fixture
async def room(database: Database) -> Room:
    await database.put_environment(environment("alice"))
    return Room(database)


async def test_a_run_is_open_from_its_begin_to_its_end(room: Room) -> None:
    runs = room.next()
    assert runs.hear(BEGAN) == []
    assert runs.all() == [RUN]
    await runs.write()
    assert await room.ledger.open_runs("main") == [RUN]
    assert runs.hear(ENDED) == []
    await runs.write()
    assert not runs.unwritten
    assert await room.ledger.open_runs("main") == []


async def test_one_that_was_aborted_is_asked_about_first(room: Room) -> None:
    runs = room.next()
    runs.hear(BEGAN)
    assert runs.hear(ABORTED) == [RUN]
    assert runs.is_open("run-1")
    runs.close("run-1")
    assert not runs.unwritten, "it never came as far as PostgreSQL"


async def test_no_end_is_told_but_nothing_lives_there(room: Room) -> None:
    runs = room.next()
    runs.hear(BEGAN)
    assert runs.hear(changed(hasActiveRun=False, activeRunIds=[], reason="agent.input.settled")) == [RUN]


async def test_the_next_one_takes_up_what_was_open(room: Room) -> None:
    before = room.next()
    before.hear(BEGAN)
    await before.write()
    after = room.next()
    assert await after.known() == [RUN]
    await after.load()
    assert after.all() == [RUN]
    assert after.hear(changed(phase="end", runId="run-2", hasActiveRun=False, abortedLastRun=False)) == [RUN]
    after.close("run-1")
    await after.write()
    assert await room.next().known() == []


async def test_one_that_is_older_than_any_is_given_up(room: Room) -> None:
    before = room.next()
    before.hear(BEGAN)
    await before.write()
    room.now += LONGEST_SECONDS + 1
    after = room.next()
    await after.load()
    assert after.all() == []
    await after.write()
    assert await room.ledger.open_runs("main") == []


async def test_a_begin_that_is_told_after_the_end(room: Room) -> None:
    runs = room.next()
    runs.hear(BEGAN)
    runs.hear(ENDED)
    runs.hear(BEGAN)
    assert runs.all() == []


async def test_one_that_waits_has_not_begun(room: Room) -> None:
    """It may be a while until its model is asked, on a gateway that has much to do; until then it costs nothing."""
    runs = room.next()
    runs.hear(changed(hasActiveRun=True, activeRunIds=["run-1"], reason="send"))
    assert runs.all() == []


async def test_others_events(room: Room) -> None:
    runs = room.next()
    for raw in (b"", b'{"type":"event","event":"tick"}', changed("agent:main:main", phase="start", runId="run-1")):
        assert runs.hear(raw) == []
    assert runs.all() == []
