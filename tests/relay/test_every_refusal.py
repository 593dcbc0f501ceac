"""Every way in which a caller is refused leaves a row in the audit log, who and what; none holds what they showed or wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import aiohttp
import pytest
import pytest_asyncio

import sidecar.app  # noqa: F401 - so that every refusal is defined
from sidecar.domain.audit import AuditQuery, AuditRow
from sidecar.domain.quota import QuotaType
from sidecar.errors import (
    DENIALS,
    BadQuery,
    ForeignKey,
    GatewayNotCovered,
    GatewayOpen,
    HouseFull,
    MalformedFrame,
    MethodRefused,
    OriginRefused,
    QuotaExceeded,
    Refusal,
    SidecarError,
    TokenRefused,
    TooManyRequests,
    TooManyRuns,
)
from sidecar.gateways.greeting import ProtocolRefused
from sidecar.protocol.requests import AnswerableFrame, UnansweredFrame
from sidecar.relay.server import _NotUpgraded
from sidecar.storage.engines.running import running_database_url
from sidecar.storage.postgres import Database, DatabaseOptions
from sidecar.storage.quotas import QuotaBook
from tests.stack.gateway import SESSION_TOOLS
from tests.stack.identity_provider import IdentityProvider
from tests.stack.proc import eventually
from tests.stack.raw import ClosedError, RawClient, RequestError, connect_params, is_response
from tests.stack.sidecar import Sidecar, SidecarOptions
from tests.stack.stub_gateway import Frame, StubConnection, StubGateway

PER_USER, STRANGERS = 2, 3
ANN = "example|ann"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Obstinate(StubGateway):
    """A gateway that may be of another version, or take no user's protocol."""

    version = "2026.9.6"
    refuses_users = False

    def _hello(self) -> Frame:
        return super()._hello() | {"server": {"version": self.version}}

    async def _take(self, connection: StubConnection, request: Frame) -> None:
        if request["method"] == "connect" and connection.user and self.refuses_users:
            connection.requests.append(request)
            error = {
                "code": "INVALID_REQUEST",
                "message": "protocol mismatch",
                "details": {"code": "PROTOCOL_MISMATCH"},
            }
            await connection._write({"type": "res", "id": request["id"], "ok": False, "error": error})
            return
        await super()._take(connection, request)


@dataclass(frozen=True, slots=True)
class Place:
    stub: Obstinate
    sidecar: Sidecar
    provider: IdentityProvider
    database: Database
    shown: list[str] = field(default_factory=list)
    """Tokens that were shown."""

    async def token(self, user: str = "ann") -> str:
        token = await self.provider.token_for(user, lifetime=3600)
        self.shown.append(token)
        return token

    @contextlib.asynccontextmanager
    async def client(self, user: str = "ann") -> AsyncIterator[RawClient]:
        async with RawClient.connect(self.sidecar.url, {"token": await self.token(user)}) as client:
            yield client

    async def asks(self, method: str, params: Frame | None = None) -> None:
        """As ann, and is refused."""
        async with self.client() as client:
            with pytest.raises(RequestError):
                await client.request(method, params)

    async def knocks(self, **params: object) -> None:
        """Says `connect` so, and is refused."""
        async with RawClient.open(self.sidecar.url) as client:
            with pytest.raises(RequestError):
                await client.greet(connect_params(**params))  # type: ignore[arg-type]

    async def fetches(self, path: str = "/", **headers: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.sidecar.http_url + path, headers=headers) as answer,
        ):
            return answer.status


@pytest_asyncio.fixture(scope="module")
async def place(identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("refusals")
    limits = {"max_connections_per_user": PER_USER, "max_unauthenticated_per_address": STRANGERS}
    async with Obstinate() as stub:
        assert isinstance(stub, Obstinate)
        options = SidecarOptions(
            folder,
            stub.gateway(folder),
            identity_provider.issuer,
            settings={"server": limits, "quota": {"concurrent_runs": 1}},
        )
        async with Sidecar(options) as running:
            url = running_database_url(folder / "data")
            async with Database(DatabaseOptions(url)) as database:
                place = Place(stub, running, identity_provider, database)
                async with place.client():
                    pass
                yield place


# --- the ways ---------------------------------------------------------------------------------------------------------


async def first_word(place: Place, text: str) -> None:
    async with RawClient.open(place.sidecar.url) as client:
        await client.send_text(text)
        assert await client.wait_closed() == 1008


async def not_a_frame_at_first(place: Place) -> None:
    await first_word(place, "not JSON")


async def something_else_at_first(place: Place) -> None:
    await first_word(place, json.dumps({"type": "req", "id": "7", "method": "chat.history", "params": {}}))


async def a_connect_that_says_nothing(place: Place) -> None:
    await place.knocks(auth={"token": await place.token()}, client=7)


async def not_a_frame_later(place: Place) -> None:
    async with place.client() as client:
        await client.send_text('{"type":"req","id":"7","method":"a","method":"b"}')
        assert await client.wait_closed() == 1008


async def a_frame_too_much(place: Place) -> None:
    async with place.client() as client:
        await client.send_text('{"type":"req","id":"7","method":"chat.history","params":[]}')
        await client.wait_for(lambda frame: frame.get("id") == "7")


async def no_token(place: Place) -> None:
    await place.knocks()


async def a_bad_token(place: Place) -> None:
    await place.knocks(auth={"token": "e30.e30.e30"})


async def a_token_in_the_address(place: Place) -> None:
    assert await place.fetches(f"/?token={await place.token()}", **UPGRADE) == 401


async def two_tokens(place: Place) -> None:
    await place.knocks(auth={"token": await place.token(), "password": await place.token("ben")})


async def no_token_over_http(place: Place) -> None:
    assert await place.fetches("/api/openclaw/status") == 401


async def a_bad_token_over_http(place: Place) -> None:
    assert await place.fetches("/api/openclaw/status", Authorization="Bearer e30.e30.e30") == 401


async def another_page(place: Place) -> None:
    assert await place.fetches("/", Origin="https://evil.example.com", **UPGRADE) == 403


async def a_browser_that_opens_the_address(place: Place) -> None:
    assert await place.fetches("/") == 426


async def too_many_strangers(place: Place) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(STRANGERS):
            await stack.enter_async_context(RawClient.open(place.sidecar.url))
        assert await place.fetches("/", **UPGRADE) == 429


async def too_many_of_a_user(place: Place) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(PER_USER):
            await stack.enter_async_context(place.client())
        with pytest.raises(RequestError):
            await stack.enter_async_context(place.client())


async def a_method(place: Place) -> None:
    await place.asks("config.patch", {"raw": "{}"})


async def no_method(place: Place) -> None:
    await place.asks("config.patch.x", {})


async def a_parameter(place: Place) -> None:
    await place.asks("chat.send", {"message": "x", "cwd": "/etc"})


async def anothers_session(place: Place) -> None:
    await place.asks("chat.history", {"sessionKey": "agent:u-ben:main"})


async def anothers_run(place: Place) -> None:
    await place.asks("agent.wait", {"runId": "ben-s-run"})


async def anothers_session_at_connect(place: Place) -> None:
    await place.knocks(auth={"token": await place.token()}, sessionKey="agent:u-ben:main")


async def an_answer_that_is_anothers(place: Place) -> None:
    async def anothers(_: StubConnection, __: Frame) -> Frame:
        return {"sessionKey": "agent:u-ben:main", "messages": [{"text": "of ben"}]}

    async with place.stub.handling("chat.history", anothers):
        await place.asks("chat.history", {"sessionKey": "main"})


async def a_second_run(place: Place) -> None:
    async with place.client() as client:
        await client.request("chat.send", {"message": "x", "idempotencyKey": "first"})
        with pytest.raises(RequestError):
            await client.request("chat.send", {"message": "x", "idempotencyKey": "second"})
        await place.stub.of("u-ann")[-1].event("tick", {})


async def more_than_the_quota(place: Place) -> None:
    async with place.client("ben") as client:
        await QuotaBook(place.database).set_limit("example|ben", QuotaType.DAILY_TOKENS, Decimal(1))
        with pytest.raises(RequestError):
            await client.request("chat.send", {"message": "x", "idempotencyKey": "third"})


async def a_question_that_means_nothing(place: Place) -> None:
    bearer = f"Bearer {await place.token()}"
    assert await place.fetches("/api/openclaw/usage?groupBy=weather", Authorization=bearer) == 400


async def anothers_usage(place: Place) -> None:
    bearer = f"Bearer {await place.token()}"
    assert await place.fetches("/api/openclaw/usage?user=example%7Cben", Authorization=bearer) == 403


async def one_id_twice(place: Place) -> None:
    async def never(_: StubConnection, __: Frame) -> None:
        return None

    async with place.stub.handling("chat.history", never), place.client() as client:
        for _ in range(2):
            await client.send_text('{"type":"req","id":"7","method":"chat.history","params":{}}')
        await client.wait_for(lambda frame: frame.get("id") == "7")


async def another_protocol(place: Place) -> None:
    place.stub.refuses_users = True
    try:
        await place.knocks(auth={"token": await place.token()})
    finally:
        place.stub.refuses_users = False


async def a_run_on_an_unknown_version(place: Place) -> None:
    await _updated(place, "2031.1.1")
    try:
        await place.asks("chat.send", {"message": "x"})
    finally:
        await _updated(place, "2026.9.6")


async def a_run_on_an_opened_gateway(place: Place) -> None:
    closed = place.stub.config
    async with place.client() as client:
        await _configured(place, closed | {"tools": SESSION_TOOLS["open"]}, 503)
        with pytest.raises(RequestError):
            await client.request("chat.send", {"message": "x"})
    await _configured(place, closed, 200)


async def _configured(place: Place, config: Frame, readiness: int) -> None:
    place.stub.config = config
    await place.stub.of("")[-1].event("config.changed", {})
    async with asyncio.timeout(30):
        while (await place.sidecar.readiness())[0] != readiness:
            await asyncio.sleep(0.05)


async def _updated(place: Place, version: str) -> None:
    """The gateway restarts as another version; back when users are let in."""
    place.stub.version = version
    before = place.stub.of("")
    for connection in list(place.stub.connections):
        await connection.socket.close()
    await eventually(lambda: bool(place.stub.of("")) and place.stub.of("") != before)
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(RequestError, ClosedError):
                async with place.client():
                    return
            await asyncio.sleep(0.1)


Way = Callable[[Place], Awaitable[None]]
Row = tuple[str, str, str, str]
"""Action, user, method, code."""

WAYS: list[tuple[type[SidecarError], Way, Row | None]] = [
    (UnansweredFrame, not_a_frame_at_first, ("denied", "", "connect", "MALFORMED_FRAME")),
    (UnansweredFrame, not_a_frame_later, ("denied", ANN, "unknown", "MALFORMED_FRAME")),
    (AnswerableFrame, a_frame_too_much, ("denied", ANN, "unknown", "MALFORMED_FRAME")),
    (MalformedFrame, something_else_at_first, ("denied", "", "connect", "MALFORMED_FRAME")),
    (MalformedFrame, a_connect_that_says_nothing, ("denied", "", "connect", "MALFORMED_FRAME")),
    (TokenRefused, no_token, ("token_rejected", "", "", "missing")),
    (TokenRefused, a_bad_token, ("token_rejected", "", "", "malformed")),
    (TokenRefused, a_token_in_the_address, ("token_rejected", "", "", "query")),
    (TokenRefused, two_tokens, ("token_rejected", "", "", "ambiguous")),
    (TokenRefused, no_token_over_http, ("token_rejected", "", "", "missing")),
    (TokenRefused, a_bad_token_over_http, ("token_rejected", "", "", "malformed")),
    (OriginRefused, another_page, ("socket_refused", "", "", "ORIGIN_NOT_ALLOWED")),
    (HouseFull, too_many_strangers, ("socket_refused", "", "", "TOO_MANY_CONNECTIONS")),
    (HouseFull, too_many_of_a_user, ("denied", ANN, "connect", "TOO_MANY_CONNECTIONS")),
    (MethodRefused, a_method, ("denied", ANN, "config.patch", "METHOD_NOT_ALLOWED")),
    (MethodRefused, no_method, ("denied", ANN, "unknown", "METHOD_NOT_ALLOWED")),
    (MethodRefused, a_parameter, ("denied", ANN, "chat.send", "PARAM_NOT_ALLOWED")),
    (ForeignKey, anothers_session, ("denied", ANN, "chat.history", "FOREIGN_KEY")),
    (ForeignKey, anothers_run, ("denied", ANN, "agent.wait", "FOREIGN_KEY")),
    (ForeignKey, anothers_session_at_connect, ("denied", ANN, "connect", "FOREIGN_KEY")),
    (ForeignKey, an_answer_that_is_anothers, ("denied", ANN, "chat.history", "FOREIGN_KEY")),
    (TooManyRuns, a_second_run, ("denied", ANN, "chat.send", "TOO_MANY_RUNS")),
    (QuotaExceeded, more_than_the_quota, ("denied", "example|ben", "chat.send", "DAILY_TOKENS_EXCEEDED")),
    (BadQuery, a_question_that_means_nothing, ("denied", ANN, "GET /api/openclaw/usage", "BAD_QUERY")),
    (MethodRefused, anothers_usage, ("denied", ANN, "GET /api/openclaw/usage", "ROLE_NOT_ALLOWED")),
    (TooManyRequests, one_id_twice, ("denied", ANN, "chat.history", "TOO_MANY_REQUESTS")),
    (ProtocolRefused, another_protocol, ("denied", ANN, "connect", "PROTOCOL_MISMATCH")),
    (GatewayNotCovered, a_run_on_an_unknown_version, ("denied", ANN, "chat.send", "GATEWAY_NOT_COVERED")),
    (GatewayOpen, a_run_on_an_opened_gateway, ("denied", ANN, "chat.send", "GATEWAY_OPEN")),
    (_NotUpgraded, a_browser_that_opens_the_address, None),
]


def refusals(kind: type[SidecarError] = Refusal) -> Iterator[type[SidecarError]]:
    for below in kind.__subclasses__():
        yield below
        yield from refusals(below)


def test_no_kind_of_refusal_is_left_out() -> None:
    audited = {*DENIALS, *(below for kind in DENIALS for below in refusals(kind))} - {Refusal}
    ours = {kind for kind in audited if kind.__module__.startswith("sidecar.")}
    assert ours == {kind for kind, _, _ in WAYS}


@pytest.mark.parametrize(("kind", "way", "expected"), WAYS, ids=[way.__name__ for _, way, _ in WAYS])
async def test_a_row_says_who_was_refused_what(
    place: Place, kind: type[SidecarError], way: Way, expected: Row | None
) -> None:
    before = await place.database.newest_audit()
    await way(place)
    rows = await _news(place, before, some=expected is not None)
    found = [(row.action, row.user_id, row.method, row.code) for row in rows]
    assert found == ([expected] if expected else [])
    text = " ".join(map(repr, rows))
    for word in (*place.shown, "evil.example", "u-ben", "ben-s-run", "e30.", "/etc", place.stub.password):
        assert word not in text
    if rows and rows[0].action == "socket_refused":
        assert rows[0].details == {"address": "127.0.0.1"}


async def _settled(place: Place) -> int:
    """The newest row, once nothing is on its way any more: rows are gathered for half a second."""
    newest = -1
    while (now := await place.database.newest_audit()) != newest:
        newest = now
        await asyncio.sleep(0.8)
    return newest


async def _news(place: Place, before: int, *, some: bool) -> list[AuditRow]:
    async with asyncio.timeout(60):
        while some and await place.database.newest_audit() == before:
            await asyncio.sleep(0.05)
    after = await _settled(place)
    return [stored.row for stored in await place.database.audit_between(AuditQuery(), before, after)]


async def test_a_compaction_takes_the_place_of_a_turn_and_leaves_a_row(place: Place) -> None:
    before = await place.database.newest_audit()
    compactions = asyncio.Queue[tuple[StubConnection, Frame]]()

    async def compact(connection: StubConnection, request: Frame) -> None:
        compactions.put_nowait((connection, request))

    async with place.stub.handling("sessions.compact", compact), place.client("cleo") as client:
        asked = await client.send("sessions.compact", {"key": "main"})
        async with asyncio.timeout(10):
            connection, request = await compactions.get()
        with pytest.raises(RequestError) as refused:
            await client.request("chat.send", {"message": "x"})
        assert refused.value.detail_code == "TOO_MANY_RUNS"
        await connection.answer(request, {"ok": True, "compacted": True})
        assert (await client.wait_for(is_response(asked)))["ok"]
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(RequestError):
                    await client.request("chat.send", {"message": "x"})
                    break
                await asyncio.sleep(0.05)
        await place.stub.of("u-cleo")[-1].event("tick", {})
    rows = await _news(place, before, some=True)
    assert [(row.user_id, row.method, row.code) for row in rows if row.action == "as_admin"] == [
        ("example|cleo", "sessions.compact", "ok")
    ]
