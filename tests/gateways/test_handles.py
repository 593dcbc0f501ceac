"""Whose an object is, over a real Redis: whoever was named first, on every replica, and nobody by asking."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.errors import ForeignKey, StorageAway
from sidecar.gateways import handles as module
from sidecar.gateways.handles import Handles
from sidecar.storage.redis import RedisOptions, RedisStore
from tests.storage.engines import eventually

ALICE, BOB = "u-alice", "u-bob"


@contextlib.asynccontextmanager
async def telling(handles: Handles) -> AsyncIterator[Handles]:
    task = asyncio.create_task(handles.run())
    try:
        yield handles
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def owns(handles: Handles, slug: str, kind: str, handle: str) -> bool:
    try:
        await handles.require(kind, handle, slug)
    except ForeignKey:
        return False
    return True


async def known_to(handles: Handles, slug: str, kind: str, handle: str) -> None:
    async with asyncio.timeout(10):
        while not await owns(handles, slug, kind, handle):
            await asyncio.sleep(0.01)


async def test_what_the_gateway_named_beside_an_agent_is_its_users(store: RedisStore) -> None:
    handles = Handles("main", store)
    handles.learn("task", ["t1", "t2"], ALICE)
    assert await owns(handles, ALICE, "task", "t1")
    assert not await owns(handles, BOB, "task", "t1")
    assert not await owns(handles, ALICE, "approval", "t1"), "of another kind"
    assert not await owns(handles, ALICE, "task", "t3")


async def test_asking_makes_no_owner(store: RedisStore) -> None:
    handles = Handles("main", store)
    assert not await owns(handles, BOB, "task", "t1")
    handles.learn("task", ["t1"], ALICE)
    assert await owns(handles, ALICE, "task", "t1")


async def test_the_first_owner_stays(store: RedisStore) -> None:
    handles = Handles("main", store)
    handles.learn("task", ["t1"], ALICE)
    handles.learn("task", ["t1"], BOB)
    assert await owns(handles, ALICE, "task", "t1")
    assert not await owns(handles, BOB, "task", "t1")


async def test_another_replica_knows_it_and_so_does_the_next_process(store: RedisStore) -> None:
    async with telling(Handles("main", store)) as first:
        first.learn("task", ["t1"], ALICE)
        await known_to(Handles("main", store), ALICE, "task", "t1")
    late = Handles("main", store)
    assert not await owns(late, BOB, "task", "t1")
    assert not await owns(Handles("other", store), ALICE, "task", "t1"), "on another gateway"


async def test_of_two_replicas_that_name_two_owners_one_wins_on_both(store: RedisStore) -> None:
    async with telling(Handles("main", store)) as first, telling(Handles("main", store)) as second:
        first.learn("task", ["t1"], ALICE)
        await known_to(Handles("main", store), ALICE, "task", "t1")
        second.learn("task", ["t1"], BOB)
        await known_to(second, ALICE, "task", "t1")
        assert not await owns(second, BOB, "task", "t1")


async def test_memory_is_bounded_and_redis_remembers(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN", 10)
    async with telling(Handles("main", store)) as handles:
        for number in range(100):
            handles.learn("task", [f"t{number}"], ALICE)
        assert len(handles._owners) == 10
        await known_to(handles, ALICE, "task", "t0")
        assert not await owns(handles, BOB, "task", "t0")


async def test_while_redis_is_away_nothing_new_is_anybodys(tmp_path: Path) -> None:
    store = RedisStore(RedisOptions(f"unix://{tmp_path}/nothing.sock", answer_timeout=0.3))
    try:
        async with telling(Handles("main", store)) as handles:
            handles.learn("task", ["t1"], ALICE)
            assert await owns(handles, ALICE, "task", "t1"), "what this process heard, it knows"
            with pytest.raises(StorageAway):
                await handles.require("task", "t2", ALICE)
            await eventually(lambda: ("task", "t1") in handles._untold)
    finally:
        await store.close()
