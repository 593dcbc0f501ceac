"""Facts → Prometheus, in a registry of its own.

A label is a word from a small set. Should a set turn out not to be small, its later words become `other`:
memory stays bounded whatever comes. No user, connection, key or address is ever a label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from sidecar import __version__
from sidecar.telemetry import facts
from sidecar.telemetry.facts import Fact

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
PREFIX = "openclaw_sidecar_"
OTHER = "other"
_MAX_WORDS = 512
_MAX_WORD = 64
_GATEWAY_STATES = ("ready", "starting", "open", "uncovered", "away")
_COLLECTOR_STATES = ("leading", "reading", "following", "away")
_CONNECT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SOCKET_BUCKETS = (1, 10, 60, 300, 1800, 3600, 14_400, 86_400)
_WRITE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Words:
    """The words of one label, at most `limit` of them; later and misshapen ones become `other`."""

    def __init__(self, limit: int = _MAX_WORDS) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, word: str) -> str:
        if word in self._known:
            return word
        if len(self._known) >= self._limit or len(word) > _MAX_WORD or not word.isprintable():
            return OTHER
        self._known.add(word)
        return word


@dataclass(frozen=True, slots=True)
class Described:
    """One metric as Prometheus shows it."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...]


class Metrics:
    """All metrics of one process. `observe` is called with every fact; `render` is what /metrics serves."""

    def __init__(self) -> None:
        # Else each counter brings a second series with its birthday. The library does not type this one.
        cast("Callable[[], None]", prometheus_client.disable_created_metrics)()
        self.described: list[Described] = []
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._words: dict[str, Words] = {}
        self._open: set[str] = set()
        self._user_of: dict[str, str] = {}
        self._make_socket_metrics()
        self._make_frame_metrics()
        self._make_dependency_metrics()
        self._make_usage_metrics()
        self._make_own_metrics()
        self.handlers: Mapping[type[Fact], Callable[[Any], None]] = {
            facts.SocketOpened: self._socket_opened,
            facts.SocketRefused: self._socket_refused,
            facts.UserConnected: self._user_connected,
            facts.SocketClosed: self._socket_closed,
            facts.Denied: self._on_denied,
            facts.ActedAsAdmin: self._acted_as_admin,
            facts.TokenRejected: self._token_rejected,
            facts.EventDropped: self._event_dropped,
            facts.FramesRelayed: self._frames_relayed,
            facts.FramesKeptBack: self._frames_kept_back,
            facts.FramesHeard: self._frames_heard,
            facts.AdmittedBlindly: self._admitted_blindly,
            facts.RunAdmitted: self._run_admitted,
            facts.KeysFetched: self._keys_fetched,
            facts.GatewayState: self._on_gateway_state,
            facts.AgentsWritten: self._agents_written,
            facts.AgentsRefused: self._agents_refused,
            facts.AgentsOpen: self._agents_open,
            facts.EngineState: self._engine_state,
            facts.Unexpected: self._on_unexpected,
            facts.AuditWritten: self._audit_written,
            facts.AuditDropped: self._audit_dropped,
            facts.UsageWritten: self._usage_written,
            facts.UsageSpooled: self._usage_spooled,
            facts.UsageLost: self._on_usage_lost,
            facts.UsageUnpriced: self._usage_unpriced,
            facts.RunsCut: self._runs_cut,
            facts.AlertRaised: self._alert_raised,
            facts.AlertSent: self._alert_sent,
            facts.CollectorState: self._collector_state,
            facts.BackFilled: self._back_filled,
        }

    def observe(self, fact: Fact) -> None:
        """Count the fact. One that is not known here is passed over."""
        handler = self.handlers.get(type(fact))
        if handler is not None:
            handler(fact)

    def render(self) -> bytes:
        """The text that Prometheus reads; its type is `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", help_text, labels)
        return Counter(PREFIX + name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        self._describe(name, "gauge", help_text, labels)
        return Gauge(PREFIX + name, help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self._describe(name, "histogram", help_text, labels)
        return Histogram(PREFIX + name, help_text, labels, buckets=buckets, registry=self.registry)

    def _describe(self, name: str, kind: str, help_text: str, labels: tuple[str, ...]) -> None:
        self.described.append(Described(PREFIX + name, kind, help_text, labels))

    def _word(self, label: str, word: str) -> str:
        return self._words.setdefault(label, Words())(word)

    def _make_socket_metrics(self) -> None:
        sockets = self._gauge("sockets", "WebSockets of clients that are open.")
        sockets.set_function(lambda: len(self._open))
        users = self._gauge("users", "Users with at least one open WebSocket.")
        users.set_function(lambda: len(set(self._user_of.values())))
        self._opened = self._counter("sockets_opened", "WebSockets that were accepted.")
        self._refused = self._counter("sockets_refused", "Upgrades that were refused.", "reason")
        self._closed = self._counter("sockets_closed", "WebSockets that ended, by reason.", "reason")
        self._lifetime = self._histogram("socket_seconds", "How long WebSockets lived.", _SOCKET_BUCKETS)
        self._connect = self._histogram(
            "connect_seconds", "From an accepted WebSocket to its hello.", _CONNECT_BUCKETS, "gateway"
        )
        self._denied = self._counter("denied", "Requests that were refused.", "method", "code")
        self._acted = self._counter(
            "acted_as_admin", "Requests that the sidecar's own connection executed for users.", "method", "outcome"
        )
        self._tokens = self._counter("tokens_rejected", "Credentials that were refused.", "issuer", "reason")

    def _make_frame_metrics(self) -> None:
        frames = self._counter("frames_relayed", "Frames that went through.", "direction")
        volume = self._counter("bytes_relayed", "Bytes of the frames that went through.", "direction")
        # Bound once: this is the one fact that comes thousands of times a second.
        self._relayed = {way: (frames.labels(way), volume.labels(way)) for way in ("up", "down")}
        self._kept_back = self._counter(
            "frames_kept_back", "Frames that a gateway sent on users' connections and that no client got."
        )
        self._heard = self._counter(
            "frames_heard", "Frames that a gateway sent on the sidecar's own connection.", "gateway"
        )
        self._dropped = self._counter(
            "events_dropped", "Events of a gateway that were kept from a client.", "event", "reason"
        )
        self._runs = self._counter("runs_admitted", "Runs that were let through to a gateway.")

    def _make_dependency_metrics(self) -> None:
        self._fetches = self._counter("keys_fetched", "Fetches of an issuer's keys.", "issuer", "outcome")
        self._keys = self._gauge("issuer_keys", "Usable keys that are kept of an issuer.", "issuer")
        self._gateway_state = self._gauge(
            "gateway_state", "1 for the state that a gateway is in, 0 for the others.", "gateway", "state"
        )
        self._agents = self._counter("agents_written", "Users whose agent was written.", "gateway")
        self._refused_writes = self._counter(
            "agents_refused", "Writes of users' agents that a gateway refused; the log says why.", "gateway"
        )
        self._open_agents = self._gauge(
            "agents_open", "Users' agents that somebody opened in a gateway and that are not closed again.", "gateway"
        )
        self._writes = self._histogram(
            "config_write_seconds", "Writes of a gateway's configuration.", _WRITE_BUCKETS, "gateway"
        )
        self._engine_up = self._gauge("engine_up", "1 while PostgreSQL or Redis serves, else 0.", "engine")
        self._restarts = self._counter("engine_restarts", "Restarts of an embedded engine.", "engine")

    def _make_usage_metrics(self) -> None:
        self._calls = self._counter("model_calls", "Model calls that came into the ledger.", "gateway", "source")
        self._used = self._counter("tokens_used", "Tokens of these calls.", "gateway", "source")
        self._spool = self._gauge("usage_spool_bytes", "Usage that waits on disk until PostgreSQL is back.")
        self._usage_lost = self._counter("usage_rows_lost", "Model calls that could not be kept.", "reason")
        self._unpriced = self._counter("unpriced_models", "Models of which no price is known; the log names them.")
        self._cut = self._counter(
            "runs_cut", "Sessions whose runs were stopped, their user being over a quota.", "gateway", "quota"
        )
        self._blind = self._counter(
            "turns_admitted_blindly",
            "Turns that were let in or refused by `on_redis_failure`, nobody knowing what was used.",
            "gateway",
            "outcome",
        )
        self._alerts = self._counter("quota_alerts", "Users who came near a limit, or to it.", "gateway", "type")
        self._webhook = self._counter("webhook_calls", "Alerts that went to the webhook, or could not.", "outcome")
        self._collector = self._gauge(
            "collector_state", "1 for what this sidecar does to meter a gateway, 0 for the rest.", "gateway", "state"
        )
        self._read = self._counter(
            "transcripts_read", "Transcripts that were read for model calls that nobody heard of.", "gateway"
        )

    def _make_own_metrics(self) -> None:
        info = self._gauge("build_info", "1, with the version that runs.", "version")
        info.labels(__version__).set(1)
        self._defects = self._counter("unexpected_errors", "Defects of the sidecar itself.", "where", "error")
        self._audit_rows = self._counter("audit_rows_written", "Rows of the audit log that were kept.")
        self._audit_lost = self._counter("audit_rows_dropped", "Rows of the audit log that were lost.", "reason")
        self._audit_waiting = self._gauge("audit_rows_waiting", "Rows of the audit log that wait.")
        self.failures = self._counter("telemetry_failures", "Facts that a part of telemetry failed on.", "sink")

    def watch_audit(self, waiting: Callable[[], int]) -> None:
        """Ask `waiting` for the rows of the audit log that are not written yet, whenever metrics are read."""
        self._audit_waiting.set_function(waiting)

    def _socket_opened(self, fact: facts.SocketOpened) -> None:
        self._opened.inc()
        self._open.add(fact.connection_id)

    def _socket_refused(self, fact: facts.SocketRefused) -> None:
        self._refused.labels(self._word("refused", fact.reason)).inc()

    def _user_connected(self, fact: facts.UserConnected) -> None:
        self._user_of[fact.connection_id] = fact.user_id
        self._connect.labels(self._word("gateway", fact.gateway_id)).observe(fact.seconds)

    def _socket_closed(self, fact: facts.SocketClosed) -> None:
        self._open.discard(fact.connection_id)
        self._user_of.pop(fact.connection_id, None)
        self._closed.labels(self._word("closed", fact.reason)).inc()
        self._lifetime.observe(fact.seconds)

    def _on_denied(self, fact: facts.Denied) -> None:
        self._denied.labels(self._word("method", fact.method), self._word("code", fact.code)).inc()

    def _acted_as_admin(self, fact: facts.ActedAsAdmin) -> None:
        self._acted.labels(self._word("method", fact.method), self._word("outcome", fact.outcome)).inc()

    def _token_rejected(self, fact: facts.TokenRejected) -> None:
        self._tokens.labels(self._word("issuer", fact.issuer), self._word("rejected", fact.reason)).inc()

    def _event_dropped(self, fact: facts.EventDropped) -> None:
        self._dropped.labels(self._word("event", fact.event), self._word("dropped", fact.reason)).inc(fact.count)

    def _frames_relayed(self, fact: facts.FramesRelayed) -> None:
        frames, volume = self._relayed[fact.direction]
        frames.inc(fact.frames)
        volume.inc(fact.bytes)

    def _frames_kept_back(self, fact: facts.FramesKeptBack) -> None:
        self._kept_back.inc(fact.frames)

    def _frames_heard(self, fact: facts.FramesHeard) -> None:
        self._heard.labels(self._word("gateway", fact.gateway_id)).inc(fact.frames)

    def _run_admitted(self, _fact: facts.RunAdmitted) -> None:
        self._runs.inc()

    def _keys_fetched(self, fact: facts.KeysFetched) -> None:
        issuer = self._word("issuer", fact.issuer)
        self._fetches.labels(issuer, self._word("outcome", fact.outcome)).inc()
        self._keys.labels(issuer).set(fact.keys)

    def _on_gateway_state(self, fact: facts.GatewayState) -> None:
        gateway = self._word("gateway", fact.gateway_id)
        for state in _GATEWAY_STATES:
            self._gateway_state.labels(gateway, state).set(state == fact.state)

    def _agents_written(self, fact: facts.AgentsWritten) -> None:
        gateway = self._word("gateway", fact.gateway_id)
        self._agents.labels(gateway).inc(fact.count)
        self._writes.labels(gateway).observe(fact.seconds)

    def _agents_refused(self, fact: facts.AgentsRefused) -> None:
        self._refused_writes.labels(self._word("gateway", fact.gateway_id)).inc()

    def _agents_open(self, fact: facts.AgentsOpen) -> None:
        self._open_agents.labels(self._word("gateway", fact.gateway_id)).set(fact.count)

    def _engine_state(self, fact: facts.EngineState) -> None:
        engine = self._word("engine", fact.engine)
        self._engine_up.labels(engine).set(fact.state != "away")
        if fact.state == "restarted":
            self._restarts.labels(engine).inc()

    def _on_unexpected(self, fact: facts.Unexpected) -> None:
        self._defects.labels(self._word("where", fact.where), self._word("error", fact.error)).inc()

    def _audit_written(self, fact: facts.AuditWritten) -> None:
        self._audit_rows.inc(fact.rows)

    def _audit_dropped(self, fact: facts.AuditDropped) -> None:
        self._audit_lost.labels(self._word("lost", fact.reason)).inc(fact.rows)

    def _usage_written(self, fact: facts.UsageWritten) -> None:
        labels = (self._word("gateway", fact.gateway_id), self._word("source", fact.source))
        self._calls.labels(*labels).inc()
        self._used.labels(*labels).inc(fact.tokens)

    def _usage_spooled(self, fact: facts.UsageSpooled) -> None:
        self._spool.set(fact.bytes)

    def _on_usage_lost(self, fact: facts.UsageLost) -> None:
        self._usage_lost.labels(self._word("lost", fact.reason)).inc(fact.rows)

    def _usage_unpriced(self, _fact: facts.UsageUnpriced) -> None:
        self._unpriced.inc()

    def _runs_cut(self, fact: facts.RunsCut) -> None:
        self._cut.labels(self._word("gateway", fact.gateway_id), self._word("quota", fact.kind)).inc()

    def _admitted_blindly(self, fact: facts.AdmittedBlindly) -> None:
        self._blind.labels(self._word("gateway", fact.gateway_id), "admitted" if fact.admitted else "refused").inc()

    def _alert_raised(self, fact: facts.AlertRaised) -> None:
        self._alerts.labels(self._word("gateway", fact.gateway_id), self._word("alert", fact.alert_type)).inc()

    def _alert_sent(self, fact: facts.AlertSent) -> None:
        self._webhook.labels(self._word("webhook", fact.outcome)).inc()

    def _collector_state(self, fact: facts.CollectorState) -> None:
        gateway = self._word("gateway", fact.gateway_id)
        for state in _COLLECTOR_STATES:
            self._collector.labels(gateway, state).set(state == fact.state)

    def _back_filled(self, fact: facts.BackFilled) -> None:
        self._read.labels(self._word("gateway", fact.gateway_id)).inc(fact.sessions)


def metrics_reference() -> str:
    """All metrics of ours as a Markdown table: name, type, labels, what it tells."""
    rows = (
        f"| `{item.name}` | {item.type} | {', '.join(item.labels)} | {item.help} |\n" for item in Metrics().described
    )
    return "| metric | type | labels | what it tells |\n|---|---|---|---|\n" + "".join(rows)
