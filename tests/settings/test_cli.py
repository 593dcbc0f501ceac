"""The command line, as an operator meets it: in processes of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sidecar
from sidecar.cli.config import reference_text
from sidecar.settings.leaves import leaves
from sidecar.settings.reference import reference
from tests.settings.documents import gateway, good, to_toml

_ROOT = Path(sidecar.__file__).parent.parent


def run(*arguments: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`sidecar` with these arguments and nothing but these variables."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar.cli.main", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(_ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check_says_ok(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(to_toml(good()))
    done = run("config", "check", "--config", "x.toml", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_check_shows_warnings_beside_ok(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(to_toml(gateway(password="x", allow_open_gateway=True)))
    done = run("config", "check", folder=tmp_path, SIDECAR_CONFIG="x.toml")
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert done.stderr.startswith("sidecar: warning: gateways[0].allow_open_gateway: ")


@pytest.mark.parametrize("command", [("config", "check"), ("run",)])
def test_all_problems_are_printed_and_the_code_is_2(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run(*command, folder=tmp_path, SIDECAR_SERVER__PORT="secret-looking", SIDECAR_X="1")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["server.port", "SIDECAR_X", "gateways", "identity.issuers"]
    assert "secret-looking" not in done.stderr


def test_the_version_and_help_of_every_command(tmp_path: Path) -> None:
    assert run("--version", folder=tmp_path).stdout == f"sidecar {sidecar.__version__}\n"
    for command in ((), ("run",), ("config",), ("config", "check"), ("config", "reference")):
        done = run(*command, "--help", folder=tmp_path)
        assert done.returncode == 0, command
        assert done.stdout.startswith("usage: sidecar"), command
        assert done.stdout.count("\n") > 4, command


@pytest.mark.parametrize("arguments", [(), ("config",), ("start",), ("run", "--conf", "x")])
def test_a_wrong_line_shows_the_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sidecar")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    line = f'set -o pipefail; "{sys.executable}" -m sidecar.cli.main config reference | true'
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_written_reference_is_what_the_command_prints(tmp_path: Path) -> None:
    printed = run("config", "reference", folder=tmp_path)
    assert printed.returncode == 0
    assert printed.stdout == reference_text()
    assert (_ROOT / "config" / "reference.md").read_text(encoding="utf-8") == printed.stdout, "run: make reference"


def test_the_reference_names_every_setting_and_variable() -> None:
    text = reference()
    for leaf in leaves():
        if leaf.table is None:
            assert f"| `{leaf.path[-1]}` | " in text
        assert f"`{leaf.variable}`" in text


def test_the_shipped_file_lacks_nothing_but_the_password(tmp_path: Path) -> None:
    shipped = str(_ROOT / "config" / "sidecar.toml")
    done = run("config", "check", "--config", shipped, folder=tmp_path)
    assert done.returncode == 2
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["gateways[0].password"]
    text = Path(shipped).read_text(encoding="utf-8").replace('password_file = ""', 'password = "x"')
    (tmp_path / "filled.toml").write_text(text)
    done = run("config", "check", "--config", "filled.toml", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
