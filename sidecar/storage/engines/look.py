"""Who holds a data folder, seen from another process that leaves it alone."""

from __future__ import annotations

import contextlib
from pathlib import Path

_LOCK = "sidecar.lock"
_PROC_LOCKS = Path("/proc/locks")


def holder(data_dir: Path) -> int:
    """The process that has the folder's lock; 0 where none has, or it cannot be seen.

    The kernel's list is read instead of trying the lock: a sidecar that starts at that moment would find it taken.
    """
    with contextlib.suppress(OSError):
        inode = (data_dir / _LOCK).stat().st_ino
        for line in _PROC_LOCKS.read_text().splitlines():
            words = line.split()
            if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                return int(words[4])
    return 0
