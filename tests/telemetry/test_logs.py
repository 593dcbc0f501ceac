"""Facts and foreign records as lines, and what must never be in one."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.telemetry import facts
from sidecar.telemetry.facts import Fact
from sidecar.telemetry.logs import LEVELS, NEVER, REDACTED, FactLog, LogOptions, Redaction, installed, log_key
from tests.telemetry.every_fact import example, kinds


@contextmanager
def logged(level: str = "debug", form: str = "json", known: tuple[str, ...] = ()) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with installed(LogOptions(level, form, known), stream):
        yield stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_fact_has_a_level_and_its_fields_in_the_line(kind: type[Fact]) -> None:
    fact = example(kind)
    with logged() as stream:
        FactLog()(fact)
    if LEVELS[kind] == NEVER:
        assert stream.getvalue() == ""
        return
    (line,) = lines(stream)
    assert {key: line[key] for key in (log_key(item.name) for item in fields(kind))} == {
        log_key(item.name): getattr(fact, item.name) for item in fields(kind)
    }
    assert line["event"].replace("_", "") == kind.__name__.lower()
    assert set(line) == {log_key(item.name) for item in fields(kind)} | {"event", "level", "timestamp"}


def test_levels_follow_what_the_fact_says() -> None:
    with logged("warning") as stream:
        log = FactLog()
        log(facts.KeysFetched("a", "ok", 2))
        log(facts.KeysFetched("a", "failed", 2))
        log(facts.GatewayState("main", "ready"))
        log(facts.GatewayState("main", "away"))
        log(facts.EngineState("redis", "up"))
        log(facts.EngineState("redis", "restarted"))
        log(facts.RunAdmitted("c", "u", "r"))
        log(facts.Unexpected("relay", "KeyError"))
    assert [(line["event"], line["level"]) for line in lines(stream)] == [
        ("keys_fetched", "warning"),
        ("gateway_state", "warning"),
        ("engine_state", "warning"),
        ("unexpected", "error"),
    ]


def test_the_process_logs_as_before_when_the_block_ends() -> None:
    root, ours = logging.getLogger(), logging.getLogger("sidecar")
    before = (root.handlers[:], root.level, ours.level)
    with pytest.raises(KeyError), logged():
        raise KeyError
    assert (root.handlers[:], root.level, ours.level) == before


def test_console_lines_carry_the_same() -> None:
    with logged(form="console") as stream:
        FactLog()(facts.Denied("c1", "example|alice", "config.get", "METHOD_NOT_ALLOWED"))
    text = stream.getvalue()
    assert text.count("\n") == 1
    for part in ("denied", "warning", "connection_id=c1", "example|alice", "config.get"):
        assert part in text
    assert "\x1b" not in text


def test_auto_is_json_where_nobody_looks() -> None:
    with logged(form="auto") as stream:
        FactLog()(facts.GatewayState("main", "ready"))
    assert lines(stream)[0]["gateway_id"] == "main"


class TestForeignRecords:
    def test_libraries_are_heard_from_warnings_on(self) -> None:
        with logged() as stream:
            logging.getLogger("aiohttp.server").info("nothing")
            logging.getLogger("aiohttp.server").warning("from %s", "127.0.0.1")
        (line,) = lines(stream)
        assert (line["event"], line["logger"], line["level"]) == ("from 127.0.0.1", "aiohttp.server", "warning")

    def test_of_an_exception_only_its_type_and_place(self) -> None:
        marker = "marker-" + secrets.token_hex(8)

        def fail() -> None:
            raise KeyError(marker)

        with logged() as stream:
            try:
                fail()
            except KeyError:
                logging.getLogger("aiohttp.server").exception("Error handling request")
        (line,) = lines(stream)
        assert line["error"] == "KeyError"
        assert line["raised_at"][-1].startswith("telemetry/test_logs.py:")
        assert marker not in stream.getvalue()

    async def test_a_task_that_nobody_awaited_does_not_tell_its_text(self) -> None:
        marker = "marker-" + secrets.token_hex(8)

        async def fail() -> None:
            raise ValueError(marker)

        with logged() as stream:
            task = asyncio.create_task(fail())
            await asyncio.wait({task})
            del task
            await asyncio.sleep(0)
        assert marker not in stream.getvalue()
        assert lines(stream)[0]["error"] == "ValueError"

    def test_a_record_that_cannot_be_formatted_raises_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        with logged() as stream:
            logging.getLogger("x").warning("%d", "not a number")
        assert stream.getvalue() == ""
        assert "not a number" in capsys.readouterr().err


def jwt(payload: bytes) -> str:
    parts = (b'{"alg":"RS256"}', payload, secrets.token_bytes(64))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


SECRET = secrets.token_urlsafe(24)
CREDENTIALS = [
    jwt(b'{"sub":"alice"}'),
    jwt(b'{"sub":"alice"}').rsplit(".", 1)[0],
    jwt(b'{"sub":"alice"}').split(".", 1)[0] + ".",
    f"Bearer {SECRET}",
    f"bearer.{SECRET}",
    f"authorization: bearer   {SECRET}",
    f"gt_{SECRET}",
    secrets.token_hex(16),
    secrets.token_hex(32).upper(),
    f"password={SECRET}",
    f'{{"token": "{SECRET}"}}',
    f"api_key: {SECRET}",
    f"postgresql://someone:{SECRET}@db/x",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET.replace('-', '_')}\n-----END PRIVATE KEY-----",
]


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("credential", CREDENTIALS, ids=range(len(CREDENTIALS)))
def test_what_looks_like_a_credential_is_not_in_a_line(credential: str, form: str) -> None:
    with logged(form=form) as stream:
        FactLog()(facts.GatewayState("main", "away", why=f"said {credential}, and left"))
        FactLog()(facts.UserConnected("c", "u", "a", "main", credential, 0.1))
        logging.getLogger("aiohttp.client").error("failed: %s", credential)
    text = stream.getvalue()
    assert text.count(REDACTED) >= 3
    assert "and left" in text
    for part in (SECRET, SECRET.replace("-", "_"), *(piece for piece in credential.split(".") if len(piece) > 16)):
        assert part not in text


def test_known_secrets_are_taken_out_wherever_they_are() -> None:
    known = "correct horse battery"
    with logged(known=(known, "horse", "x")) as stream:
        FactLog()(facts.GatewayState("main", "away", why=f"the gateway said {known}!"))
        logging.getLogger("asyncpg").warning("auth failed for %r", {"key": [known]})
    assert "horse" not in stream.getvalue()
    assert "the gateway said [redacted]!" in stream.getvalue()
    assert "secrets" not in repr(LogOptions(secrets=(known,)))


def test_ids_of_ours_are_kept() -> None:
    connection, agent = secrets.token_hex(16), "u-" + secrets.token_hex(16)
    with logged() as stream:
        FactLog()(facts.UserConnected(connection, "example|alice", agent, "main", "cli", 0.1))
    (line,) = lines(stream)
    assert (line["connection_id"], line["agent_id"], line["user_id"]) == (connection, agent, "example|alice")


@given(st.text(max_size=200))
def test_one_fact_is_one_line_whatever_is_in_it(text: str) -> None:
    for form in ("json", "console"):
        with logged(form=form) as stream:
            FactLog()(facts.UserConnected("c", text, "a", "main", text, 0.1))
        written = stream.getvalue()
        assert len(written.splitlines()) == 1
        assert written[:-1].isprintable()


def test_a_long_text_is_cut_and_leaves_no_half_token() -> None:
    token = jwt(b"x" * 400)
    cleaned = Redaction().clean("a" * 1900 + " " + token + " " + "b" * 500_000)
    assert len(cleaned) < 2100
    assert token[:12] not in cleaned


def test_what_is_not_text_is_kept_or_shown_as_text() -> None:
    clean = Redaction().clean
    assert clean({"a": [1, 2.5, True, None, "gt_abc"]}) == {"a": [1, 2.5, True, None, REDACTED]}
    assert clean(ValueError("gt_abc")) == REDACTED
    assert clean(b"gt_abc") == "b'[redacted]'"
