"""A user's folders, where the workspaces root can be reached from the sidecar.

    <root>/<slug>/          0700 each, owned as the root is
        workspace/          the agent's own: it writes AGENTS.md, IDENTITY.md … on the first turn
        sessions/  .openclaw/profiles/  sandbox-workspace/

Agents write in here, so nothing that stands here already is trusted: folders are made and opened relative to their parent's
descriptor and never through a symlink.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from sidecar.errors import EngineError

_LAYOUT = (("workspace",), ("sessions",), (".openclaw", "profiles"), ("sandbox-workspace",))
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MODE = 0o700


def make_workspace(root: Path, slug: str) -> None:
    """Make what is missing and set modes; idempotent. Raises EngineError where a folder is something else, or cannot be made."""
    if not _NAME.fullmatch(slug):
        raise EngineError("a workspace is named by a slug, or by an agent that is shared")
    with contextlib.ExitStack() as opened:
        try:
            top = opened.enter_context(_opened(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
            owner = os.fstat(top)
            home = opened.enter_context(_folder(top, slug, owner))
            for path in _LAYOUT:
                parent = home
                for name in path:
                    parent = opened.enter_context(_folder(parent, name, owner))
        except OSError as error:
            raise EngineError(
                f"the workspace of {slug} cannot be made below environments.root: {error.strerror}"
            ) from None


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _folder(parent: int, name: str, owner: os.stat_result) -> AbstractContextManager[int]:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, MODE, dir_fd=parent)
    descriptor = os.open(name, _FLAGS, dir_fd=parent)
    mine = os.fstat(descriptor)
    if os.geteuid() == 0 and (mine.st_uid, mine.st_gid) != (owner.st_uid, owner.st_gid):
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    if mine.st_mode & 0o777 != MODE:
        os.fchmod(descriptor, MODE)
    return _opened(descriptor)
