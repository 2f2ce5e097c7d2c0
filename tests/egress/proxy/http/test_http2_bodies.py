"""Bodies of any size pass in constant memory, in every pair of versions and both ways.

The suite sends some tens of megabytes; `PALYRA_BODY_MIB=1024` sends a gigabyte each.
"""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from palyra_egress.proxy.guard import guard_upstream
from tests.egress.proxy.http.h2_world import Http2World, http2_world
from tests.fakes.h2_worker import H2Worker

MIB: Final = 1 << 20
BODY_MIB: Final = int(os.environ.get("PALYRA_BODY_MIB", "24"))
GROWS_AT_MOST_MIB: Final = 16
PIECE: Final = bytes(256 * 1024)
PAIRS = [(1, 1), (1, 2), (2, 1), (2, 2)]


class Careless(H2Worker):
    """Counts what it gets, and keeps nothing."""

    keeps_bodies = False


@pytest.fixture
async def world(tmp_path, monkeypatch, serves) -> AsyncIterator[Http2World]:
    if serves == 2:  # also from an HTTP/1 worker: this server does not refuse TLS without `h2`
        monkeypatch.setattr(guard_upstream, "HTTP1_ALPN", b"h2")
    async with http2_world(tmp_path) as made:
        made.second.keeps_bodies = False
        yield made


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


async def _downloaded_in_http1(world: Http2World, serves: int) -> int:
    authority = world.authority(speaks=serves)
    _, reader, writer = await world.harness.tunnel(authority)
    writer.write(f"GET /x HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    got = 0
    while data := await reader.read(1 << 16):
        got += len(data)
    writer.close()
    return got


async def _downloaded_in_http2(world: Http2World, serves: int) -> int:
    async with world.worker(speaks=serves, cls=Careless) as worker:
        stream = worker.ask(worker.fields())
        while not stream.over and not worker.closed:
            worker.changed.clear()
            await worker.changed.wait()
        assert stream.ended
        return stream.received


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("asks", "serves"), PAIRS)
async def test_a_large_download_passes_in_constant_memory(world, asks, serves):
    most = 0.0

    async def large(session, stream):
        nonlocal most
        session.head(stream.stream_id, [(":status", "200")])
        for _ in range(BODY_MIB * 4):
            await session.data(stream.stream_id, PIECE)
            most = max(most, resident_mib())
        session.h2.end_stream(stream.stream_id)
        session.flush()

    async def large_in_http1(_head, writer):
        nonlocal most
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(BODY_MIB * 4):
            writer.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
            await writer.drain()
            most = max(most, resident_mib())
        writer.write(b"0\r\n\r\n")

    world.second.respond, world.first.respond = large, large_in_http1
    before = resident_mib()
    download = _downloaded_in_http1 if asks == 1 else _downloaded_in_http2
    assert await download(world, serves) >= BODY_MIB * MIB
    assert most - before < GROWS_AT_MOST_MIB


async def _uploaded_in_http1(world: Http2World, serves: int) -> None:
    authority = world.authority(speaks=serves)
    _, reader, writer = await world.harness.tunnel(authority)
    writer.write(
        f"POST /x HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    for _ in range(BODY_MIB * 4):
        writer.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def _uploaded_in_http2(world: Http2World, serves: int) -> None:
    async with world.worker(speaks=serves, cls=Careless) as worker:
        stream = worker.ask(worker.fields("POST"), end=False)
        for _ in range(BODY_MIB * 4):
            await worker.data(stream.stream_id, PIECE)
        await worker.data(stream.stream_id, b"", end=True)
        while not stream.over and not worker.closed:
            worker.changed.clear()
            await worker.changed.wait()
        assert stream.status == 200


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("asks", "serves"), PAIRS)
async def test_a_large_upload_passes_in_constant_memory(world, asks, serves):
    most = 0.0

    async def counts(session, stream):
        nonlocal most
        while not stream.over:
            most = max(most, resident_mib())
            session.changed.clear()
            await session.changed.wait()
        session.head(stream.stream_id, [(":status", "200")], end=True)

    counted = 0

    async def counts_in_http1(reader, writer):
        nonlocal most, counted
        await reader.readuntil(b"\r\n\r\n")
        end = b""
        while end != b"0\r\n\r\n":
            data = await reader.read(1 << 16)
            counted, end = counted + len(data), (end + data)[-5:]
            most = max(most, resident_mib())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    world.second.respond, world.first.serve = counts, counts_in_http1
    before = resident_mib()
    await (_uploaded_in_http1 if asks == 1 else _uploaded_in_http2)(world, serves)
    assert most - before < GROWS_AT_MOST_MIB
    if serves == 2:
        counted = world.second.streams[0].received
    assert counted >= BODY_MIB * MIB
