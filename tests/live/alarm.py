"""A user of a running house is told that they come near a limit, as they would be by any replica."""

from __future__ import annotations

import asyncpg

from sidecar.storage.engines.running import running_database_url
from tests.live.conftest import House

NAME = "quota.alert"


async def raise_alert(house: House, agent: str) -> None:
    """Their clients hear of it within `sidecar.usage.alerts.LOOK_SECONDS`."""
    connection = await asyncpg.connect(running_database_url(house.sidecar.options.folder / "data"))
    try:
        await connection.execute(
            "insert into quota_alerts (user_id, alert_type, period, used, limit_value, triggered_at) "
            "select user_id, 'daily_tokens_90', gen_random_uuid()::text, 91000, 100000, now() "
            "from user_openclaw_environments where profile_name = $1",
            agent,
        )
    finally:
        await connection.close()
