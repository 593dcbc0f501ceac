"""Which runs live, as the gateway itself tells the sidecar's own connection, whoever started them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sidecar.domain.namespace import Layout
from sidecar.protocol.session_events import runs_named, session_named
from sidecar.quota.runs import Runs

MOST_SESSIONS = 10_000
MOST_RUNS = 64
"""Of one session so many are remembered; a client can have no more than `quota.concurrent_runs`."""


class Watch:
    """Takes note of what a gateway tells of its users' sessions and runs.

    `sessions.changed` says start, end and error of a run, and who lives in a session; when none does, those heard of before are
    over. What has no such event at all, since it ended with its first word, is seen on its user's own connection
    (`relay.subscriptions`). Seen on 2026.9.6 and 2026.8.2.
    """

    def __init__(self, runs: Runs, layout: Layout) -> None:
        self._runs = runs
        self._layout = layout
        self._living: dict[str, dict[str, None]] = {}
        """Session → runs that were said to live in it."""

    def hear(self, raw: bytes) -> tuple[str, str] | None:
        """Take note of an event. The user's slug and session where it is about one.

        Only users count: what the operator's own agents do, or a shared one by itself, is nobody's quota.
        """
        key = session_named(raw)
        slug = self._layout.slug_of(key, None) if key is not None else None
        if key is None or slug is None:
            return None
        word = runs_named(raw, key)
        for run_id in word.ends:
            self._living.get(key, {}).pop(run_id, None)
            self._runs.ended(slug, run_id)
        if word.starts:
            self._runs.started(slug, word.starts)
            self._note(key, (word.starts,))
        if word.idle:
            for run_id in self._living.pop(key, {}):
                self._runs.silent(slug, run_id)
        elif word.active:
            self._note(key, word.active)
        return slug, key

    def look(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """Take note of sessions as a gateway lists them: what lives in them does so still. Slug and session of each user's."""
        seen = []
        for row in rows:
            key, active = row.get("key"), row.get("activeRunIds")
            slug = self._layout.slug_of(key, None) if isinstance(key, str) else None
            if not isinstance(key, str) or slug is None:
                continue
            seen.append((slug, key))
            for run_id in active if isinstance(active, list) else ():
                if isinstance(run_id, str):
                    self._runs.started(slug, run_id)
                    self._note(key, (run_id,))
        return seen

    def forget(self) -> None:
        """The gateway is lost."""
        self._living.clear()
        self._runs.forget_live()

    def _note(self, key: str, run_ids: Iterable[str]) -> None:
        living = self._living.pop(key, {}) | dict.fromkeys(run_ids)
        self._living[key] = living
        while len(living) > MOST_RUNS:
            del living[next(iter(living))]
        if len(self._living) > MOST_SESSIONS:
            del self._living[next(iter(self._living))]
