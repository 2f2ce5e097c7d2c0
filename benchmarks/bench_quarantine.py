"""How fast a violation ends a worker's egress, with 1, 50 and 500 live tunnels of that worker.

Fleet and proxy run in this process (the embedded installation); the worker's connections, each in
the middle of an upload, and the server they lead to are programs of their own. A registered worker
with a real lease asks for the metadata address. Five times are taken, in milliseconds from the
moment before that request is written: its refusal has been read; the last byte of all the others
has reached the server; the worker has seen the last of them end; the fleet had the worker
quarantined, durably (a whole millisecond of the fleet's clock); the worker's own order stream said
so. `bytes` is what arrived at the server meanwhile. Each round has an installation of its own.
"""

import argparse
import asyncio
import base64
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from contenders import line_of, started
from ulid import ULID

from palyra_egress.clock import now_unix_ms
from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.embedded import Embedded, EmbeddedSettings, embedded
from palyra_egress.installation import Installation
from palyra_egress.proxy.caps import CAPS
from palyra_fleet.cli.place import Home
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import (
    GrantRequest,
    LeaseAnswer,
    ReferenceValues,
    WorkspaceScopeModel,
)
from palyra_fleet.worker.launcher import Launcher, Measurement, WorkerIdentity, measure
from palyra_fleet.worker.session import SessionSettings, WorkerSession

HOST: Final = "api.example"
METADATA: Final = "http://169.254.169.254/latest/meta-data/"
RUN_ID: Final = "run-bench"
WITHIN_S: Final = 30.0
SETTLE_S: Final = 1.0
_POLICY: Final = """\
version: 1
name: bench
rules:
  - {{id: api, hosts: [api.example], ports: [{port}], methods: [POST], private: [127.0.0.0/8]}}
profiles:
  bench: [api]
violations:
  quarantine: [metadata_target]
"""


@dataclass(frozen=True, slots=True)
class Latency:
    """One round, in milliseconds after the violating request was about to be written."""

    refused_ms: float
    last_byte_ms: float
    cut_ms: float
    quarantined_ms: float
    told_ms: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Round:
    """What one round needs: a running installation, a lease in it, and the server."""

    running: Embedded
    session: WorkerSession
    credential: str
    upstream: asyncio.subprocess.Process
    upstream_port: int

    def talk(self, tunnels: int) -> str:
        """What the talking program is told: together 200 chunks a second."""
        return json.dumps(
            {
                "proxy": self.running.proxy.address,
                "authority": f"{HOST}:{self.upstream_port}",
                "name": HOST,
                "ca_file": self.running.note.ca_file,
                "credential": self.credential,
                "tunnels": tunnels,
                "every_ms": 5 * tunnels,
            }
        )

    async def arrived(self) -> dict[str, int]:
        """What the server has got since it was last asked."""
        assert self.upstream.stdin is not None
        self.upstream.stdin.write(b"\n")
        found: dict[str, int] = json.loads(await line_of(self.upstream))
        return found

    async def violate(self, talkers: asyncio.subprocess.Process) -> Latency:
        head = f"GET {METADATA} HTTP/1.1\r\nHost: 169.254.169.254\r\n{self.credential}\r\n"
        reader, writer = await asyncio.open_connection(*self.running.proxy.address)
        await self.arrived()
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
            told = group.create_task(self._told())
            await asyncio.sleep(0)
            began, began_wall = time.monotonic_ns(), now_unix_ms()
            writer.write(head.encode())
            status = await reader.readline()
            refused = time.monotonic_ns()
        if b"403 Palyra: egress.metadata_target" not in status:
            raise RuntimeError(f"not the refusal that was expected: {status!r}")
        writer.close()
        ended: dict[str, int] = json.loads(await line_of(talkers))
        got = await self.arrived()
        (worker,) = await self.running.fleet.workers()
        if worker.quarantined_at_unix_ms is None:
            raise RuntimeError("the worker was told, and is not quarantined")
        return Latency(
            refused_ms=(refused - began) / 1e6,
            last_byte_ms=max(0, got["last_byte_ns"] - began) / 1e6,
            cut_ms=(ended["last_end_ns"] - began) / 1e6,
            quarantined_ms=float(worker.quarantined_at_unix_ms - began_wall),
            told_ms=(told.result() - began) / 1e6,
            bytes=got["bytes"],
        )

    async def _told(self) -> int:
        await self.session.stopped
        return time.monotonic_ns()


async def one_round(
    tunnels: int, upstream: asyncio.subprocess.Process, upstream_port: int, ca: UpstreamCa
) -> Latency:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        policy, hosts = directory / "policy.yaml", directory / "hosts"
        policy.write_text(_POLICY.format(port=upstream_port))
        hosts.write_text(f"127.0.0.1 {HOST}\n")
        installation = Installation(Home(directory / "home"))
        settings = EmbeddedSettings(
            policy,
            hosts_file=hosts,
            extra_roots_file=ca.ca_file,
            caps=replace(CAPS, connections_per_worker=tunnels + 1),
        )
        async with embedded(installation, settings) as running:
            worker_id = str(ULID())
            launcher = Launcher(SigningKey.load(installation.launcher_key))
            session = SessionSettings(
                fleet=installation.home.socket_path,
                proxy_address=running.note.proxy,
                launcher=launcher,
                identity=WorkerIdentity(worker_id, f"bench:{worker_id}"),
            )
            measured = measure(sys.executable)
            await _approve(running, measured)
            async with await WorkerSession.open(session, measured) as worker:
                lease = await _lease(worker, directory)
                made = Round(running, worker, _credential(lease), upstream, upstream_port)
                program = Path(__file__).with_name("talkers.py")
                async with started(sys.executable, program, made.talk(tunnels), core=1) as talkers:
                    await line_of(talkers, "ready")
                    await asyncio.sleep(SETTLE_S)
                    return await made.violate(talkers)


async def _approve(running: Embedded, measured: Measurement) -> None:
    """Accept what was measured, and grant it one run."""
    values = ReferenceValues(
        image_digests_sha256=(measured.image_digest_sha256,),
        build_digests_sha256=(measured.build_digest_sha256,),
        artifact_digests_sha256=(measured.artifact.digest_sha256,),
    )
    await running.fleet.add_reference_values("bench", values)
    grant = GrantRequest(
        run_id=RUN_ID, tool_name="bench", principal="bench", egress_profile="bench", ttl_ms=600_000
    )
    await running.fleet.create_grant("bench", grant)


async def _lease(worker: WorkerSession, directory: Path) -> LeaseAnswer:
    workspace = directory / "workspace"
    workspace.mkdir()
    scope = WorkspaceScopeModel(
        workspace_root=str(workspace), allowed_paths=(str(workspace),), read_only=False
    )
    lease = await worker.take_lease(RUN_ID, scope, 300_000)
    await worker.start_lease()
    return lease


def _credential(lease: LeaseAnswer) -> str:
    basic = base64.b64encode(f"{lease.lease_id}:{lease.egress_secret}".encode()).decode()
    return f"Proxy-Authorization: Basic {basic}\r\n"


async def run(rounds: int, sizes: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    """Every round of every size; sizes take turns."""
    found: dict[str, list[dict[str, float]]] = {str(size): [] for size in sizes}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        ca = UpstreamCa.create(Path(name))
        program = Path(__file__).with_name("upstream.py")
        async with started(sys.executable, program, ca.issue(HOST), core=1) as upstream:
            port = json.loads(await line_of(upstream))["tls"]
            for _ in range(rounds):
                for size in sizes:
                    found[str(size)].append(asdict(await one_round(size, upstream, port, ca)))
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: with few rounds the 99th is the greatest."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(found: dict[str, list[dict[str, float]]]) -> str:
    columns = {
        "refused_ms": "refusal read",
        "last_byte_ms": "last byte out",
        "cut_ms": "last one cut",
        "quarantined_ms": "fleet has it",
        "told_ms": "worker told",
    }
    lines = [f"{'ms, p50 / p99':16}" + "".join(f"{title:>18}" for title in columns.values())]
    for size, rounds in found.items():
        cells = ""
        for column in columns:
            values = [one[column] for one in rounds]
            shown = f"{statistics.median(values):.1f} / {percentile(values, 0.99):.1f}"
            cells += f"{shown:>18}"
        lines.append(f"{size + ' tunnels':16}{cells}")
    lines.append(f"{len(next(iter(found.values())))} rounds of each")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tunnels", type=int, nargs="+", default=[1, 50, 500], metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args(arguments)
    if min(given.tunnels) < 1:
        parser.error("there must be at least one tunnel")
    found = asyncio.run(run(given.rounds, given.tunnels))
    print(json.dumps(found, indent=2) if given.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
