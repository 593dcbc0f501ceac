"""What a gateway tells a connection that listens to all sessions (`sessions.subscribe`), whoever's they are.

With the capability `session-scoped-events` it gets none of the pieces of an answer, but of each session (2026.9.6):

    {"type":"event","event":"sessions.changed","payload":{"sessionKey":"agent:…","agentId":"…","phase":"start","runId":"…",
     "ts":…,"session":{…},…,"hasActiveRun":true,"activeRunIds":null,…},"seq":7}
    {"type":"event","event":"session.message","payload":{"sessionKey":"agent:…","agentId":"…","message":{…},…},"seq":8}
    {"type":"event","event":"task","payload":{"action":"upserted","task":{…,"childSessionKey":"agent:…",…}},"seq":9}
    {"type":"event","event":"cron","payload":{"jobId":"…","action":"finished",…,"sessionKey":"agent:…",…},"seq":10}

A message may be large and says nothing of runs, so frames are scanned for whose they are before anything is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from sidecar.protocol import frames

SESSION_SCOPED = "session-scoped-events"
"""With this capability a connection gets `chat` and `agent` events only of sessions whose messages it subscribed to."""

_FLAT = rb'(?:"\w{1,32}+":(?:"[^"\\]{0,256}+"|[0-9.]++|true|false|null),)'
_SESSION = re.compile(
    rb'\{"type":"event","event":"(?:sessions\.changed|session\.message)","payload":\{(?:(?!"sessionKey":)'
    + _FLAT
    + rb'){0,8}+"sessionKey":"([^"\\]++)"'
)
_CHANGED = b'{"type":"event","event":"sessions.changed",'
_TASK = b'{"type":"event","event":"task",'
_CHILD = b'"childSessionKey":"'
_CRON = b'{"type":"event","event":"cron",'
_FINISHED = b'"action":"finished"'
OF_A_JOB = ":run:"
"""In the key under which one run of a job goes on; lists of sessions have only the job's own."""


def session_named(raw: bytes) -> str | None:
    """The session that an event is about; None where it names none at a place that is looked at.

    A task names the session that was made for it, before the first event of its run: a sub-agent's, a cron job's.
    """
    match = _SESSION.match(raw)
    if match:
        return match[1].decode("utf-8", "replace")
    if raw.startswith(_TASK):
        return _child_session(raw)
    if raw.startswith(_CRON) and _FINISHED in raw:
        payload = (frames.parse(raw) or {}).get("payload")
        key = payload.get("sessionKey") if isinstance(payload, dict) else None
        return key if isinstance(key, str) else None
    return None


def _child_session(raw: bytes) -> str | None:
    """A quote stands escaped within a JSON text, so these bytes are a member's name."""
    at = raw.find(_CHILD)
    end = raw.find(b'"', at + len(_CHILD))
    return raw[at + len(_CHILD) : end].decode("utf-8", "replace") if 0 <= at < end else None


class RunWord(NamedTuple):
    """What an event says of the runs of one session."""

    starts: str = ""
    """This run begins."""

    ends: tuple[str, ...] = ()
    """These are over: one run, by its own id and by that of the request that began it."""

    idle: bool = False
    """No run lives in the session."""

    active: tuple[str, ...] = ()
    """These live in it, among others maybe."""

    at: float = 0.0
    """When it was said, Unix seconds by the gateway's clock; 0 where it does not say."""

    aborted: bool = False
    """The session's last run was ended by somebody, or by its gateway's end."""


NOTHING_SAID = RunWord()


def runs_named(raw: bytes, key: str) -> RunWord:
    """What an event about the session `key` (`session_named`) says of its runs.

    A run's begin may be told after its end, since the gateway tells of changes when it finds time for it: `hasActiveRun` is how
    it is now. The end of a cron job's own run is told by `cron` alone (2026.8.2).
    """
    if raw.startswith(_CRON):
        return RunWord(idle=True) if OF_A_JOB in key else NOTHING_SAID
    payload = (frames.parse(raw) or {}).get("payload") if raw.startswith(_CHANGED) else None
    if not isinstance(payload, dict):
        return NOTHING_SAID
    phase, living = payload.get("phase"), payload.get("hasActiveRun")
    ids = _texts((payload.get("clientRunId"), payload.get("runId")))
    return RunWord(
        starts=ids[0] if ids and phase == "start" and living is not False else "",
        ends=ids if phase in {"end", "error"} else (),
        idle=living is False,
        active=_texts(payload.get("activeRunIds")),
        at=_seconds(payload.get("ts")),
        aborted=payload.get("abortedLastRun") is True,
    )


ALL_LISTED = {"limit": 1000}
"""Params of `sessions.list` for `runs_listed`."""


def runs_listed(answer: Any, wanted: Callable[[str], bool]) -> set[str] | None:
    """The runs that a list of sessions (`sessions.list`) shows as living in those whose key is `wanted`.

    What waits for its turn is among them (2026.9.6, 2026.8.2). None where the list does not say it of every session: it goes on
    after this page, or what lives there has no id (a job of the gateway's own).
    """
    rows = answer.get("sessions") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or answer.get("hasMore") is not False:
        return None
    living: set[str] = set()
    for row in rows:
        key = row.get("key") if isinstance(row, dict) else None
        if not isinstance(key, str):
            return None
        if wanted(key) and row.get("hasActiveRun") is not False:
            if not isinstance(row.get("activeRunIds"), list):
                return None
            living.update(_texts(row["activeRunIds"]))
    return living


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, (list, tuple)) else ()


def _seconds(milliseconds: Any) -> float:
    return milliseconds / 1000 if isinstance(milliseconds, (int, float)) and not isinstance(milliseconds, bool) else 0.0


_END = re.compile(rb'"seq":\d++,"state":"(?!delta|status)')


def may_end_chat(buffer: bytes, at: int, end: int) -> bool:
    """Does a `chat` event whose `agentId` ends before `at` say more than a piece of the answer? (2026.9.6, 2026.8.2)"""
    return _END.match(buffer, at, end) is not None


def end_of_chat(payload: Any) -> str | None:
    """The run whose end a `chat` event's payload tells; None where it tells none."""
    if not isinstance(payload, dict) or payload.get("state") not in {"final", "aborted", "error"}:
        return None
    run_id = payload.get("runId")
    return run_id if isinstance(run_id, str) else None
