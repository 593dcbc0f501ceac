"""`dial`: the good case, and everything that can answer at a gateway's address instead of a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.errors import GatewayAway
from sidecar.wire.dial import MAX_HEAD, Dialled, dial
from sidecar.wire.wire import GATEWAYS_MESSAGES
from tests.stack.process import free_port
from tests.wire.loops import on_each_loop
from tests.wire.peers import Recorder, serving, switching, text

SHORT = 0.3
LONG = 10.0
LARGEST = 25 * 1024 * 1024

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def no_defect(error: Exception) -> None:
    raise AssertionError("a defect in a receiver") from error


async def dialled(url: str, timeout: float = LONG, headers: dict[str, str] | None = None) -> Dialled:
    return await dial(url, headers or {}, max_size=LARGEST, timeout=timeout, failed=no_defect)


@contextlib.asynccontextmanager
async def answering(
    answer: Answer, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, asyncio.Queue[bool]]]:
    """A server that reads a head and then does `answer`; `(port, one True for each connection that ended)`."""
    ends: asyncio.Queue[bool] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await answer(head.decode().removesuffix("\r\n\r\n"), writer)
            while await reader.read(65536):
                pass
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()
            ends.put_nowait(True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], ends
    finally:
        server.close()
        await server.wait_closed()


async def refused_by(answer: Answer, timeout: float = LONG) -> GatewayAway:
    """What `dial` raises; the server has seen the connection end, so none is left behind."""
    async with answering(answer) as (port, ends):
        with pytest.raises(GatewayAway) as raised:
            await dialled(f"ws://127.0.0.1:{port}", timeout)
        await ends.get()
    return raised.value


def saying(data: bytes) -> Answer:
    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


@on_each_loop
async def test_both_ends_talk_and_what_came_behind_the_answer_waits() -> None:
    async with serving(behind=text(b"first") + text(b"second"), max_size=LARGEST + 14) as (url, queue):
        link = await dialled(url + "/socket", headers={"x-forwarded-user": "u-alice"})
        served = await queue.get()
        assert served.head.startswith("GET /socket HTTP/1.1\r\n")
        assert "x-forwarded-user: u-alice" in served.head
        assert [await link.inbox.next(LONG), await link.inbox.next(LONG)] == [b"first", b"second"]
        link.wire.receiver = receiver = Recorder()
        payload = b"0123456789abcdef" * (LARGEST // 16)
        link.wire.send(payload)
        await served.receiver.until(lambda: bool(served.receiver.texts))
        assert served.receiver.texts == [payload]
        served.wire.send(payload)
        await receiver.until(lambda: bool(receiver.texts))
        assert receiver.texts == [payload]
        link.wire.close(1000)
        await link.wire.wait_closed()
        assert receiver.closed == served.receiver.closed == [1000]


@on_each_loop
async def test_an_answer_may_come_in_pieces() -> None:
    async def answer(head: str, writer: asyncio.StreamWriter) -> None:
        whole = switching(head) + text(b"hello")
        for at in range(0, len(whole), 7):
            writer.write(whole[at : at + 7])
            await writer.drain()
            await asyncio.sleep(0.001)

    async with answering(answer) as (port, ends):
        link = await dialled(f"ws://127.0.0.1:{port}")
        assert await link.inbox.next(LONG) == b"hello"
        link.wire.abort()
        await link.wire.wait_closed()
        await ends.get()


@on_each_loop
async def test_a_handshake_waits_only_so_long_and_hears_of_the_end() -> None:
    async with serving() as (url, queue):
        link = await dialled(url)
        with pytest.raises(TimeoutError):
            await link.inbox.next(SHORT)
        (await queue.get()).wire.close(1013, "full")
        with pytest.raises(ConnectionResetError, match="1013"):
            await link.inbox.next(LONG)
        await link.wire.wait_closed()


@on_each_loop
async def test_a_peer_that_talks_without_end_before_the_handshake_is_over_is_closed() -> None:
    async with serving(behind=text(b"x") * (GATEWAYS_MESSAGES + 1)) as (url, queue):
        link = await dialled(url)
        served = await queue.get()
        await served.wire.wait_closed()
        assert served.receiver.closed == [1008]
        await link.wire.wait_closed()


@on_each_loop
async def test_an_upgrade_that_is_refused() -> None:
    error = await refused_by(saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"))
    assert "403" in error.message
    assert error.details["status"] == "403"
    assert error.to_wire()["retryable"] is True


@on_each_loop
async def test_what_is_no_websocket_server() -> None:
    for said in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: c29tZWJvZHkgZWxzZQ==\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
    ):
        error = await refused_by(saying(said))
        assert error.detail_code == "GATEWAY_UNAVAILABLE"


@on_each_loop
async def test_a_head_without_end() -> None:
    error = await refused_by(saying(b"HTTP/1.1 101 Switching Protocols\r\n" + b"x-more: y\r\n" * (MAX_HEAD // 8)))
    assert "no end" in error.message


@on_each_loop
async def test_a_server_that_hangs_up() -> None:
    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    assert (await refused_by(answer)).retryable


@on_each_loop
async def test_a_server_that_says_nothing() -> None:
    assert "timeout" in (await refused_by(saying(b""), SHORT)).message


@on_each_loop
async def test_nothing_listens() -> None:
    with pytest.raises(GatewayAway, match="ConnectionRefusedError"):
        await dialled(f"ws://127.0.0.1:{free_port()}")


@on_each_loop
async def test_a_dial_that_is_cancelled_leaves_no_socket() -> None:
    async with answering(saying(b"HTTP/1.1 101 Swi")) as (port, ends):
        dialling = asyncio.create_task(dialled(f"ws://127.0.0.1:{port}"))
        await asyncio.sleep(SHORT)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await ends.get()


@on_each_loop
async def test_a_header_cannot_smuggle_another_one_in() -> None:
    async with serving() as (url, queue):
        for name, value in (("x-user", "alice\r\nx-admin: yes"), ("x-user", "älice"), ("x-user", "a\x00b")):
            with pytest.raises(GatewayAway, match="x-user"):
                await dialled(url, headers={name: value})
        assert queue.empty()


@on_each_loop
async def test_a_certificate_that_nobody_vouches_for() -> None:
    with tempfile.TemporaryDirectory() as folder:
        context = self_signed(Path(folder))
        async with answering(saying(b""), context) as (port, _):
            with pytest.raises(GatewayAway, match=r"SSL"):
                await dialled(f"wss://127.0.0.1:{port}")


@on_each_loop
async def test_tls_towards_a_server_without() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(GatewayAway, match=r"SSL|Connection"):
            await dialled(f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}")


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding, clear = serialization.Encoding.PEM, serialization.NoEncryption()
    pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, clear) + certificate.public_bytes(encoding)
    (folder / "server.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context
