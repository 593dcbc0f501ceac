"""Calls of a model that no transcript of a gateway shows, by its configuration. Pure.

Seen in the source of 2026.9.6, whose settings 2026.8.2 takes as well; all of them are on by default. What a user could have done
at will is closed to users instead (`/btw`, the session observer, titles on demand).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Unmetered:
    """One way in which a user's agent costs something that nobody counts."""

    what: str
    setting: str = ""
    """What turns it off, as a dotted path; empty: nothing does."""

    off: Any = False


WAYS = (
    Unmetered("compactions of long sessions"),
    Unmetered("what an agent notes before a compaction", "agents.defaults.compaction.memoryFlush.enabled"),
    Unmetered("titles of sessions"),
    Unmetered("recaps of sessions", "agents.defaults.utilityModel", ""),
    Unmetered("speech among attachments", "tools.media.audio.enabled"),
    Unmetered("pictures that another model describes", "tools.media.image.enabled"),
    Unmetered("films among attachments", "tools.media.video.enabled"),
    Unmetered("embeddings for the memory", "memory.search.provider", "none"),
    Unmetered("dreaming", "plugins.entries.memory-core.config.dreaming.enabled"),
)


def unmetered(config: Mapping[str, Any]) -> Iterator[Unmetered]:
    """Those that `config`, as the gateway reads it, does not turn off."""
    for way in WAYS:
        if not way.setting or not _is_off(config, way):
            yield way


def _is_off(config: Mapping[str, Any], way: Unmetered) -> bool:
    """For every agent: one may have a word of its own for what the defaults say."""
    own = way.setting.removeprefix("agents.defaults.")
    entries = _member(config, "agents.entries") if own != way.setting else {}
    said = [_member(entry, own) for entry in entries.values()] if isinstance(entries, dict) else []
    return bool(_member(config, way.setting) == way.off and all(word in (None, way.off) for word in said))


def _member(config: Any, path: str) -> Any:
    found = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found
