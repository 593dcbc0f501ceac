"""Alerts to the operator's webhook: signed, tried again for three days, and never in anybody's way.

    POST <url>
    X-Sidecar-Timestamp: <Unix seconds>
    X-Sidecar-Signature: sha256=<hex HMAC-SHA256 of "<timestamp>.<body>" with the secret>
    {"id", "userId", "type", "period", "used", "limit", "triggeredAt"}

What is due stands in `quota_alerts`, so a restart loses nothing and one replica sends it. A receiver may get an alert twice, where
its answer was lost: `id` tells.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Protocol

import aiohttp
import orjson

from sidecar.domain.alerts import Alert
from sidecar.errors import StorageAway
from sidecar.telemetry.facts import AlertSent, Report

EVERY_SECONDS = 5.0
ANSWER_SECONDS = 10.0


class Book(Protocol):
    """All raise StorageAway."""

    async def take_unsent(self, now: float) -> list[Alert]: ...

    async def mark_sent(self, alert_id: int, now: float) -> None: ...


class Webhook:
    """`run()` in a task of the caller's."""

    def __init__(self, url: str, secret: bytes, book: Book, report: Report, clock: Callable[[], float]) -> None:
        self._url = url
        self._secret = secret
        self._book = book
        self._report = report
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    for alert in await self._book.take_unsent(self._clock()):
                        await self._send(session, alert)
                except StorageAway:
                    pass  # they stay due
                await asyncio.sleep(EVERY_SECONDS)

    async def _send(self, session: aiohttp.ClientSession, alert: Alert) -> None:
        body = orjson.dumps(
            {
                "id": alert.id,
                "userId": alert.user_id,
                "type": alert.alert_type,
                "period": alert.period,
                "used": f"{alert.used.normalize():f}",
                "limit": f"{alert.limit_value.normalize():f}",
                "triggeredAt": alert.triggered_at.isoformat(),
            }
        )
        headers = {"Content-Type": "application/json", **signed(self._secret, int(self._clock()), body)}
        outcome = "unreachable"
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                outcome = "sent" if 200 <= answer.status < 300 else "refused"
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        self._report(AlertSent(outcome))
        if outcome == "sent":
            await self._book.mark_sent(alert.id, self._clock())


def signed(secret: bytes, at: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows whose it is, and that it is not an old one."""
    digest = hmac.digest(secret, f"{at}.".encode() + body, "sha256").hex()
    return {"X-Sidecar-Timestamp": str(at), "X-Sidecar-Signature": f"sha256={digest}"}
