"""What was read, before anybody judges it. No secret is kept here: `config.get` redacts its own, of ours only the shape is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Expected:
    """What our own settings say of one gateway."""

    id: str
    auth: Literal["trusted-proxy", "token", "password"]
    local: bool
    """It is reached by a loopback address, or by one of this host's."""

    user_header: str
    admin_user: str
    origins: tuple[str, ...]
    """`server.public_url`, then `server.allowed_origins`."""

    root: str
    tools_allow: tuple[str, ...]
    model_allow: tuple[str, ...]
    shared_agent: str
    own_workspaces: bool
    """It is a patched gateway whose runs each work in their user's workspace."""

    allow_open: bool
    concurrent_runs: int


@dataclass(frozen=True, slots=True)
class Reach:
    """Who else can connect to the gateway's port."""

    tried: tuple[str, ...] = ()
    """Addresses of this host that are not loopback."""

    answered: tuple[str, ...] = ()
    """Those at which a gateway answered."""


@dataclass(frozen=True, slots=True)
class GatewaySeen:
    """One look at one gateway."""

    version: str
    valid: bool
    """Its configuration file is; else `effective` and `source` are empty, and it runs with an older one."""

    effective: Mapping[str, Any]
    source: Mapping[str, Any]
    includes: int
    """Files that the roster of agents is put together from."""

    skew: float | None
    """Seconds that its clock is ahead of ours, within a round trip; None where it did not say."""

    plugins: tuple[str, ...] = ()
    """That are loaded."""

    state_dir: str = ""
    log_file: str = ""
    """As `logs.tail` names it."""

    offered: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Users' agents with a session → the tools that the gateway would offer in it (`tools.effective`)."""

    reach: Reach | None = None
    """None for a gateway on another host."""

    cpus: int = 0
    """Of this host; 0 for a gateway on another one."""


@dataclass(frozen=True, slots=True)
class IssuerSeen:
    """One issuer's keys, fetched anew."""

    name: str
    algorithms: tuple[str, ...]
    """That the settings accept."""

    keys: Sequence[tuple[str, ...]] = ()
    """Of each usable key: the algorithms that it verifies."""

    why: str = ""
    """Why there are none."""

    pinned: bool = False
    """`jwks_url` is given, so discovery is not asked."""


@dataclass(frozen=True, slots=True)
class EngineSeen:
    """PostgreSQL or Redis."""

    name: Literal["postgres", "redis"]
    embedded: bool
    answers: bool
    why: str = ""
    """Why it does not."""

    running: bool = True
    """Embedded: a sidecar runs that holds it."""

    version: str = ""
    skew: float = 0.0
    revision: str = ""
    """Of the schema; `none` for an empty database."""

    newest: str = ""
    """The revision that this version of the sidecar needs."""

    eviction: str = ""
    """Redis: what it does when its memory is full; empty where it has no limit."""


@dataclass(frozen=True, slots=True)
class FolderSeen:
    """`storage.data_dir`."""

    path: str
    exists: bool
    mode: int = 0
    holder: int = 0
    """The process that holds it; 0: none."""

    seal: Literal["given", "kept", "missing", "unreadable"] = "missing"
    """`storage.secret`, or the one that is kept in here."""

    seal_mode: int = 0
