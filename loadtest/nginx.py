"""nginx as a plain WebSocket proxy, from the distribution's package."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

from loadtest.wire import BenchError

UPDATE = ("apt-get", "update")
INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", "nginx")
_NEEDED = "nginx is not installed: `apt-get install nginx`, or leave it out with --without nginx"

_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


def find() -> str | None:
    """The program's path. Debian keeps it where only root's PATH leads."""
    return shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


async def installed() -> str:
    """The program's path, installed first where that may be done. Raises BenchError."""
    if (found := find()) is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BenchError(_NEEDED)
    for words in (UPDATE, INSTALL):
        done = await asyncio.to_thread(
            subprocess.run,
            words,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
    if (found := find()) is None:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise BenchError(f"{_NEEDED}; apt-get could not: {''.join(said)}")
    return found


def command(program: str, folder: Path, port: int, upstream: int) -> list[str]:
    """One process, one thread, in the foreground, with everything below `folder`."""
    connections = 8192
    path = folder / "nginx.conf"
    path.write_text(
        _CONFIG.format(folder=folder, port=port, upstream=upstream, connections=connections, files=2 * connections)
    )
    return [program, "-p", str(folder), "-e", str(folder / "nginx.log"), "-c", str(path)]
