"""`sidecar gateway diff`, its words and exit codes; what a real gateway advertises: tests/live/test_gateway_diff.py."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.app import TABLES, shipped_tables
from sidecar.cli.plain import plain
from sidecar.policy.coverage import read_reviewed
from tests.cli.test_audit_tail import command
from tests.settings.documents import good, to_toml
from tests.stack.process import free_port
from tests.stack.stub_gateway import Frame, StubGateway

TABLE = shipped_tables()[-1]
REVIEWED = read_reviewed((TABLES / "reviewed.toml").read_bytes())
METHODS = sorted({*TABLE.methods, *TABLE.denied_methods} - REVIEWED.methods)
EVENTS = sorted({*TABLE.events, *TABLE.denied_events} - REVIEWED.events)


class Named(StubGateway):
    """A gateway that says of itself what the test wants."""

    version = "2026.9.6"
    methods: Sequence[Any] = METHODS
    events: Sequence[Any] = EVENTS

    def _hello(self) -> Frame:
        features = {"methods": [*self.methods], "events": [*self.events]}
        return super()._hello() | {"server": {"version": self.version}, "features": features}


@contextlib.asynccontextmanager
async def gateway(folder: Path, trusted: Sequence[str] = (), **said: Any) -> AsyncIterator[str]:
    """The path of a configuration with it as `main`, and one as `gone` that nobody runs."""
    async with Named() as stub:
        for name, value in said.items():
            setattr(stub, name, value)
        rows = [
            {
                "id": "main",
                "url": f"ws://127.0.0.1:{stub.port}",
                "password": stub.password,
                "trusted_versions": [*trusted],
            },
            {"id": "gone", "url": f"ws://127.0.0.1:{free_port()}", "password": "hush-hush"},
        ]
        config = folder / "sidecar.toml"
        config.write_text(to_toml(good(gateways=rows)))
        yield str(config)
        assert [one for one in stub.connections if not one.closed.is_set()] == [], "it hangs up"


async def diff(config: str, *arguments: str) -> tuple[int, list[str], list[str]]:
    async with command("gateway", "diff", "--config", config, *arguments) as running:
        return await running.ended(), running.lines, running.errors


def a_schema(folder: Path, **params: Any) -> str:
    definitions = {
        name: {"type": "object", "properties": {key: {} for key in members}} for name, members in params.items()
    }
    methods = {"chat.abort": {"scope": "operator.admin"}, "chat.history": {"scope": "operator.read"}}
    path = folder / "protocol.schema.json"
    path.write_text(json.dumps({"methods": methods, "definitions": definitions}))
    return str(path)


async def test_the_same(tmp_path: Path) -> None:
    async with gateway(tmp_path) as config:
        code, lines, errors = await diff(config, "--gateway", "main")
        assert (code, errors) == (0, [])
        assert lines == [
            "gateway main 2026.9.6, policy for 2026.8 up to, not including, 2026.10",
            "  parameters and scopes: not compared without --schema (protocol.schema.json of @openclaw/gateway-protocol)",
            "  nothing differs",
        ]
        code, lines, errors = await diff(config, "--gateway", "main", "--json")
        (found,) = json.loads(lines[0])["gateways"]
        assert (code, errors, found["same"]) == (0, [], True)


async def test_what_differs(tmp_path: Path) -> None:
    methods = [*(name for name in METHODS if name != "chat.abort"), "portal.\x1b[2Jopen", 7]
    async with gateway(tmp_path, methods=methods, events=[*EVENTS[1:], "portal.moved"]) as config:
        schema = a_schema(tmp_path, ChatAbortParams=["sessionKey", "runId", "agentId", "everything"])
        code, lines, errors = await diff(config, "--gateway", "main", "--schema", schema)
        assert (code, errors) == (1, [])
        text = "\n".join(lines)
        assert "  new methods, refused and hidden (1):\n    " + plain("portal.\x1b[2Jopen") in text
        assert "  methods with a row that are gone (1):\n    chat.abort\n" in text
        assert "  new events, dropped (1):\n    portal.moved\n" in text
        assert "  new parameters, refused (1):\n    chat.abort: everything\n" in text
        assert "  parameters with a rule that are not in the schema (1):\n    chat.abort: preserveSideRuns\n" in text
        assert "  scopes that do not fit (1):\n    chat.abort: operator.admin, which users do not have\n" in text
        assert "chat.history" in text.partition("parameters unknown to the schema")[2]
        assert "nothing" not in text
        assert all(line.isprintable() for line in lines)
        code, lines, errors = await diff(config, "--gateway", "main", "--json", "--schema", schema)
        assert (code, errors, len(lines)) == (1, [], 1)
        (found,) = json.loads(lines[0])["gateways"]
        assert found["methods"] == {"new": ["portal.\x1b[2Jopen"], "gone": ["chat.abort"]}
        assert found["parameters"] == {
            "new": {"chat.abort": ["everything"]},
            "gone": {"chat.abort": ["preserveSideRuns"]},
        }
        assert found["scopes"] == [{"method": "chat.abort", "scope": "operator.admin", "as_admin": False}]


@pytest.mark.parametrize(
    ("trusted", "code", "said"), [((), 1, "users read, no run starts"), (["2031.1.1"], 0, "run all the same")]
)
async def test_a_version_that_is_not_covered(tmp_path: Path, trusted: Sequence[str], code: int, said: str) -> None:
    async with gateway(tmp_path, trusted, version="2031.1.1") as config:
        found, lines, _ = await diff(config, "--gateway", "main")
        assert found == code
        assert lines[1].startswith("  this version is not covered: users ")
        assert lines[1].endswith(said) or said in lines[1]
        assert lines[-1] == "  nothing else differs"


async def test_what_cannot_be_compared(tmp_path: Path) -> None:
    async with gateway(tmp_path) as config:
        code, lines, errors = await diff(config)
        assert (code, errors) == (2, [])
        assert lines[-1].startswith("gateway gone: not compared: the gateway does not answer: ")
        assert "  nothing differs" in lines, "the other one is compared all the same"
        code, lines, _ = await diff(config, "--json")
        assert code == 2
        main, gone = json.loads(lines[0])["gateways"]
        assert (main["compared"], gone["compared"]) == (True, False)
        assert "hush-hush" not in "".join(lines)
        for arguments, why in (
            (["--gateway", "other"], "no gateway is called other"),
            (["--schema", str(tmp_path / "nothing.json")], "No such file"),
            (["--schema", config], "it has no `methods` and `definitions`"),
        ):
            code, lines, errors = await diff(config, *arguments)
            assert (code, lines) == (2, [])
            assert why in errors[0]
    async with gateway(tmp_path, version="2020.1.1") as config:
        code, lines, _ = await diff(config, "--gateway", "main")
        assert code == 2
        assert lines == ["gateway main 2020.1.1: not compared: it is older than every policy table: nobody is served"]
