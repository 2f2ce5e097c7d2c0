"""NodeService over mutual TLS: calls a second, and what thousands of open streams cost.

Two contenders in one run, each a process of its own: our node service (gate, ledger, durable state)
and a bare gRPC server with the same TLS that answers with constants. First a few connections call
`RegisterNode` and write heartbeats as fast as they are answered. Then as many streams as asked for
are opened, each on a connection of its own, and each beats once a second; shown are the memory that
a stream with its connection costs the server, the latency of heartbeats (p50, p99), and the
server's CPU meanwhile, as a share and for each heartbeat. The clients are this process.
"""

import argparse
import asyncio
import itertools
import json
import math
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import common_pb2, node_pb2, node_pb2_grpc

SERVER: Final = Path(__file__).with_name("node_server.py")
KINDS: Final = ("bare", "ours")
DEVICES: Final = 20
OPENING_AT_ONCE: Final = 50
START_WITHIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Row:
    """One contender. Rates are per second, latencies milliseconds, memory bytes."""

    kind: str
    registers_per_s: float
    heartbeats_per_s: float
    streams: int
    bytes_per_stream: float
    beats: int
    beat_p50_ms: float
    beat_p99_ms: float
    cpu_share: float
    seconds: float

    @property
    def cpu_per_beat_ms(self) -> float:
        """The server's processor time for one heartbeat, however busy the machine is."""
        return self.cpu_share * self.seconds * 1000 / self.beats


class Server:
    """A started contender."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self._process = process
        self.port = int(ready["port"])
        given = json.loads(Path(ready["devices_file"]).read_text())
        self._roots = given["roots"].encode()
        self._devices = itertools.cycle(given["devices"])

    @classmethod
    async def start(cls, kind: str, directory: Path) -> "Server":
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(SERVER), kind, str(directory), str(DEVICES)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(START_WITHIN_S):
            line = await process.stdout.readline()
        if not line:
            raise SystemExit(f"{kind}: the server did not start")
        return cls(process, json.loads(line))

    async def usage(self) -> dict[str, float]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"\n")
        found: dict[str, float] = json.loads(await self._process.stdout.readline())
        return found

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    def client(self) -> "Client":
        """A connection of its own, with the next device's certificate."""
        device = next(self._devices)
        credentials = grpc.ssl_channel_credentials(
            self._roots, device["private_key_pem"].encode(), device["certificate_pem"].encode()
        )
        channel = grpc.aio.secure_channel(
            f"127.0.0.1:{self.port}",
            credentials,
            (
                ("grpc.ssl_target_name_override", "palyrad-node-rpc"),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ),
        )
        return Client(channel, device["device_id"])


class Client:
    """One connection and at most one stream."""

    def __init__(self, channel: grpc.aio.Channel, device_id: str) -> None:
        self.channel = channel
        self._calls = node_pb2_grpc.NodeServiceStub(channel)
        self._id = common_pb2.CanonicalId(ulid=device_id)
        self._stream: Any = None

    async def register(self) -> None:
        answer = await self._calls.RegisterNode(
            node_pb2.RegisterNodeRequest(v=1, device_id=self._id, platform="bench")
        )
        if not answer.accepted:
            raise SystemExit(f"a registration was refused: {answer.reason}")

    async def open(self) -> None:
        self._stream = self._calls.StreamNodeEvents()
        await self.beat("node.started")

    async def beat(self, name: str = "node.heartbeat") -> None:
        await self._stream.write(
            node_pb2.NodeEventRequest(v=1, device_id=self._id, event_name=name)
        )
        answer = await self._stream.read()
        if answer is grpc.aio.EOF or not answer.accepted:
            raise SystemExit("an event was refused")

    async def close(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
        await self.channel.close()


async def rate(clients: Sequence[Client], call: str, seconds: float) -> float:
    """Calls a second of all clients together, each waiting for its answers."""
    end = time.monotonic() + seconds
    counts = [0] * len(clients)

    async def work(index: int, client: Client) -> None:
        while time.monotonic() < end:
            await getattr(client, call)()
            counts[index] += 1

    begun = time.monotonic()
    await asyncio.gather(*(work(i, client) for i, client in enumerate(clients)))
    return sum(counts) / (time.monotonic() - begun)


async def beats(clients: Sequence[Client], seconds: float) -> list[float]:
    """Every client beats once a second, spread over it; latencies in milliseconds."""
    latencies: list[float] = []
    begun = time.monotonic()

    async def work(index: int, client: Client) -> None:
        at = begun + index / len(clients)
        while at < begun + seconds:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            before = time.perf_counter()
            await client.beat()
            latencies.append((time.perf_counter() - before) * 1000)
            at += 1.0

    await asyncio.gather(*(work(i, client) for i, client in enumerate(clients)))
    return sorted(latencies)


async def measure(kind: str, streams: int, connections: int, seconds: float) -> Row:
    with tempfile.TemporaryDirectory() as directory:
        server = await Server.start(kind, Path(directory) / "state")
        try:
            few = [server.client() for _ in range(connections)]
            for client in few:
                await client.register()
                await client.open()
            registers = await rate(few, "register", seconds)
            heartbeats = await rate(few, "beat", seconds)
            before = await server.usage()
            many = await opened(server, streams)
            held = await server.usage()
            latencies = await beats(many, seconds)
            after = await server.usage()
            for client in (*few, *many):
                await client.close()
        finally:
            await server.stop()
    return Row(
        kind,
        registers,
        heartbeats,
        streams,
        (held["resident_bytes"] - before["resident_bytes"]) / streams,
        len(latencies),
        statistics.median(latencies),
        latencies[math.ceil(len(latencies) * 0.99) - 1],
        (after["cpu_s"] - held["cpu_s"]) / seconds,
        seconds,
    )


async def opened(server: Server, streams: int) -> list[Client]:
    """That many streams, each on a connection of its own."""
    clients = [server.client() for _ in range(streams)]
    for start in range(0, streams, OPENING_AT_ONCE):
        await asyncio.gather(
            *(client.open() for client in clients[start : start + OPENING_AT_ONCE])
        )
    return clients


def report(rows: Sequence[Row]) -> str:
    lines = [
        f"{'':<6}{'registers/s':>12}{'beats/s':>10}{'streams':>9}{'KiB/stream':>12}"
        f"{'p50 ms':>9}{'p99 ms':>9}{'CPU':>7}{'CPU ms/beat':>13}"
    ]
    lines += [
        f"{row.kind:<6}{row.registers_per_s:>12.0f}{row.heartbeats_per_s:>10.0f}{row.streams:>9}"
        f"{row.bytes_per_stream / 1024:>12.1f}{row.beat_p50_ms:>9.1f}{row.beat_p99_ms:>9.1f}"
        f"{row.cpu_share:>7.0%}{row.cpu_per_beat_ms:>13.2f}"
        for row in rows
    ]
    bare, ours = rows
    lines.append(
        f"ours / bare: registers {ours.registers_per_s / bare.registers_per_s:.2f},"
        f" beats {ours.heartbeats_per_s / bare.heartbeats_per_s:.2f};"
        f" load average {os.getloadavg()[0]:.1f}"
    )
    return "\n".join(lines)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--connections", type=int, default=8, help="for calls a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = [
        await measure(kind, arguments.streams, arguments.connections, arguments.seconds)
        for kind in KINDS
    ]
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows]) + "\n")
    else:
        sys.stdout.write(report(rows) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
