"""A user's folders on a real disk: modes, planted links, and roots that cannot be used."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.environments.workspace import make_workspace
from sidecar.errors import EngineError

FOLDERS = ("", "workspace", "sessions", ".openclaw", ".openclaw/profiles", "sandbox-workspace")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("_open_umask")
def test_all_folders_are_the_owners_alone(root: Path) -> None:
    make_workspace(root, "u-alice")
    made = {str(path.relative_to(root / "u-alice")) for path in (root / "u-alice").rglob("*")}
    assert made == set(FOLDERS) - {""}
    assert {mode(root / "u-alice" / name) for name in FOLDERS} == {0o700}
    assert mode(root) == 0o755, "the root is the operator's"


def test_again_changes_nothing_but_modes(root: Path) -> None:
    make_workspace(root, "u-alice")
    (root / "u-alice" / "workspace" / "AGENTS.md").write_text("mine")
    (root / "u-alice" / "workspace").chmod(0o755)
    (root / "u-alice").chmod(0o777)
    (root / "u-alice" / "sessions").rmdir()
    before = (root / "u-alice" / "workspace").stat().st_ino
    make_workspace(root, "u-alice")
    assert {mode(root / "u-alice" / name) for name in FOLDERS} == {0o700}
    assert (root / "u-alice" / "workspace" / "AGENTS.md").read_text() == "mine"
    assert (root / "u-alice" / "workspace").stat().st_ino == before


def test_folders_belong_to_whom_the_root_belongs(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give folders away")
    os.chown(root, 12345, 23456)
    make_workspace(root, "u-alice")
    owners = {((root / "u-alice" / name).stat().st_uid, (root / "u-alice" / name).stat().st_gid) for name in FOLDERS}
    assert owners == {(12345, 23456)}


@pytest.mark.parametrize("place", FOLDERS)
def test_a_link_in_place_of_a_folder_is_refused_and_what_it_names_is_left_alone(root: Path, place: str) -> None:
    victim = root.parent / "victim"
    victim.mkdir(mode=0o755)
    (root / "u-alice" / place).parent.mkdir(parents=True, exist_ok=True)
    (root / "u-alice" / place).symlink_to(victim)
    with pytest.raises(EngineError, match=r"environments\.root"):
        make_workspace(root, "u-alice")
    assert mode(victim) == 0o755
    assert list(victim.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_refused(root: Path) -> None:
    (root / "u-alice").mkdir()
    (root / "u-alice" / "workspace").write_text("in the way")
    with pytest.raises(EngineError, match="u-alice"):
        make_workspace(root, "u-alice")
    assert (root / "u-alice" / "workspace").read_text() == "in the way"


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    make_workspace(root.parent / "link", "u-alice")
    assert (root / "u-alice" / "workspace").is_dir()


def test_a_root_that_is_not_there_or_no_folder(root: Path) -> None:
    (root / "file").write_text("")
    for wrong in (root / "missing", root / "file"):
        with pytest.raises(EngineError, match=r"environments\.root") as refused:
            make_workspace(wrong, "u-alice")
        assert str(root) not in refused.value.message


@pytest.mark.parametrize(
    "slug", ["", "u-", "u-../x", "..", "/", "u-a/b", "main-", "-main", "u-Alice", "u-a\n", "u-a\x00", "u-ä", "U-A"]
)
def test_what_is_no_slug_makes_nothing(root: Path, slug: str) -> None:
    with pytest.raises(EngineError, match="slug"):
        make_workspace(root, slug)
    assert list(root.iterdir()) == []


@given(st.text(max_size=12))
def test_nothing_is_made_outside_the_root(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "root").mkdir()
    with contextlib.suppress(EngineError):
        make_workspace(folder / "root", f"u-{text}")
    assert [path.name for path in folder.iterdir()] == ["root"]


def test_no_descriptor_is_left_open(root: Path) -> None:
    (root / "u-bob").symlink_to(root)
    before = len(list(Path("/proc/self/fd").iterdir()))
    make_workspace(root, "u-alice")
    with pytest.raises(EngineError):
        make_workspace(root, "u-bob")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
