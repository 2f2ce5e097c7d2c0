"""Cutting off: what the other side sees before the loop goes on, and what stays ours."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.sockets.resets import cut_off, keep_quiet, reset

MUCH = b"x" * (8 << 20)


@asynccontextmanager
async def connected(
    family: socket.AddressFamily = socket.AF_INET,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]]:
    """A stream of ours, and the other side as a bare socket that does not wait."""
    if family == socket.AF_UNIX:
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
    ours.setblocking(False)
    theirs.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours)
    with theirs:
        try:
            yield reader, writer, theirs
        finally:
            reset(writer)
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def everything_read(sock: socket.socket) -> int:
    """How much was readable, until the reset."""
    count = 0
    with pytest.raises(ConnectionResetError):
        while data := sock.recv(1 << 20):
            count += len(data)
    return count


async def test_the_other_side_is_reset_before_the_call_returns():
    async with connected() as (_, writer, theirs):
        assert cut_off(writer)
        assert everything_read(theirs) == 0  # nobody waited: this is still the same pass


async def test_what_the_kernel_held_is_thrown_away():
    async with connected() as (_, writer, theirs):
        writer.write(MUCH)
        waits = writer.transport.get_write_buffer_size()
        assert 0 < waits < len(MUCH)
        assert cut_off(writer)
        assert not keep_quiet(writer)  # its transport would hear of it, and try to go on
        assert everything_read(theirs) < len(MUCH) - waits


async def test_the_descriptor_stays_its_transports_and_nobody_is_woken():
    async with connected() as (reader, writer, _):
        sock = writer.get_extra_info("socket")
        number = sock.fileno()
        assert cut_off(writer)
        assert keep_quiet(writer)
        with socket.socket() as another:
            assert another.fileno() != number
        for _ in range(5):
            await asyncio.sleep(0)
        assert sock.fileno() == number
        assert not reader.at_eof()
        assert not writer.is_closing()
        writer.transport.abort()
        assert await reader.read() == b""
        assert sock.fileno() < 0


async def test_what_is_written_behind_it_goes_nowhere():
    async with connected() as (_, writer, theirs):
        assert cut_off(writer)
        writer.write(b"too late")
        assert writer.is_closing()
        assert everything_read(theirs) == 0


async def test_a_unix_socket_has_to_be_closed():
    async with connected(socket.AF_UNIX) as (_, writer, theirs):
        assert not cut_off(writer)
        reset(writer)
        await asyncio.sleep(0)
        assert theirs.recv(1) == b""


async def test_a_closed_one_is_no_fault():
    async with connected() as (_, writer, _):
        writer.close()
        await writer.wait_closed()
        assert not cut_off(writer)


async def test_under_tls_the_socket_is_reset_and_the_stream_has_to_be(tmp_path: Path):
    arrived: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    ca = UpstreamCa.create(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ca.issue("api.example"))

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set_result(writer)

    async with await asyncio.start_server(take, "127.0.0.1", 0, ssl=context) as server:
        trusting = ssl.create_default_context(cafile=ca.ca_file)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting, server_hostname="api.example"
        )
        ours = await arrived
        assert cut_off(ours)
        assert not keep_quiet(ours)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        reset(ours)
        writer.transport.abort()
