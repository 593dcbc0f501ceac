"""Becomes a child engine: `python -I -S launch.py PARENT SIGNAL IDENTITY COMMAND…`; imports nothing of ours.

A process of its own instead of a `preexec_fn`, which may deadlock in a program with threads.

- PARENT: pid of the process whose end ends the child, also by kill -9.
- SIGNAL: number of the signal that the child then gets.
- IDENTITY: `same`; `map:UID` (a user namespace in which we are UID: PostgreSQL refuses to run as root, and initdb to
  run as a user without a name); `drop:UID:GID` (become that user for good).
"""

import ctypes
import os
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000

_libc = ctypes.CDLL(None, use_errno=True)


def map_user(uid: int) -> None:
    """Outside nothing changes: files stay those of the user who started us, and no new user is made."""
    outside, group = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are not permitted")
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{uid} {outside} 1")
    (own / "gid_map").write_text(f"{uid} {group} 1")


def drop_to(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def main(parent: str, signal: str, identity: str, *command: str) -> None:
    kind, *numbers = identity.split(":")
    if kind == "map":
        map_user(int(numbers[0]))
    elif kind == "drop":
        drop_to(int(numbers[0]), int(numbers[1]))
    _libc.prctl(PR_SET_PDEATHSIG, int(signal))  # after the change of user, which would clear it
    if os.getppid() != int(parent):
        raise SystemExit("the parent ended before its child began")
    os.umask(0o077)
    os.execv(command[0], command)  # noqa: S606 — becoming the command is what this program is for


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        raise SystemExit(f"launch: {error}") from None
