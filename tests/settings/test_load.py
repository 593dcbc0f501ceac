"""From a file and variables to the tree; what is wrong is said at once, and nothing secret with it."""

from __future__ import annotations

import json
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.settings import load
from sidecar.settings.leaves import by_variable, leaves
from tests.settings.documents import gateway, good, issuer, load_document, problems_of, to_toml

MARKER = "marker-5f1c-never-shown"


def test_a_small_file_loads_with_defaults(tmp_path: Path) -> None:
    settings = load_document(tmp_path, good())
    assert settings.server.port == 8080
    assert settings.server.drain_seconds == 20
    assert settings.gateways[0].auth == "trusted-proxy"
    assert settings.gateways[0].password.get_secret_value() == "gateway-password"
    assert settings.identity.issuers[0].algorithms == ("RS256", "ES256", "EdDSA")
    assert settings.environments.tools_allow == ("read", "write", "edit", "apply_patch")
    assert settings.storage.data_dir == Path("var")


def test_every_default_is_a_value_that_the_setting_takes(tmp_path: Path) -> None:
    document = good()
    for leaf in leaves():
        if leaf.in_list or leaf.table is not None:
            continue
        table = document
        for key in leaf.path[:-1]:
            table = table.setdefault(key, {})
        table[leaf.path[-1]] = tomllib.loads(f"value = {leaf.default}")["value"]
    assert load_document(tmp_path, document) == load_document(tmp_path, good())


def test_every_setting_has_a_sentence_and_a_default() -> None:
    for leaf in leaves():
        assert not leaf.field.is_required(), leaf.name
        assert (leaf.field.description or "").endswith("."), leaf.name


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load_document(tmp_path, good())
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1


def test_values_are_brought_to_one_form(tmp_path: Path) -> None:
    server = {
        "public_url": "https://Chat.Example.com:443/",
        "allowed_origins": ["HTTP://LOCALHOST:80", "tauri://localhost", "http://[::1]:5173"],
        "trusted_proxies": ["10.0.0.0/8", "192.168.1.7", "fd00::/8"],
    }
    loaded = load_document(tmp_path, good(server=server)).server
    assert loaded.public_url == "https://chat.example.com"
    assert loaded.origins == {
        "https://chat.example.com",
        "http://localhost",
        "tauri://localhost",
        "http://[::1]:5173",
    }
    assert loaded.trusted_proxies == tuple(map(ip_network, ("10.0.0.0/8", "192.168.1.7/32", "fd00::/8")))


class TestWhichFile:
    def test_the_argument_goes_before_the_variable(self, tmp_path: Path) -> None:
        for name, port in (("a", 1001), ("b", 1002)):
            (tmp_path / name).write_text(to_toml(good(server={"port": port})))
        environ = {"SIDECAR_CONFIG": str(tmp_path / "b")}
        assert load(tmp_path / "a", environ).server.port == 1001
        assert load(None, environ).server.port == 1002

    def test_the_default_file_is_read_if_it_is_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigurationError) as caught:
            load(None, {})
        assert {problem.setting for problem in caught.value.problems} == {"gateways", "identity.issuers"}
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "sidecar.toml").write_text(to_toml(good(server={"port": 1003})))
        assert load(None, {}).server.port == 1003

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"[server\nport = 1", "is not TOML: "),
            (b"secret = '" + MARKER.encode() + b"\n", "is not TOML: "),
            (b"\xff\xfe", "not UTF-8 text"),
            (b"x = " + b"[" * 100_000, "is not TOML: "),
            (b"# " + b"x" * 1024 * 1024, "is not TOML: "),
        ],
    )
    def test_a_broken_file_is_one_problem(self, tmp_path: Path, content: bytes, what: str) -> None:
        (tmp_path / "x.toml").write_bytes(content)
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path / "x.toml", {"SIDECAR_NOTHING": "1"})
        (problem,) = caught.value.problems
        assert problem.setting == "--config"
        assert what in problem.what
        assert MARKER not in str(caught.value)

    def test_a_missing_file_and_a_folder_are_named_by_who_named_them(self, tmp_path: Path) -> None:
        for config, environ, name in (
            (tmp_path / "none.toml", {}, "--config"),
            (None, {"SIDECAR_CONFIG": str(tmp_path)}, "SIDECAR_CONFIG"),
        ):
            with pytest.raises(ConfigurationError) as caught:
                load(config, environ)
            assert [problem.setting for problem in caught.value.problems] == [name]


class TestVariables:
    def test_they_override_the_file(self, tmp_path: Path) -> None:
        environ = {
            "SIDECAR_SERVER__PORT": "9000",
            "SIDECAR_SERVER__DRAIN_SECONDS": "2.5",
            "SIDECAR_SERVER__ALLOWED_ORIGINS": '["https://a.example"]',
            "SIDECAR_STORAGE__DATA_DIR": "/srv/sidecar",
            "SIDECAR_QUOTA__CONCURRENT_RUNS": "7",
            "HOME": "/nowhere",
        }
        settings = load_document(tmp_path, good(server={"port": 1, "host": "0.0.0.0"}), environ)
        assert (settings.server.port, settings.server.host) == (9000, "0.0.0.0")
        assert settings.server.drain_seconds == 2.5
        assert settings.server.allowed_origins == ("https://a.example",)
        assert settings.storage.data_dir == Path("/srv/sidecar")
        assert settings.quota.concurrent_runs == 7

    def test_a_list_of_tables_comes_as_json_and_replaces_the_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        environ = {
            "SIDECAR_GATEWAYS": json.dumps([{"id": "b", "auth": "token", "token": "t0ken", "accepts_workspace": True}]),
            "SIDECAR_IDENTITY__ISSUERS": json.dumps([{"name": "x", "issuer": "http://127.0.0.1:9/"}]),
        }
        assert [gateway.id for gateway in load_document(tmp_path, good(), environ).gateways] == ["b"]
        settings = load(None, environ)
        assert settings.gateways[0].accepts_workspace
        assert settings.identity.issuers[0].issuer == "http://127.0.0.1:9/"

    def test_every_setting_outside_of_a_list_has_one(self, tmp_path: Path) -> None:
        texts = {int: "x", float: "-7", bool: "maybe", tuple: "{"}
        for variable, leaf in by_variable().items():
            if leaf.base is not None:
                found = problems_of(tmp_path, good(), {variable: texts[leaf.base]})
                assert leaf.name in found, variable

    @pytest.mark.parametrize(
        ("variable", "mend"),
        [
            ("SIDECAR_SERVER__PROT", "did you mean SIDECAR_SERVER__PORT?"),
            ("SIDECAR_GATEWAYS__0__TOKEN", "did you mean SIDECAR_GATEWAYS?"),
            ("SIDECAR_SERVER", "did you mean SIDECAR_SERVER__"),
            ("SIDECAR_XYZZY_QUUX_PLUGH_FOO", "unset it"),
            ("SIDECAR_SERVICE_PORT_HTTP", "Kubernetes"),
            ("SIDECAR_PORT_8080_TCP_ADDR", "Kubernetes"),
        ],
    )
    def test_an_unknown_one_is_a_problem(self, tmp_path: Path, variable: str, mend: str) -> None:
        found = problems_of(tmp_path, good(), {variable: MARKER})
        assert list(found) == [variable]
        assert mend in found[variable].mend
        assert MARKER not in str(found[variable])

    @pytest.mark.parametrize("text", ["true", "1", "YES", "on"])
    def test_what_the_shell_gives_is_text_but_a_file_must_be_exact(self, tmp_path: Path, text: str) -> None:
        document = gateway(password="x", allow_open_gateway=text)
        assert "gateways[0].allow_open_gateway" in problems_of(tmp_path, document)
        assert "server.port" in problems_of(tmp_path, good(server={"port": "8080"}))
        assert "server.port" in problems_of(tmp_path, good(server={"port": True}))

    def test_one_below_a_wrong_section_does_not_hide_that(self, tmp_path: Path) -> None:
        found = problems_of(tmp_path, good(server=5), {"SIDECAR_SERVER__PORT": "1"})
        assert found["server"].mend == "write [server] and its keys below"


class TestSecretFiles:
    def test_the_content_without_the_last_line_break_is_the_secret(self, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("a secret with a space \r\n")
        (tmp_path / "seal").write_text("s" * 32 + "\n")
        (tmp_path / "database").write_text("postgresql://u:p@db/x\n")
        document = gateway(password_file=str(tmp_path / "password"))
        environ = {
            "SIDECAR_STORAGE__SECRET_FILE": str(tmp_path / "seal"),
            "SIDECAR_STORAGE__DATABASE_URL_FILE": str(tmp_path / "database"),
        }
        settings = load_document(tmp_path, document, environ)
        assert settings.gateways[0].password.get_secret_value() == "a secret with a space "
        assert settings.storage.secret.get_secret_value() == "s" * 32
        assert settings.storage.database_url.get_secret_value() == "postgresql://u:p@db/x"

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (None, "cannot be read"),
            (b"", "empty"),
            (b" \n", "empty"),
            (b"\xff", "UTF-8"),
            (b"x" * 2**20 + b"x", "UTF-8"),
        ],
    )
    def test_an_unusable_file_is_a_problem(self, tmp_path: Path, content: bytes | None, what: str) -> None:
        path = tmp_path / "token"
        if content is not None:
            path.write_bytes(content)
        found = problems_of(tmp_path, gateway(auth="token", token_file=str(path)))
        assert what in found["gateways[0].token_file"].what

    def test_the_secret_in_a_file_is_checked_like_another(self, tmp_path: Path) -> None:
        (tmp_path / "seal").write_text(MARKER)
        found = problems_of(tmp_path, good(storage={"secret_file": str(tmp_path / "seal")}))
        assert "32 bytes" in found["storage.secret"].what
        assert MARKER not in str(found)

    def test_both_at_once_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(MARKER)
        document = gateway(auth="token", token=MARKER, token_file=str(tmp_path / "token"))
        found = problems_of(tmp_path, document)
        assert found["gateways[0].token_file"].mend == "keep one of the two"
        assert MARKER not in str(found)


class TestAllAtOnce:
    def test_a_file_full_of_mistakes(self, tmp_path: Path) -> None:
        document: dict[str, Any] = {
            "_env_file": "x",
            "gateway": 3,
            "server": {"prot": 9, "port": "x", "trusted_proxies": ["10.0.0.1/8", "x", 5], "allowed_origins": "x"},
            "gateways": [
                {"id": "Main", "url": f"http://user:{MARKER}@x", "password": 5},
                {"id": "b", "auth": "token", "url": "ws://10.1.1.1:3"},
                "a text",
            ],
            "identity": {"issuers": [{"name": "a", "issuer": "http://x.y", "algorithms": ["HS256"], "audience": []}]},
            "environments": {"root": "data"},
            "storage": {"secret": MARKER, "database_url": f"mysql://u:{MARKER}@x"},
        }
        found = problems_of(tmp_path, document, {"SIDECAR_QUOTA__CONCURRENT_RUNS": MARKER})
        assert set(found) == {
            "_env_file",
            "gateway",
            "server.prot",
            "server.port",
            "server.trusted_proxies[0]",
            "server.trusted_proxies[1]",
            "server.trusted_proxies[2]",
            "server.allowed_origins",
            "gateways[0].id",
            "gateways[0].url",
            "gateways[0].password",
            "gateways[1].token",
            "gateways[1].url",
            "gateways[2]",
            "identity.issuers[0].issuer",
            "identity.issuers[0].algorithms[0]",
            "identity.issuers[0].audience",
            "environments.root",
            "quota.concurrent_runs",
            "storage.secret",
            "storage.database_url",
        }
        assert all(problem.mend for problem in found.values())
        assert MARKER not in "".join(map(str, found.values()))
        assert found["gateway"].mend == "did you mean `gateways`?"
        assert found["server.prot"].mend == "did you mean `port`?"

    def test_one_table_where_a_list_of_them_belongs(self, tmp_path: Path) -> None:
        found = problems_of(tmp_path, good(gateways={"id": "main"}))
        assert found == {"gateways": found["gateways"]}
        assert found["gateways"].mend == "write [[gateways]] above each of them"

    @given(
        st.dictionaries(
            st.sampled_from(["server", "gateways", "identity", "environments", "quota", "storage", "telemetry", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(["port", "url", "id", "issuers", "auth", "token", "algorithms", "secret_file"]),
                        inner,
                        max_size=3,
                    )
                ),
                max_leaves=8,
            ),
        )
    )
    def test_whatever_the_sections_hold_only_problems_come_of_it(self, sections: dict[str, Any]) -> None:
        environ = {"SIDECAR_CONFIG": "/dev/null"}
        for name, value in sections.items():
            variable = {"gateways": "SIDECAR_GATEWAYS", "identity": "SIDECAR_IDENTITY__ISSUERS"}.get(name)
            if variable:
                environ[variable] = json.dumps(value)
        with pytest.raises(ConfigurationError) as caught:
            load(None, environ)
        assert all(problem.setting and problem.what and problem.mend for problem in caught.value.problems)


def test_secrets_are_not_in_the_text_of_settings(tmp_path: Path) -> None:
    document = gateway(password=MARKER)
    document["storage"] = {"database_url": f"postgresql://u:{MARKER}@db/x", "secret": MARKER * 2}
    assert MARKER not in repr(load_document(tmp_path, document))


def test_the_issuer_is_taken_letter_by_letter(tmp_path: Path) -> None:
    url = "https://Login.Example.com/Realm/"
    assert load_document(tmp_path, issuer(issuer=url)).identity.issuers[0].issuer == url
