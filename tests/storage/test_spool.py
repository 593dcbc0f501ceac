"""The spool on a real disk: what was promised is there after a kill, nothing else is."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.errors import EngineError
from sidecar.storage.spool import MOST_FILES, Spool

MEGABYTE = 1_000_000


def lines(spool: Spool) -> list[bytes]:
    return [line for batch in spool.batches(2) for line in batch]


def test_lines_come_back_in_their_order(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool", MEGABYTE) as spool:
        spool.append([b"one", b"two"])
        spool.append([b"three"])
        assert lines(spool) == [b"one", b"two", b"three"]
        assert spool.size == 14
        spool.settle()
        assert (lines(spool), spool.size) == ([], 0)
        spool.append([b"four"])
    with Spool(tmp_path / "spool", MEGABYTE) as spool:
        assert lines(spool) == [b"four"]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool", MEGABYTE) as spool:
        spool.append([b"one"])
        assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "spool" / "0.spool").stat().st_mode & 0o777 == 0o600


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    """It says a line only after that line was appended, and is killed while it goes on."""
    program = (
        "import itertools, sys; from pathlib import Path; from sidecar.storage.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), 10**9)\n"
        "for number in itertools.count():\n"
        "    spool.append([b'%d' % number]); print(number, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 200:
                break
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
    promised = int(rest[-1]) if rest else 200
    with Spool(tmp_path, 10**9) as spool:
        found = [int(line) for line in lines(spool)]
    assert found == list(range(len(found)))
    assert len(found) - 1 >= promised


def test_a_torn_line_was_never_promised(tmp_path: Path) -> None:
    (tmp_path / "0.spool").write_bytes(b"whole\ntor")
    with Spool(tmp_path, MEGABYTE) as spool:
        assert lines(spool) == [b"whole"]
        spool.append([b"next"])
        assert lines(spool) == [b"whole", b"next"]


def test_it_is_bounded(tmp_path: Path) -> None:
    with Spool(tmp_path, 10) as spool:
        spool.append([b"1234"])
        with pytest.raises(OverflowError, match="full"):
            spool.append([b"5", b"6789"])
        assert lines(spool) == [b"1234"]
        spool.append([b"5678"])


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """All of a batch or none of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Spool(tmp_path, MEGABYTE) as spool:
        spool.append([b"kept"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(OverflowError, match="disk"):
                spool.append([b"x" * 900, b"y" * 900])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        assert lines(spool) == [b"kept"]
        spool.append([b"more"])
        assert lines(spool) == [b"kept", b"more"]


def test_two_processes_have_a_file_each_and_the_dead_ones_is_taken_over(tmp_path: Path) -> None:
    first = Spool(tmp_path, MEGABYTE)
    second = Spool(tmp_path, MEGABYTE)
    first.append([b"first"])
    second.append([b"second"])
    assert (lines(first), lines(second)) == ([b"first"], [b"second"])
    second.close()
    first.close()
    with Spool(tmp_path, MEGABYTE) as third:
        assert sorted(lines(third)) == [b"first", b"second"]
        third.settle()
        assert lines(third) == []


def test_as_many_processes_as_there_may_be(tmp_path: Path) -> None:
    spools = [Spool(tmp_path, MEGABYTE) for _ in range(MOST_FILES)]
    with pytest.raises(EngineError, match="data_dir of its own"):
        Spool(tmp_path, MEGABYTE)
    for spool in spools:
        spool.close()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be used"):
        Spool(tmp_path / "file", MEGABYTE)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "0.spool").symlink_to("/dev/null")
    with pytest.raises(EngineError, match="cannot be used"):
        Spool(tmp_path, MEGABYTE)
