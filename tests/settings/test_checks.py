"""Single values and combinations: what is refused, what is warned of, and what passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.settings import warnings
from tests.settings.documents import gateway, good, issuer, load_document, problems_of

SEAL = "0123456789abcdef0123456789abcdef"
REMOTE = "wss://gateway.example.com"

WRONG: list[tuple[dict[str, Any], str]] = [
    (good(server={"port": -1}), "server.port"),
    (good(server={"port": 65536}), "server.port"),
    (good(server={"metrics_port": 8080}), "server.metrics_port"),
    (good(server={"host": "a b"}), "server.host"),
    (good(server={"host": "256.1.1.1"}), "server.host"),
    (good(server={"public_url": "ftp://x"}), "server.public_url"),
    (good(server={"public_url": "https://x/path"}), "server.public_url"),
    (good(server={"public_url": "https://x?y"}), "server.public_url"),
    (good(server={"public_url": "https://x:99999"}), "server.public_url"),
    (good(server={"public_url": "https://"}), "server.public_url"),
    (good(server={"allowed_origins": ["*"]}), "server.allowed_origins[0]"),
    (good(server={"allowed_origins": ["https://*.example.com"]}), "server.allowed_origins[0]"),
    (good(server={"allowed_origins": ["null"]}), "server.allowed_origins[0]"),
    (good(server={"allowed_origins": ["https://x/y"]}), "server.allowed_origins[0]"),
    (good(server={"max_connections": 0}), "server.max_connections"),
    (good(server={"drain_seconds": 0}), "server.drain_seconds"),
    (good(server={"slow_client_seconds": float("inf")}), "server.slow_client_seconds"),
    (good(gateways=[]), "gateways"),
    (good(identity={}), "identity.issuers"),
    (gateway(), "gateways[0].password"),
    (gateway(url=REMOTE), "gateways[0].admin_user"),
    (gateway(password="x", admin_user="y"), "gateways[0].admin_user"),
    (gateway(url=REMOTE, password="x"), "gateways[0].password"),
    (gateway(url="ws://127.0.0.1:0", password="x"), "gateways[0].url"),
    (gateway(url="ws://a b", password="x"), "gateways[0].url"),
    (gateway(url="ws://[::1", password="x"), "gateways[0].url"),
    (gateway(url="ws://127.0.0.1/?token=x", password="x"), "gateways[0].url"),
    (gateway(auth="none"), "gateways[0].auth"),
    (gateway(auth="token"), "gateways[0].token"),
    (gateway(auth="password"), "gateways[0].password"),
    (gateway(auth="token", token="x", url=REMOTE), "gateways[0].url"),
    (gateway(auth="password", password="x", url=REMOTE), "gateways[0].url"),
    (gateway(admin_user="u-alice"), "gateways[0].admin_user"),
    (gateway(password="x", namespace="shared"), "gateways[0].namespace"),
    (gateway(password="x", namespace="shared-agent", shared_agent="u-shared"), "gateways[0].shared_agent"),
    (gateway(password="x", namespace="shared-agent", shared_agent="shared-"), "gateways[0].shared_agent"),
    (gateway(password="x", namespace="shared-agent", shared_agent="Help Desk"), "gateways[0].shared_agent"),
    (gateway(password="x", namespace="shared-agent", shared_tools_allow=["*"]), "gateways[0].shared_tools_allow[0]"),
    (gateway(admin_user="U-Alice"), "gateways[0].admin_user"),
    (gateway(admin_user="x\ny"), "gateways[0].admin_user"),
    (gateway(password="x", user_header="x y"), "gateways[0].user_header"),
    (gateway(password="x", user_header="Authorization"), "gateways[0].user_header"),
    (gateway(password="x", user_header="X-Forwarded-For"), "gateways[0].user_header"),
    (gateway(password="x", user_header="x-openclaw-scopes"), "gateways[0].user_header"),
    *(
        (gateway(password="x", trusted_versions=["2026.10.1", version]), "gateways[0].trusted_versions[1]")
        for version in (
            "*",
            "2026.10",
            "2026.10.*",
            ">=2026.10.1",
            "2026.10.1 ",
            "2026.10.1\n",
            "v2026.10.1",
            "",
            "latest",
        )
    ),
    (issuer(name="Example"), "identity.issuers[0].name"),
    (issuer(name="a|b"), "identity.issuers[0].name"),
    (issuer(issuer=""), "identity.issuers[0].issuer"),
    (issuer(issuer="http://login.example.com"), "identity.issuers[0].issuer"),
    (issuer(jwks_url="http://login.example.com/keys"), "identity.issuers[0].jwks_url"),
    (issuer(audience=[]), "identity.issuers[0].audience"),
    (issuer(audience=[""]), "identity.issuers[0].audience[0]"),
    (issuer(algorithms=[]), "identity.issuers[0].algorithms"),
    (issuer(algorithms=["RS256", "HS512"]), "identity.issuers[0].algorithms[1]"),
    (issuer(algorithms=["nOnE"]), "identity.issuers[0].algorithms[0]"),
    (issuer(algorithms=["rs256"]), "identity.issuers[0].algorithms[0]"),
    (issuer(user_claim=""), "identity.issuers[0].user_claim"),
    (issuer(leeway_seconds=-1), "identity.issuers[0].leeway_seconds"),
    (good(environments={"root": "data"}), "environments.root"),
    (good(environments={"root": "/"}), "environments.root"),
    (good(environments={"root": "/data/../etc"}), "environments.root"),
    (good(environments={"local_root": "users"}), "environments.local_root"),
    (good(environments={"tools_allow": []}), "environments.tools_allow"),
    (good(environments={"tools_allow": ["read", "*"]}), "environments.tools_allow[1]"),
    (good(environments={"model_allow": ["a b"]}), "environments.model_allow[0]"),
    (good(quota={"concurrent_runs": -1}), "quota.concurrent_runs"),
    (good(storage={"secret": "short"}), "storage.secret"),
    (good(storage={"database_url": "mysql://x"}), "storage.database_url"),
    (good(storage={"redis_url": "http://x"}), "storage.redis_url"),
    (good(telemetry={"log_level": "loud"}), "telemetry.log_level"),
    (good(telemetry={"log_format": "xml"}), "telemetry.log_format"),
]


@pytest.mark.parametrize(("document", "setting"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_it_is_refused_by_name_with_a_mend(tmp_path: Path, document: dict[str, Any], setting: str) -> None:
    found = problems_of(tmp_path, document)
    assert list(found) == [setting]
    assert found[setting].mend


RIGHT: list[dict[str, Any]] = [
    good(server={"port": 0, "metrics_port": 0}),
    good(server={"host": "::"}),
    good(server={"host": "sidecar.internal"}),
    gateway(admin_user="openclaw-sidecar"),
    gateway(url=REMOTE, admin_user="openclaw-sidecar"),
    gateway(auth="token", token="x", url="ws://localhost:1"),
    gateway(auth="password", password="x", url="ws://[::1]:1"),
    issuer(issuer="http://127.0.0.1:3000"),
    issuer(roles_claim="realm_access.roles", readable_ids=True),
    good(environments={"root": "/srv/users/", "local_root": "/mnt/users", "model_allow": ["anthropic/*"]}),
    good(storage={"secret": SEAL}),
]


@pytest.mark.parametrize("document", RIGHT)
def test_it_loads_without_a_warning(tmp_path: Path, document: dict[str, Any]) -> None:
    assert warnings(load_document(tmp_path, document)) == []


def test_names_and_urls_must_differ(tmp_path: Path) -> None:
    one_gateway = {"id": "main", "password": "x"}
    one_issuer = {"name": "a", "issuer": "https://a.example", "readable_ids": True}
    document = {"gateways": [one_gateway, one_gateway], "identity": {"issuers": [one_issuer, one_issuer]}}
    assert set(problems_of(tmp_path, document)) == {
        "gateways[1].id",
        "identity.issuers[1].name",
        "identity.issuers[1].issuer",
        "identity.issuers[1].readable_ids",
    }


DOUBTFUL: list[tuple[dict[str, Any], str]] = [
    (good(server={"public_url": "http://chat.example.com"}), "server.public_url"),
    (good(server={"trusted_proxies": ["::1", "0.0.0.0/0"]}), "server.trusted_proxies[1]"),
    (gateway(url="ws://10.0.0.5:18789", admin_user="openclaw-sidecar"), "gateways[0].url"),
    (gateway(password="x", allow_open_gateway=True), "gateways[0].allow_open_gateway"),
    (gateway(password="x", trusted_versions=["2026.10.1-beta.2"]), "gateways[0].trusted_versions[0]"),
    (gateway(password="x", token="y"), "gateways[0].token"),
    (gateway(auth="token", token="x", password="y"), "gateways[0].password"),
    (gateway(auth="token", token="x", admin_user="y"), "gateways[0].admin_user"),
    (gateway(password="x", shared_agent="helpdesk"), "gateways[0].shared_agent"),
    (gateway(password="x", shared_tools_allow=["read"]), "gateways[0].shared_tools_allow"),
    (gateway(password="x", namespace="shared-agent"), "gateways[0].namespace"),
    (good(environments={"tools_allow": ["read", "exec"]}), "environments.tools_allow[1]"),
    (good(storage={"database_url": "postgresql://db/x"}), "storage.secret"),
]


@pytest.mark.parametrize(("document", "setting"), DOUBTFUL, ids=lambda value: value if isinstance(value, str) else "")
def test_it_loads_with_a_warning(tmp_path: Path, document: dict[str, Any], setting: str) -> None:
    found = warnings(load_document(tmp_path, document))
    assert [warning.setting for warning in found] == [setting]
    assert found[0].mend


def test_tools_of_a_shared_agent_are_warned_of_where_they_reach_what_others_left(tmp_path: Path) -> None:
    shared = {"password": "x", "namespace": "shared-agent", "shared_tools_allow": ["read", "exec"]}
    found = {warning.setting: warning for warning in warnings(load_document(tmp_path, gateway(**shared)))}
    assert set(found) == {
        "gateways[0].namespace",
        "gateways[0].shared_tools_allow[0]",
        "gateways[0].shared_tools_allow[1]",
    }
    assert "one workspace" in found["gateways[0].shared_tools_allow[0]"].what
    apart = warnings(load_document(tmp_path, gateway(**shared, accepts_workspace=True)))
    assert [warning.setting for warning in apart] == ["gateways[0].namespace", "gateways[0].shared_tools_allow[1]"]


def test_the_gateways_own_agent_is_shared_only_with_a_warning(tmp_path: Path) -> None:
    document = gateway(password="x", namespace="shared-agent", shared_agent="main")
    found = [warning.setting for warning in warnings(load_document(tmp_path, document))]
    assert found == ["gateways[0].namespace", "gateways[0].shared_agent"]


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_secret_file_that_others_can_read_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    path = tmp_path / "secret"
    path.write_text(SEAL)
    path.chmod(mode)
    settings = load_document(tmp_path, good(storage={"secret_file": str(path)}))
    assert [warning.setting for warning in warnings(settings)] == ["storage.secret_file"] * warned
    path.unlink()
    assert warnings(settings) == []
