"""Pages of transcripts as a gateway gives them, and what it leaves out of them (2026.9.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sidecar.domain.namespace import Layout
from sidecar.errors import GatewayAway
from sidecar.gateways.rpc import RequestRefused
from sidecar.storage.ledger import Ledger
from sidecar.storage.postgres import Database
from sidecar.usage.estimates import Estimates
from sidecar.usage.prices import Prices
from sidecar.usage.transcripts import FEW, Transcripts

NOW = 1_795_000_000.0
KEY = "agent:u-alice:main"
BUSY = {"code": "UNAVAILABLE", "message": "history is busy", "retryable": True, "retryAfterMs": 250}
GONE = {"code": "INVALID_REQUEST", "message": "no such agent"}


def answer(seq: int, *, at: float = NOW, text: str = "hello") -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "provider": "echo",
        "model": "echo-1",
        "stopReason": "stop",
        "usage": {"input": 10, "output": seq, "cost": {"total": 0}},
        "__openclaw": {"id": f"m{seq}", "runId": f"run-{seq}", "seq": seq, "recordTimestampMs": at * 1000},
    }


class Gateway:
    """One session, shown as a gateway shows it: `page` records at a time, without those that say `NO_REPLY`."""

    def __init__(self, messages: list[dict[str, Any]], page: int = 200) -> None:
        self.messages = messages
        self.page = page
        self.refusals: list[Mapping[str, Any]] = []
        self.asked: list[tuple[str, int]] = []

    async def request(self, method: str, params: Mapping[str, Any], timeout: float = 30.0) -> Any:
        if self.refusals:
            raise RequestRefused(method, self.refusals.pop())
        if method == "sessions.get":
            self.asked.append((method, params["limit"]))
            return {"messages": self.messages[-params["limit"] :]}
        end = len(self.messages) - params["offset"]
        self.asked.append((method, params["offset"]))
        records = self.messages[max(0, end - self.page) : end]
        shown = [one for one in records if one["content"][0]["text"] != "NO_REPLY"]
        more = end > self.page
        following = {"nextOffset": params["offset"] + self.page} if more else {}
        return {"messages": shown, "totalMessages": len(self.messages), "hasMore": more, **following}


@pytest.fixture
def reading(database: Database) -> Any:
    def make(gateway: Gateway, months: int = 0) -> Transcripts:
        estimates, table = Estimates("main", Ledger(database)), Prices([])
        return Transcripts("main", Layout(), gateway, estimates, table, lambda _: None, lambda: NOW, months)

    return make


async def ids(transcripts: Transcripts, since: float = 0.0) -> list[str]:
    return [call.call_id async for calls in transcripts.calls(KEY, since) for call in calls]


def session(count: int, *hidden: int) -> list[dict[str, Any]]:
    return [answer(seq, text="NO_REPLY" if seq in hidden else "hello") for seq in range(1, count + 1)]


async def test_all_pages_each_message_once_those_that_are_shown_to_nobody_too(reading: Any) -> None:
    gateway = Gateway(session(25, 1, 7, 8, 20, 25), page=10)
    found = await ids(reading(gateway))
    assert sorted(found) == sorted(f"m{seq}" for seq in range(1, 26))
    assert [asked for asked in gateway.asked if asked[0] == "chat.history"] == [
        ("chat.history", at) for at in (0, 10, 20)
    ]


async def test_a_session_that_says_nothing_but_what_nobody_sees(reading: Any) -> None:
    assert sorted(await ids(reading(Gateway(session(3, 1, 2, 3))))) == ["m1", "m2", "m3"]


async def test_only_what_was_said_since_is_looked_for(reading: Any) -> None:
    messages = [answer(seq, at=NOW - 1000 + seq, text="NO_REPLY" if seq == 2 else "hello") for seq in range(1, 30)]
    gateway = Gateway(messages)
    await ids(reading(gateway), NOW - 1000 + 10)
    assert gateway.asked == [("chat.history", 0)]
    gateway.messages[-1] = answer(29, text="NO_REPLY")
    assert "m29" in await ids(reading(gateway), NOW - 1000 + 10)
    assert gateway.asked[-1] == ("sessions.get", FEW), "no more of it than is needed"


async def test_one_message(reading: Any) -> None:
    gateway = Gateway(session(40, 12))
    found = await reading(gateway).unshown(KEY, "m12")
    assert found.message_id == "m12"
    assert [limit for _, limit in gateway.asked] == [8, 16, 32]
    assert await reading(gateway).unshown(KEY, "m99") is None
    assert await reading(gateway).unshown("agent:main:main", "m12") is None, "nobody's"


async def test_a_refusal_that_passes_is_no_end(reading: Any) -> None:
    gateway = Gateway(session(3))
    gateway.refusals = [BUSY]
    with pytest.raises(GatewayAway) as away:
        await ids(reading(gateway))
    assert not isinstance(away.value, RequestRefused)
    assert len(await ids(reading(gateway))) == 3
    gateway.refusals = [GONE]
    assert await ids(reading(gateway)) == []


async def test_what_the_ledger_dropped_does_not_come_back(reading: Any) -> None:
    gateway = Gateway([answer(1, at=NOW - 100 * 86_400), answer(2)])
    assert await ids(reading(gateway, 1)) == ["m2"]
    assert await ids(reading(gateway, 6)) == ["m1", "m2"]
