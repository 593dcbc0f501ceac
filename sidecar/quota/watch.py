"""Which runs live, and whose, as the gateway itself tells the sidecar's own connection, whoever started them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sidecar.domain.namespace import Layout
from sidecar.protocol.session_events import runs_named, session_named
from sidecar.quota.runs import NOBODY, Runs

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

        What the operator's own agents do, or a shared one by itself, is on nobody's count; no user gets those runs by their ids.
        """
        key = session_named(raw)
        if key is None:
            return None
        slug = self._slug(key)
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
            for run_id in word.active if slug == NOBODY else ():
                self._runs.started(slug, run_id)
        return None if slug == NOBODY else (slug, key)

    def _slug(self, key: str) -> str:
        return self._layout.slug_of(key, None) or NOBODY

    def look(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        """Take note of sessions as a gateway lists them: what lives in them does so still. Slug and session of each user's."""
        seen = []
        for row in rows:
            key, active = row.get("key"), row.get("activeRunIds")
            if not isinstance(key, str):
                continue
            slug = self._slug(key)
            if slug != NOBODY:
                seen.append((slug, key))
            for run_id in active if isinstance(active, list) else ():
                if isinstance(run_id, str):
                    self._runs.started(slug, run_id)
                    self._note(key, (run_id,))
        return seen

    def sessions_of(self, slug: str) -> list[str]:
        """In which runs of this user live, as far as it was told."""
        return [key for key, living in self._living.items() if living and self._slug(key) == slug]

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
