"""What a gateway's transcripts tell of model calls: which sessions changed, and the calls in each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

import orjson

from sidecar.domain.namespace import Layout
from sidecar.domain.usage import ModelCall, OpenRun, Source
from sidecar.errors import GatewayAway
from sidecar.gateways.rpc import RequestRefused
from sidecar.protocol import usage
from sidecar.protocol.session_events import ALL_LISTED
from sidecar.protocol.usage import Reported, Unfinished
from sidecar.telemetry.facts import Report, UsageUnpriced
from sidecar.usage.estimates import Estimates
from sidecar.usage.keeping import months_before
from sidecar.usage.prices import Prices

PAGE = 200
FEW, MOST_WHOLE, MOST_WHOLE_BYTES = 8, 256, 1024 * 1024
"""Messages that a gateway shows to nobody are looked for in the latest few, then in more: there is no other way to ask for them.
Whole messages may be large."""

PAGES = 500
"""Of one list or one transcript at most, so that no gateway keeps us busy for ever."""

MOST_CHARS = 100_000
"""Of a message's text, where it is to be counted. What is longer is cut; 2026.9.6 leaves a message out that is much longer than it
gives, whatever was asked for."""

MOST_UNPRICED = 1000
DAY_SECONDS = 86_400.0
"""A time that lies further ahead than this, or none, is not believed."""


class Gateway(Protocol):
    """The sidecar's own connection. `request` raises GatewayAway."""

    async def request(self, method: str, params: Mapping[str, Any], timeout: float = 30.0) -> Any: ...


class Transcripts:
    """Of one gateway."""

    def __init__(
        self,
        gateway_id: str,
        layout: Layout,
        gateway: Gateway,
        estimates: Estimates,
        prices: Prices,
        report: Report,
        clock: Callable[[], float],
        retention_months: int = 0,
    ) -> None:
        self.estimates = estimates
        self._gateway_id = gateway_id
        self._layout = layout
        self._gateway = gateway
        self._prices = prices
        self._report = report
        self._clock = clock
        self._months = retention_months
        self._unpriced: set[tuple[str, str]] = set()

    async def changed(self, since: float) -> tuple[list[str], float]:
        """Users' sessions that changed since then, and when the last one did. Newest first, as the gateway lists them.

        Raises GatewayAway.
        """
        keys: dict[str, None] = {}
        newest, offset = 0.0, 0
        for _ in range(PAGES):
            answer = await self._gateway.request("sessions.list", {"limit": PAGE, "offset": offset, "archived": "all"})
            rows = _rows(answer, "sessions")
            for row in rows:
                changed = _seconds(row.get("updatedAt"))
                newest = max(newest, changed)
                key = row.get("key")
                if changed >= since and isinstance(key, str) and self._layout.slug_of(key, None) is not None:
                    keys[key] = None
            if len(rows) < PAGE or _seconds(rows[-1].get("updatedAt")) < since:
                break
            offset += PAGE // 2  # rows move up while we page
        return list(keys), newest

    async def calls(self, key: str, since: float) -> AsyncIterator[list[ModelCall]]:
        """The calls of a transcript, a page at a time, the latest first, back to `since`. Raises GatewayAway, StorageAway."""
        offset = 0
        for _ in range(PAGES):
            try:
                messages, following = await self._page(key, offset, since)
                found = [said for message in messages if (said := usage.listed(message)) is not None]
                if any(isinstance(said, Unfinished) and said.text_chars for said in found):
                    texts = map(usage.listed, _rows(await self._history(key, offset, MOST_CHARS), "messages"))
                    known = {said.message_id: said for said in texts if said is not None}
                    found = [known.get(said.message_id, said) for said in found]
            except RequestRefused:  # it is gone, or no session that has one
                return
            yield [call for said in found if (call := await self._of(key, said)) is not None]
            if following <= offset or any(0 < usage.written_at(message) < since for message in messages):
                return
            offset = following

    async def unshown(self, key: str, message_id: str) -> Reported | Unfinished | None:
        """The call behind a message that the gateway shows to nobody; None where there is none. Raises GatewayAway."""
        if self._layout.slug_of(key, None) is None:
            return None

        def wanted(message: Mapping[str, Any]) -> bool:
            stamp = message.get("__openclaw")
            return isinstance(stamp, dict) and stamp.get("id") == message_id

        messages = await self._whole(key, lambda messages: any(map(wanted, messages)))
        return next((usage.listed(message) for message in messages if wanted(message)), None)

    async def left_by(self, run: OpenRun) -> Unfinished | None:
        """What a run that is over was doing when it ended, if it was a call. Raises GatewayAway."""
        try:
            messages, _ = await self._page(run.session_key, 0, run.began_at)
        except RequestRefused:  # the session is gone; it was read before
            return None
        return usage.unanswered(messages, run.run_id, run.began_at)

    async def _page(self, key: str, offset: int, since: float) -> tuple[list[Mapping[str, Any]], int]:
        """Messages with their texts cut, in their order, and the offset of the page before them; 0 where there is none.

        Those that the gateway shows to nobody are among them, as far as they were written since.
        """
        answer = await self._history(key, offset, 1)
        messages, following = _rows(answer, "messages"), _place(answer, "nextOffset")
        missing = usage.left_out(messages, _place(answer, "totalMessages") - offset, since, first=not following)
        if missing:
            lowest = min(missing)
            whole = await self._whole(key, lambda messages: any(usage.place(one) <= lowest for one in messages))
            found = {at: message for message in whole if (at := usage.place(message)) in missing}
            messages = [message for message in messages if usage.place(message) not in found]
            messages = sorted([*messages, *found.values()], key=usage.place)
        return messages, following

    async def _history(self, key: str, offset: int, chars: int) -> Any:
        where = {"sessionKey": key, "limit": PAGE, "offset": offset, "maxChars": chars}
        return await self._ask("chat.history", where)

    async def _whole(
        self, key: str, found: Callable[[Sequence[Mapping[str, Any]]], bool]
    ) -> Sequence[Mapping[str, Any]]:
        """The latest messages as they are; so many that `found` holds, or that there may be no more. Raises GatewayAway."""
        limit = FEW
        while True:
            try:
                messages = _rows(await self._ask("sessions.get", {"key": key, "limit": limit}), "messages")
            except RequestRefused:
                return []
            if found(messages) or len(messages) < limit or limit >= MOST_WHOLE:
                return messages
            if len(orjson.dumps(messages)) > MOST_WHOLE_BYTES:
                return messages
            limit *= 2

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Raises GatewayAway where another try may help, else RequestRefused."""
        try:
            return await self._gateway.request(method, params)
        except RequestRefused as refused:
            if refused.error.get("retryable") is True or refused.error.get("code") == "UNAVAILABLE":
                raise GatewayAway(refused.message) from refused
            raise

    async def dead(self, slug: str, runs: Sequence[OpenRun]) -> tuple[list[OpenRun], bool]:
        """Which of a user's runs the gateway knows to be over, and whether it could tell of all. Raises GatewayAway."""
        agent = self._layout.shared_agent or slug
        answer = await self._gateway.request("sessions.list", {"agentId": agent, **ALL_LISTED})
        rows = {row.get("key"): row for row in _rows(answer, "sessions")}
        whole = isinstance(answer, dict) and answer.get("hasMore") is False
        found = {run: _is_over(run.run_id, rows.get(run.session_key), whole=whole) for run in runs}
        return [run for run, over in found.items() if over], None not in found.values()

    async def _of(self, key: str, said: Reported | Unfinished) -> ModelCall | None:
        return self.call(key, said) if isinstance(said, Reported) else await self.estimated(key, said)

    async def estimated(self, key: str, said: Unfinished) -> ModelCall | None:
        """What an answer without figures took; None where it took nothing, or no user's agent gave it. Raises StorageAway."""
        slug, at = self._layout.slug_of(key, None), self._moment(said.at)
        return None if slug is None or self._is_forgotten(at) else await self.estimates.of(slug, key, said, at)

    def call(self, key: str, said: Reported) -> ModelCall | None:
        """None where no user's agent made it."""
        slug, at = self._layout.slug_of(key, None), self._moment(said.at)
        if slug is None or self._is_forgotten(at):
            return None
        cost, priced_by = said.cost_usd, "gateway"
        if cost is None:
            cost, priced_by = self._prices.of(said.provider, said.model, said.tokens, at), "table"
        if cost is None:
            cost, priced_by = Decimal(0), "nobody"
            self._unpriced_once(said.provider, said.model)
        return ModelCall(
            gateway_id=self._gateway_id,
            call_id=said.message_id,
            source=Source.MESSAGE,
            slug=slug,
            session_key=key,
            run_id=said.run_id,
            provider=said.provider,
            model=said.model,
            tokens=said.tokens,
            cost_usd=cost,
            at=at,
            metadata={"priced_by": priced_by, "stop_reason": said.stop_reason[:64]},
        )

    def _is_forgotten(self, at: float) -> bool:
        """It is older than the ledger keeps: what was dropped does not come back."""
        return self._months > 0 and at < months_before(self._clock(), self._months)

    def _moment(self, at: float) -> float:
        now = self._clock()
        return at if 0 < at < now + DAY_SECONDS else now

    def _unpriced_once(self, provider: str, model: str) -> None:
        if (provider, model) not in self._unpriced and len(self._unpriced) < MOST_UNPRICED:
            self._unpriced.add((provider, model))
            self._report(UsageUnpriced(provider, model))


def _is_over(run_id: str, row: Mapping[str, Any] | None, *, whole: bool) -> bool | None:
    """By the row of its session; None: it does not say. Once a run has begun, 2026.9.6 lists that one lives, but not its id."""
    if row is None:
        return True if whole else None
    if row.get("hasActiveRun") is False:
        return True
    active = row.get("activeRunIds")
    return run_id not in active if isinstance(active, list) else None


def _rows(answer: Any, name: str) -> list[Mapping[str, Any]]:
    rows = answer.get(name) if isinstance(answer, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _place(answer: Any, name: str) -> int:
    value = answer.get(name) if isinstance(answer, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def _seconds(value: Any) -> float:
    return value / 1000 if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
