"""Facts → log lines on stderr, JSON or for a terminal; everything that others log goes the same way.

A line of ours is a fact: its event is the fact's name in snake case, its fields are the fact's. Lines of
libraries keep their first line only, and of an exception only its type and where it was raised: its text may
quote a frame or a token. A redaction stands behind all of it, as a last belt.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from sidecar.telemetry import facts
from sidecar.telemetry.facts import Fact

REDACTED = "[redacted]"
_LOGGER = "sidecar"
_MAX_TEXT = 2000
_MAX_SCANNED = 8 * _MAX_TEXT
_MAX_FRAMES = 12
_MIN_SECRET = 6

Level = int | Callable[[Any], int]


def _level_of_keys(fact: facts.KeysFetched) -> int:
    return logging.INFO if fact.outcome == "ok" else logging.WARNING


def _level_of_gateway(fact: facts.GatewayState) -> int:
    return logging.INFO if fact.state in {"ready", "starting"} else logging.WARNING


def _level_of_engine(fact: facts.EngineState) -> int:
    return logging.INFO if fact.state == "up" else logging.WARNING


def _level_of_open_agents(fact: facts.AgentsOpen) -> int:
    return logging.ERROR if fact.count else logging.INFO


def _level_of_spool(fact: facts.UsageSpooled) -> int:
    return logging.DEBUG if fact.rows else logging.INFO


def _level_of_webhook(fact: facts.AlertSent) -> int:
    return logging.DEBUG if fact.outcome == "sent" else logging.WARNING


NEVER = 0
"""The level of facts that are too many for a line each; metrics count them."""

LEVELS: Mapping[type[Fact], Level] = {
    facts.SocketOpened: logging.DEBUG,
    facts.SocketRefused: logging.INFO,
    facts.UserConnected: logging.INFO,
    facts.SocketClosed: logging.INFO,
    facts.Denied: logging.WARNING,
    facts.ActedAsAdmin: logging.INFO,
    facts.TokenRejected: logging.WARNING,
    facts.EventDropped: logging.DEBUG,
    facts.FramesRelayed: NEVER,
    facts.FramesKeptBack: NEVER,
    facts.FramesHeard: NEVER,
    facts.AdmittedBlindly: logging.DEBUG,
    facts.RunAdmitted: logging.DEBUG,
    facts.KeysFetched: _level_of_keys,
    facts.GatewayState: _level_of_gateway,
    facts.AgentsWritten: logging.INFO,
    facts.AgentsRefused: logging.ERROR,
    facts.AgentsOpen: _level_of_open_agents,
    facts.EngineState: _level_of_engine,
    facts.Unexpected: logging.ERROR,
    facts.AuditWritten: NEVER,
    facts.AuditDropped: logging.ERROR,
    facts.UsageWritten: NEVER,
    facts.UsageSpooled: _level_of_spool,
    facts.UsageLost: logging.ERROR,
    facts.UsageDropped: logging.INFO,
    facts.UsageUnpriced: logging.WARNING,
    facts.RunsCut: logging.INFO,
    facts.AlertRaised: logging.INFO,
    facts.AlertSent: _level_of_webhook,
    facts.CollectorState: logging.INFO,
    facts.BackFilled: logging.DEBUG,
    facts.ConfigurationDoubtful: logging.WARNING,
}
"""How severe each fact is; one that is missing here is logged as information."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """`level` and `format` as in the settings; `secrets` are texts that must never appear, wherever from."""

    level: str = "info"
    format: str = "auto"
    secrets: tuple[str, ...] = field(default=(), repr=False)


class FactLog:
    """Writes facts as log lines; outside of `installed`, the standard library decides what is shown."""

    def __init__(self) -> None:
        self._logger = logging.getLogger(_LOGGER)
        self._shapes: dict[type[Fact], tuple[str, tuple[tuple[str, str], ...]]] = {}

    def __call__(self, fact: Fact) -> None:
        level = LEVELS.get(type(fact), logging.INFO)
        severity = level if isinstance(level, int) else level(fact)
        if severity == NEVER or not self._logger.isEnabledFor(severity):
            return
        name, keys = self._shape(type(fact))
        self._logger.log(severity, name, extra={"fact": {key: getattr(fact, own) for own, key in keys}})

    def _shape(self, kind: type[Fact]) -> tuple[str, tuple[tuple[str, str], ...]]:
        if kind not in self._shapes:
            keys = tuple((item.name, log_key(item.name)) for item in fields(kind))
            self._shapes[kind] = (snake_case(kind.__name__), keys)
        return self._shapes[kind]


def log_key(name: str) -> str:
    """The key of a fact's field in its line; `event` is the line's own."""
    return "gateway_event" if name == "event" else name


def snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@contextmanager
def installed(options: LogOptions, stream: TextIO | None = None) -> Iterator[None]:
    """Send every log line of this process to `stream` (stderr), until the block ends; then all is as before.

    Ours from `options.level` on; those of libraries from warnings on.
    """
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.setFormatter(_formatter(options, target))
    root, ours = logging.getLogger(), logging.getLogger(_LOGGER)
    before = (root.handlers[:], root.level, ours.level)
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours.setLevel(options.level.upper())
    try:
        yield
    finally:
        root.handlers[:], level, own_level = before
        root.setLevel(level)
        ours.setLevel(own_level)


def _formatter(options: LogOptions, target: TextIO) -> logging.Formatter:
    console = options.format == "console" or (options.format == "auto" and target.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=target.isatty())
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, _shape_record],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            Redaction(options.secrets),
            renderer,
        ],
    )


def _shape_record(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A record as a line: the fields of a fact, or the little that a library may say."""
    record: logging.LogRecord = event["_record"]
    fact = getattr(record, "fact", None)
    if fact is not None:
        event.update(fact)
    else:
        event["event"] = str(event["event"]).split("\n", 1)[0]
        event["logger"] = record.name
    exception = record.exc_info[1] if record.exc_info else None
    event.pop("exc_info", None)
    event.pop("stack_info", None)
    if exception is not None:
        event["error"] = type(exception).__name__
        event["raised_at"] = where_raised(exception)
    return event


def where_raised(exception: BaseException) -> list[str]:
    """The innermost calls of a traceback, as `file:line function`, without any text of the exception."""
    stack = traceback.extract_tb(exception.__traceback__)[-_MAX_FRAMES:]
    return [f"{'/'.join(call.filename.split('/')[-2:])}:{call.lineno} {call.name}" for call in stack]


_SECRET_SHAPES = tuple(
    re.compile(pattern)
    for pattern in (
        r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*",  # a JWT, whole or cut off
        r"(?i)\bbearer[\s.:=]+[A-Za-z0-9._~+/=-]+",
        r"\bgt_[A-Za-z0-9_-]+",
        r"(?i)\b(?:password|passwd|secret|token|api_?key)\b[\"']?\s*[=:]\s*[\"']?[^\s\"'&,;}]+",
        r"(?<=://)[^/\s@]+(?=@)",  # the user and password in a URL
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*-----)?",
    )
)
_LONG_HEX = re.compile(r"\b[0-9a-fA-F]{32,}\b")
# Ids that tie lines together may be long hexadecimal numbers, and are made by us.
_CORRELATION_KEYS = frozenset({"agent_id", "connection_id", "request_id", "run_id", "timestamp", "user_id"})


class Redaction:
    """Takes out whatever looks like a credential or is a known secret, and control characters with it.

    A control character in a name could otherwise forge a line, or talk to the terminal that shows it.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        # The longest first: a secret may be part of another.
        self._secrets = sorted({secret for secret in secrets if len(secret) >= _MIN_SECRET}, key=len, reverse=True)

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        return {key: self.clean(value, key) for key, value in event.items()}

    def clean(self, value: Any, key: str = "") -> Any:
        """`value` as it may be shown under `key`; texts within lists and tables too."""
        if isinstance(value, str):
            return self._text(value, long_hex=key not in _CORRELATION_KEYS)
        if isinstance(value, bool | int | float | None):
            return value
        if isinstance(value, Mapping):
            return {self._text(str(inner)): self.clean(item) for inner, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return [self.clean(item) for item in value]
        return self._text(str(value))

    def _text(self, text: str, *, long_hex: bool = True) -> str:
        text = text[:_MAX_SCANNED]
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        for shape in _SECRET_SHAPES:
            text = shape.sub(REDACTED, text)
        if long_hex:
            text = _LONG_HEX.sub(REDACTED, text)
        # After the redaction: a cut must not leave half a token that no longer looks like one.
        text = text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"
        if text.isprintable():
            return text
        return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
