"""What can happen that an operator wants to hear of: frozen facts.

A room states a fact through the `Report` that it was handed. Fields that end up as metric labels are words
from a fixed, small set (an error code, a gateway id, a method of the policy table), never an id, a key or
anything a client wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """Base of all facts. `connection_id`, where a fact has one, ties the lines of one socket together."""


Report = Callable[[Fact], None]


def untold(fact: Fact) -> None:
    """The `Report` of a command, which has no log and no metrics."""


"""Takes a fact and returns at once; never raises, never waits."""


@dataclass(frozen=True, slots=True)
class SocketOpened(Fact):
    """A WebSocket was accepted; nobody is authenticated yet."""

    connection_id: str
    address: str


@dataclass(frozen=True, slots=True)
class SocketRefused(Fact):
    """Audit: an upgrade was refused: `reason` is an error's `detail_code`.

    `denied`: somebody asked for what they may not have, and no other fact says so.
    """

    address: str
    reason: str
    denied: bool = False


@dataclass(frozen=True, slots=True)
class UserConnected(Fact):
    """The handshake is over: the client has its `hello-ok`. `seconds` since the socket was accepted."""

    connection_id: str
    user_id: str
    agent_id: str
    gateway_id: str
    client: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SocketClosed(Fact):
    """`reason` is a word: `client`, `gateway`, `expired`, `slow`, `drain`, or an error's `detail_code`."""

    connection_id: str
    user_id: str
    code: int
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Denied(Fact):
    """Audit: a caller was refused something. `method` is one of the policy table, `connect`, or `unknown`; `user_id` is empty
    where it is not known yet who calls."""

    connection_id: str
    user_id: str
    method: str
    code: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class ActedAsAdmin(Fact):
    """Audit: the sidecar's own connection executed `method` for a caller. `outcome`: `ok`, an error's code, or `unanswered`."""

    connection_id: str
    user_id: str
    method: str
    outcome: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class TokenRejected(Fact):
    """Audit: a credential was refused. `issuer` is a configured name or empty; `reason` a fixed word; `address` where there is
    no connection yet."""

    connection_id: str
    issuer: str
    reason: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class EventDropped(Fact):
    """`count` events of the gateway did not pass: `reason` is `foreign`, `unlisted` or `unasked`."""

    event: str
    reason: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class FramesRelayed(Fact):
    """One batch went through. `direction` is `up` (to the gateway) or `down`."""

    direction: str
    frames: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FramesKeptBack(Fact):
    """So many frames came from a gateway on a user's connection, and no client got them: dropped events, answers to us."""

    frames: int


@dataclass(frozen=True, slots=True)
class FramesHeard(Fact):
    """So many frames came at once on the sidecar's own connection to a gateway."""

    gateway_id: str
    frames: int


@dataclass(frozen=True, slots=True)
class RunAdmitted(Fact):
    connection_id: str
    user_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class KeysFetched(Fact):
    """An issuer's JWKS was asked for. `outcome`: `ok` or `failed`; `keys` usable ones now kept."""

    issuer: str
    outcome: str
    keys: int


@dataclass(frozen=True, slots=True)
class GatewayState(Fact):
    """The sidecar's own connection to a gateway changed. `state`: `ready`, `starting`, `open`, `uncovered`,
    `away`."""

    gateway_id: str
    state: str
    version: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class AgentsWritten(Fact):
    """One configuration write made or mended the agents of `count` users; `seconds` it took."""

    gateway_id: str
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AgentsRefused(Fact):
    """A gateway did not take the users' agents; `why` is its own sentence, for the operator's log alone."""

    gateway_id: str
    why: str


@dataclass(frozen=True, slots=True)
class AgentsOpen(Fact):
    """`count` users' agents are not closed in the gateway's configuration, and none of their runs starts. Said with every change;
    0: all are closed. `agents` names some, each with what of its entry differs."""

    gateway_id: str
    count: int
    agents: str


@dataclass(frozen=True, slots=True)
class EngineState(Fact):
    """PostgreSQL or Redis: `engine` is `postgres` or `redis`, `state` is `up`, `away` or `restarted`."""

    engine: str
    state: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Unexpected(Fact):
    """A defect of ours: `where` names the room and `error` the exception's type, never its text."""

    where: str
    error: str
    connection_id: str = ""


@dataclass(frozen=True, slots=True)
class AuditWritten(Fact):
    """`rows` of the audit log reached the database."""

    rows: int


@dataclass(frozen=True, slots=True)
class AuditDropped(Fact):
    """`rows` of the audit log are lost. `reason`: `full` (the database was away long), `refused`, `stop`."""

    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class UsageWritten(Fact):
    """A model call is in the ledger. `source`: `message` or `estimate`; `tokens` of all kinds."""

    gateway_id: str
    source: str
    tokens: int


@dataclass(frozen=True, slots=True)
class UsageSpooled(Fact):
    """The ledger is away: `rows` more went to the spool, which has `bytes` now. Said with 0 and 0 once it is empty again."""

    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class UsageLost(Fact):
    """`rows` are neither in the ledger nor in the spool. `reason`: `full` (the spool; what its gateway's transcripts hold is read
    again), `refused` (by PostgreSQL), `unreadable` (in the spool)."""

    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class UsageDropped(Fact):
    """The ledger's rows of a month (`2026-11`) are gone: older than `usage.retention_months`."""

    month: str


@dataclass(frozen=True, slots=True)
class UsageUnpriced(Fact):
    """A model has no price, here or at the gateway: its calls count with no cost. Said once for each."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class RunsCut(Fact):
    """The runs of one session were stopped: its user is over the quota `kind` (`daily_tokens`, `monthly_cost`)."""

    gateway_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class AdmittedBlindly(Fact):
    """A turn was asked for while nobody could say what its user has used: whether the outage policy let it start."""

    gateway_id: str
    admitted: bool


@dataclass(frozen=True, slots=True)
class AlertRaised(Fact):
    """A user came near a limit or to it, for the first time in its period: `daily_tokens_80`, … `monthly_cost_100`."""

    gateway_id: str
    alert_type: str


@dataclass(frozen=True, slots=True)
class AlertSent(Fact):
    """An alert went to the webhook. `outcome`: `sent`, `refused` or `unreachable`; it is tried again after the last two."""

    outcome: str


@dataclass(frozen=True, slots=True)
class CollectorState(Fact):
    """Who meters a gateway. `state`: `leading`, `reading` (transcripts, for what was missed), `following` (another sidecar leads),
    `away` (no connection)."""

    gateway_id: str
    state: str


@dataclass(frozen=True, slots=True)
class BackFilled(Fact):
    """The transcripts of `sessions` sessions were read for calls that nobody heard of; `seconds` it took."""

    gateway_id: str
    sessions: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ConfigurationDoubtful(Fact):
    """A setting works but weakens something; said once, at start."""

    setting: str
    what: str
    mend: str
