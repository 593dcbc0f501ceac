"""The secret from which users' device keys derive: given, or made once and kept in the data folder."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from sidecar.errors import EngineError


def load_seal(data_dir: Path, secret: str) -> bytes:
    """`storage.secret`, or one made once and kept 0600 in the data folder. Raises EngineError."""
    if secret:
        return secret.encode()
    path = data_dir / "secret"
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            os.link(path.with_suffix(".new"), path)
        path.with_suffix(".new").unlink(missing_ok=True)
        kept = path.read_bytes().strip()
    except OSError as error:
        raise EngineError(f"storage.secret cannot be kept in {path}: {error.strerror}; set storage.secret") from None
    if len(kept) < 32:
        raise EngineError(f"{path} holds no secret of 32 bytes; restore it, since users' devices derive from it")
    return kept
