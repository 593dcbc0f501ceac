"""Trying the gateway's port at this host's own addresses, as a neighbour would. Never at any other host's."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sidecar.doctor.reading import Reach
from sidecar.errors import SidecarError
from sidecar.protocol import frames
from sidecar.protocol.handshake import MAX_CONNECT_BYTES
from sidecar.wire.dial import dial

TRY_SECONDS = 3.0
_PORTS = {"ws": 80, "wss": 443}


def own_addresses(proc: Path = Path("/proc/net")) -> list[str]:
    """Addresses of this host's interfaces that are not loopback, as the kernel lists them; IPv6 link-local ones with their zone."""
    found = [*_own_v4(proc / "fib_trie"), *_own_v6(proc / "if_inet6")]
    return sorted({one for one in found if not ipaddress.ip_address(one.partition("%")[0]).is_loopback})


def _own_v4(trie: Path) -> Iterator[str]:
    """A leaf `|-- 10.0.0.5` that is followed by `/32 host LOCAL` is an address of ours."""
    leaf = ""
    with contextlib.suppress(OSError):
        for line in trie.read_text().splitlines():
            words = line.split()
            if words[:1] == ["|--"]:
                leaf = words[1]
            elif words == ["/32", "host", "LOCAL"] and leaf:
                yield leaf


def _own_v6(table: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines():
            digits, *_, name = line.split()
            address = ipaddress.IPv6Address(int(digits, 16))
            yield f"{address}%{name}" if address.is_link_local else str(address)


async def is_here(url: str, own: list[str]) -> bool:
    """Does the host of `url` name this machine?"""
    host = urlsplit(url).hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    addresses = {str(row[4][0]).partition("%")[0] for row in found}
    mine = {one.partition("%")[0] for one in own}
    return bool(addresses) and all(ipaddress.ip_address(one).is_loopback or one in mine for one in addresses)


async def reach(url: str, own: list[str], failed: Callable[[Exception], None]) -> Reach:
    """At which of our own addresses, beside the one that we use, does a gateway answer on that port?"""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme, 80)
    others = [one for one in own if one != parts.hostname]
    answers = await asyncio.gather(*(_answers(parts.scheme, one, port, failed) for one in others))
    return Reach(tuple(others), tuple(one for one, answered in zip(others, answers, strict=True) if answered))


async def _answers(scheme: str, address: str, port: int, failed: Callable[[Exception], None]) -> bool:
    """A gateway says the first word, its challenge, or refuses the upgrade over HTTP. Behind TLS, whoever takes the connection
    counts: a certificate does not name addresses."""
    if scheme == "wss":
        return await _takes(address, port)
    host = f"[{address}]" if ":" in address else address
    try:
        first = await first_word(f"{scheme}://{host}:{port}/", {}, failed)
    except SidecarError as error:
        return str(error.details.get("status", "")).isdecimal()
    except (TimeoutError, ConnectionResetError):
        return False
    return (frames.parse(first) or {}).get("event") == "connect.challenge"


async def first_word(url: str, headers: Mapping[str, str], failed: Callable[[Exception], None]) -> bytes:
    """What a gateway says to whoever connects. Raises GatewayAway, TimeoutError, ConnectionResetError."""
    link = await dial(url, headers, max_size=MAX_CONNECT_BYTES, timeout=TRY_SECONDS, failed=failed)
    try:
        return await link.inbox.next(TRY_SECONDS)
    finally:
        link.wire.abort()


async def _takes(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(TRY_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.transport.abort()
    return True
