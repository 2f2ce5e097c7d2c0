"""How fast a violation at proxy A ends the same worker's open tunnel at proxy B.

Fleet and both proxies are programs of their own, as on three machines: paired, over mutual TLS on
loopback. Each round has a new attested worker with a lease and an endless answer streaming through
B, a chunk every two milliseconds. It then asks A for the metadata address. Taken in milliseconds:
from before that request is written until its refusal is read at A (`refused_ms`); from the refusal
until the last byte came through B (`last_byte_ms`, 0 where none came after it) and until the
connection at B was gone (`cut_ms`). Then heartbeats a second of ten workers over mutual TLS, each
signed, from one paired machine, as fast as they are answered.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import math
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from two_proxies_place import HOST, TwoProxies, two_proxies
from ulid import ULID

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.client import FleetProblem, WorkerClient
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import (
    GrantRequest,
    HeartbeatRequest,
    LeaseAnswer,
    LeaseCommand,
    LeaseRequest,
    RegisterAnswer,
    RegisterRequest,
    WorkspaceScopeModel,
)
from palyra_fleet.worker.launcher import Launcher, Statement, WorkerIdentity
from palyra_fleet.worker.receipt import fetch_receipt

METADATA: Final = "http://169.254.169.254/latest/meta-data/"
EVERY_S: Final = 0.002
WITHIN_S: Final = 30.0
STORM: Final = "fleet.storm_breaker"
BEATING_WORKERS: Final = 10
MOST_BEATS: Final = 150
"""Below the burst that a worker and its machine have: the fleet is measured, not their rate."""


@dataclass(frozen=True, slots=True)
class Latency:
    """One round, in milliseconds."""

    refused_ms: float
    last_byte_ms: float
    cut_ms: float


@dataclass(frozen=True, slots=True)
class Beats:
    """Heartbeats of all workers together, and what one takes."""

    per_s: float
    p50_ms: float
    p99_ms: float
    workers: int


@asynccontextmanager
async def upstream(ca: UpstreamCa) -> AsyncIterator[int]:
    """Answers everything with an endless body; the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"8\r\n" + b"x" * 8 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(EVERY_S)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ca.server_context(HOST))
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def worker_of(
    place: TwoProxies, proxy: int
) -> AsyncIterator[tuple[WorkerClient, RegisterAnswer]]:
    """A worker of the paired host, attested through one of the proxies."""
    worker_id, key = str(ULID()), SigningKey.generate()
    async with WorkerClient(place.keeper.fleet(place.url), key) as client:
        nonce = (await client.issue_nonce()).nonce
        host, port = place.proxies[proxy]
        receipt = await fetch_receipt(f"{host}:{port}", key, nonce)
        statement = Statement(
            identity=WorkerIdentity(worker_id, f"bench:{worker_id}"),
            measured=place.measured,
            nonce=nonce,
            key=key,
            egress_enforced=False,
            now_unix_ms=now_unix_ms(),
        )
        evidence = Launcher(place.launcher).attest(statement).envelope
        public_key = base64.b64encode(key.public_key).decode()
        registered = RegisterRequest(public_key=public_key, evidence=evidence, receipt=receipt)
        yield client, await client.register(registered)


async def lease_of(place: TwoProxies, client: WorkerClient, known: RegisterAnswer) -> LeaseAnswer:
    """A started lease. A storm of quarantines is what this benchmark is: the operator goes on."""
    run_id = f"run-{known.worker_id}"
    await place.operator.create_grant(
        GrantRequest(
            run_id=run_id,
            tool_name="bench",
            principal="bench",
            egress_profile="bench",
            ttl_ms=600_000,
        )
    )
    request = LeaseRequest(
        session_epoch=known.session_epoch,
        run_id=run_id,
        ttl_ms=300_000,
        workspace_scope=WorkspaceScopeModel(workspace_root="/bench", allowed_paths=("/bench",)),
    )
    try:
        lease = await client.request_lease(request)
    except FleetProblem as problem:
        if problem.reason != STORM:
            raise
        await place.operator.unfreeze("the benchmark goes on")
        lease = await client.request_lease(request)
    command = LeaseCommand(session_epoch=known.session_epoch, fence=lease.fence)
    await client.start_lease(lease.lease_id, command)
    return lease


async def one_round(place: TwoProxies, port: int) -> Latency:
    async with worker_of(place, 1) as (client, known):
        lease = await lease_of(place, client, known)
        basic = base64.b64encode(f"{lease.lease_id}:{lease.egress_secret}".encode()).decode()
        reader, writer = await _stream(place, basic, port)
        try:
            for _ in range(20):
                await reader.read(4096)
            at_a = await asyncio.open_connection(*place.proxies[0])
            ended = asyncio.ensure_future(_until_cut(reader))  # noqa: TID251 (awaited below)
            began = time.monotonic_ns()
            at_a[1].write(
                f"GET {METADATA} HTTP/1.1\r\nHost: 169.254.169.254\r\n"
                f"Proxy-Authorization: Basic {basic}\r\n\r\n".encode()
            )
            status = await at_a[0].readline()
            refused = time.monotonic_ns()
            at_a[1].close()
            if b"403 Palyra: egress.metadata_target" not in status:
                raise RuntimeError(f"not the refusal that was expected: {status!r}")
            last_byte, gone = await ended
        finally:
            writer.transport.abort()
    return Latency(
        (refused - began) / 1e6,
        max(0, last_byte - refused) / 1e6,
        max(0, gone - refused) / 1e6,
    )


async def _stream(
    place: TwoProxies, basic: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An endless answer through B. The proxy may not know the lease yet: then once more."""
    authority = f"{HOST}:{port}"
    async with asyncio.timeout(WITHIN_S):
        while True:
            reader, writer = await asyncio.open_connection(*place.proxies[1])
            writer.write(
                f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
                f"Proxy-Authorization: Basic {basic}\r\n\r\n".encode()
            )
            if b" 200 " in (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]:
                break
            writer.close()
            await asyncio.sleep(0.02)
        context = ssl.create_default_context(cafile=place.ca_files[1])
        await writer.start_tls(context, server_hostname=HOST)
        writer.write(f"GET /stream HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        if b" 200 " not in await reader.readline():
            raise RuntimeError("the stream was refused")
    return reader, writer


async def _until_cut(reader: asyncio.StreamReader) -> tuple[int, int]:
    """When the last byte came, and when the connection was gone."""
    last = time.monotonic_ns()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(WITHIN_S):
            while await reader.read(4096):
                last = time.monotonic_ns()
    return last, time.monotonic_ns()


async def heartbeats(place: TwoProxies, count: int) -> Beats:
    """So many of each of ten workers, all workers at once, each waiting for its answers."""
    took: list[int] = []

    async def beat(client: WorkerClient, epoch: int) -> None:
        for number in range(count):
            began = time.monotonic_ns()
            await client.heartbeat(HeartbeatRequest(session_epoch=epoch, seq=number + 1))
            took.append(time.monotonic_ns() - began)

    async with contextlib.AsyncExitStack() as open_workers:
        workers = [
            await open_workers.enter_async_context(worker_of(place, 0))
            for _ in range(BEATING_WORKERS)
        ]
        began = time.monotonic_ns()
        await asyncio.gather(*(beat(client, known.session_epoch) for client, known in workers))
        whole_s = (time.monotonic_ns() - began) / 1e9
    ms = [one / 1e6 for one in took]
    return Beats(len(took) / whole_s, statistics.median(ms), percentile(ms, 0.99), len(workers))


async def run(rounds: int, beats: int) -> tuple[list[Latency], Beats]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        ca = UpstreamCa.create(directory / "upstream")
        async with upstream(ca) as port, two_proxies(directory, port, ca.ca_file) as place:
            found = [await one_round(place, port) for _ in range(rounds)]
            return found, await heartbeats(place, beats)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: with few rounds the 99th is the greatest."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(found: Sequence[Latency], beats: Beats) -> str:
    titles = {
        "refused_ms": "refusal read at A",
        "last_byte_ms": "from the refusal to the last byte at B",
        "cut_ms": "from the refusal to the end at B",
    }
    lines = [f"{'':40}{'p50':>10}{'p99':>10}  ms"]
    for field, title in titles.items():
        values = [getattr(one, field) for one in found]
        lines.append(f"{title:40}{statistics.median(values):10.1f}{percentile(values, 0.99):10.1f}")
    lines.append(f"{'one heartbeat over mutual TLS':40}{beats.p50_ms:10.1f}{beats.p99_ms:10.1f}")
    lines.append(
        f"{len(found)} rounds; {beats.per_s:.0f} heartbeats a second, all workers together"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--beats", type=int, default=MOST_BEATS, help="of each of ten workers")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or not 1 <= given.beats <= MOST_BEATS:
        parser.error(f"expected a round at least, and 1 to {MOST_BEATS} beats")
    found, beats = asyncio.run(run(given.rounds, given.beats))
    report = {"rounds": [asdict(one) for one in found], "heartbeats": asdict(beats)}
    print(json.dumps(report, indent=2) if given.json else table(found, beats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
