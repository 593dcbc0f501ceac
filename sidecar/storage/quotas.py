"""`QuotaBook`: what single users may, and what they were told, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from sidecar.domain.alerts import Alert, Crossing
from sidecar.domain.quota import QuotaType
from sidecar.storage import queries
from sidecar.storage.postgres import Database, moment
from sidecar.storage.storable import storable

_QUOTAS = queries.load("quotas")


class QuotaBook:
    """Every method raises as `Database`'s do. Times are Unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def terms_of(self, gateway_id: str, slug: str) -> tuple[frozenset[str], Mapping[QuotaType, Decimal]]:
        """Roles and own limits of the user whom the gateway knows as `slug`; none of either for who is not known."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_QUOTAS["terms_of"], gateway_id, slug)
        if row is None:
            return frozenset(), {}
        pairs = zip(row["types"] or (), row["limits"] or (), strict=True)
        return frozenset(row["roles"] or ("user",)), {QuotaType(kind): limit for kind, limit in pairs}

    async def home_of(self, user_id: str) -> tuple[str, str] | None:
        """Gateway and slug of a user; None for who has no environment."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_QUOTAS["home_of"], user_id)
        return None if row is None else (row["gateway_id"], row["profile_name"])

    async def users_on(self, gateway_id: str) -> dict[str, str]:
        """All users of a gateway: slug → user id."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUOTAS["slugs_on"], gateway_id)
        return {row["profile_name"]: row["user_id"] for row in rows}

    async def set_limit(self, user_id: str, kind: QuotaType, limit: Decimal | None) -> None:
        """None: as the settings say; 0: unlimited."""
        async with self._database.connection() as connection:
            await connection.execute(_QUOTAS["set_limit"], user_id, kind, limit)

    async def note_standing(
        self, gateway_id: str, slug: str, values: Mapping[QuotaType, tuple[Decimal, float]], now: float
    ) -> None:
        """For reports: what is used of each quota, and when that begins again."""
        kinds = list(values)
        used, resets = zip(*values.values(), strict=True)
        order = (gateway_id, slug, kinds, used, [moment(at) for at in resets], moment(now))
        async with self._database.connection() as connection:
            await connection.execute(_QUOTAS["note_standing"], *order)

    async def raise_alert(self, gateway_id: str, slug: str, crossing: Crossing, now: float) -> bool:
        """True: nobody was told of it in this period before."""
        one = crossing
        order = (gateway_id, slug, one.alert_type, one.period, one.used, one.limit, moment(now))
        async with self._database.connection() as connection:
            return await connection.fetchval(_QUOTAS["raise_alert"], *order) is not None

    async def last_alert(self) -> int:
        """The highest number of an alert; 0: there is none."""
        async with self._database.connection() as connection:
            return int(await connection.fetchval(_QUOTAS["last_alert"]))

    async def alerts_since(self, gateway_id: str, alert_id: int) -> list[tuple[int, str, Crossing]]:
        """Of a gateway's users, after the one of this number: number, slug and what was reached."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUOTAS["alerts_since"], gateway_id, alert_id)
        found = []
        for row in rows:
            kind, _, percent = row["alert_type"].rpartition("_")
            reached = (row["alert_type"], QuotaType(kind), int(percent), row["period"], row["used"], row["limit_value"])
            found.append((row["id"], row["profile_name"], Crossing(*reached)))
        return found

    async def take_unsent(self, now: float) -> list[Alert]:
        """Alerts that are due for the webhook, for this replica alone."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUOTAS["take_unsent_alerts"], moment(now))
        return sorted((Alert(**dict(row.items())) for row in rows), key=lambda alert: alert.id)

    async def mark_sent(self, alert_id: int, now: float) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_QUOTAS["mark_alert_sent"], alert_id, moment(now))

    async def alerts(self, user_id: str, *, only_open: bool, before: int, limit: int) -> Sequence[Alert]:
        """Of one user (empty: of all), the newest first. `before`: an id to page on from; 0: from the newest."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_QUOTAS["alerts"], user_id, only_open, before, limit)
        return [Alert(**dict(row.items())) for row in rows]

    async def acknowledge(self, alert_id: int, user_id: str) -> bool:
        """False where there is none of this user's (empty: anybody's)."""
        async with self._database.connection() as connection:
            return await connection.fetchval(_QUOTAS["acknowledge_alert"], alert_id, user_id) is not None

    async def resolve(self, alert_id: int, user_id: str, by: str, note: str, now: float) -> bool:
        """As `acknowledge`; one that was resolved before stays as it was."""
        order = (alert_id, user_id, moment(now), storable(by), storable(note))
        async with self._database.connection() as connection:
            return await connection.fetchval(_QUOTAS["resolve_alert"], *order) is not None
