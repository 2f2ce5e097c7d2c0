"""How fast a violation ends a worker's egress, with 1, 50 and 500 live tunnels of that worker.

The installation (`palyra-egress up`) is one program on one core; the worker's connections, each in
the middle of an upload, and the server they lead to are programs of their own on the other, and so
is this one, which holds the worker's lease. It asks for the metadata address. Times are in
milliseconds: until the verdict (which the audit log has in whole milliseconds), until its refusal
was read, until the last byte of all the others reached the server, until the server and the worker
saw the last of them end, until the fleet had the worker quarantined, durably (a whole millisecond
of the fleet's clock), and until the worker's own order stream said so, all from the moment before
that request is written; and from the verdict to the last byte. `bytes` is what arrived at the
server meanwhile. Another worker asks for 1 KiB at a time, all the while: the slowest of its answers
is what the sweep and its unwinding cost the others. Each round has an installation of its own.
"""

import argparse
import asyncio
import base64
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from contenders import BIN, PROXY_CORE, line_of, started, with_all_descriptors
from ulid import ULID
from upstream import BODY_BYTES

from palyra_egress.clock import now_unix_ms
from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.installation import EgressNote, Installation
from palyra_fleet.cli.place import Home
from palyra_fleet.client import OperatorClient
from palyra_fleet.tasks import spawn
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
WITHIN_S: Final = 30.0
OPEN_WITHIN_S: Final = 60.0
OPEN_ONE_WITHIN_S: Final = 0.1
SETTLE_S: Final = 1.0
CHUNKS_PER_S: Final = 400
_POLICY: Final = """\
version: 1
name: bench
rules:
  - {{id: api, hosts: [api.example], ports: [{tls}], methods: [POST], private: [127.0.0.0/8]}}
  - id: plain
    hosts: [api.example]
    schemes: [http]
    ports: [{plain}]
    methods: [GET]
    private: [127.0.0.0/8]
profiles:
  bench: [api, plain]
violations:
  quarantine: [metadata_target]
"""


@dataclass(frozen=True, slots=True)
class Latency:
    """One round, in milliseconds after the violating request was about to be written; `stopped_ms`
    after the verdict. 0 for the last byte when none came. `others_ms` is the slowest answer that
    another worker got until all was over."""

    decided_ms: float
    refused_ms: float
    last_byte_ms: float
    stopped_ms: float
    server_end_ms: float
    cut_ms: float
    quarantined_ms: float
    told_ms: float
    others_ms: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Running:
    """An installation in a program of its own."""

    installation: Installation
    note: EgressNote
    operator: OperatorClient

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.note.proxy.rpartition(":")
        return host, int(port)

    def decided_at(self, decision_id: str) -> int:
        """When the verdict was released, in Unix milliseconds."""
        for line in Path(self.note.audit_file).read_text().splitlines():
            entry = json.loads(line)
            if entry.get("decision_id") == decision_id:
                return int(entry["at_unix_ms"])
        raise RuntimeError("the audit log does not hold the refusal")


@dataclass(frozen=True, slots=True)
class Round:
    """What one round needs: a running installation, two leases in it, and the server."""

    running: Running
    session: WorkerSession
    credential: str
    others_credential: str
    upstream: asyncio.subprocess.Process
    ports: dict[str, int]

    def talk(self, tunnels: int) -> str:
        """What the talking program is told."""
        return json.dumps(
            {
                "proxy": self.running.address,
                "authority": f"{HOST}:{self.ports['tls']}",
                "name": HOST,
                "ca_file": self.running.note.ca_file,
                "credential": self.credential,
                "tunnels": tunnels,
                "every_ms": 1000 * tunnels / CHUNKS_PER_S,
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
        reader, writer = await asyncio.open_connection(*self.running.address)
        await self.arrived()
        answers_ms: list[float] = []
        other = spawn(self._ask_all_the_while(answers_ms), "ask all the while")
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
            told = group.create_task(self._told())
            await asyncio.sleep(0)
            began, began_wall = time.monotonic_ns(), now_unix_ms()
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            refused = time.monotonic_ns()
        if b"403 Palyra: egress.metadata_target" not in answer:
            raise RuntimeError(f"not the refusal that was expected: {answer!r}")
        writer.close()
        ended: dict[str, int] = json.loads(await line_of(talkers))
        await asyncio.sleep(SETTLE_S)
        other.cancel()
        got = await self.arrived()
        workers = await self.running.operator.workers()
        (at,) = (at for w in workers if (at := w.quarantined_at_unix_ms) is not None)
        decided_wall = self.running.decided_at(_decision_in(answer))
        decided_ms = float(max(0, decided_wall - began_wall))
        last_byte_ms = max(0, got["last_byte_ns"] - began) / 1e6
        return Latency(
            decided_ms=decided_ms,
            refused_ms=(refused - began) / 1e6,
            last_byte_ms=last_byte_ms,
            stopped_ms=max(0.0, last_byte_ms - decided_ms),
            server_end_ms=max(0, got["last_end_ns"] - began) / 1e6,
            cut_ms=(ended["last_end_ns"] - began) / 1e6,
            quarantined_ms=float(at - began_wall),
            told_ms=(told.result() - began) / 1e6,
            others_ms=max(answers_ms),
            bytes=got["bytes"],
        )

    async def _ask_all_the_while(self, answers_ms: list[float]) -> None:
        """What another worker waits for its answers, one after the other on one connection."""
        authority = f"{HOST}:{self.ports['plain']}"
        asked = f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
        reader, writer = await asyncio.open_connection(*self.running.address)
        while True:
            began = time.monotonic_ns()
            writer.write(f"{asked}{self.others_credential}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"another worker was not answered: {head!r}")
            await reader.readexactly(BODY_BYTES)
            answers_ms.append((time.monotonic_ns() - began) / 1e6)

    async def _told(self) -> int:
        await self.session.stopped
        return time.monotonic_ns()


def _decision_in(answer: bytes) -> str:
    _, _, behind = answer.lower().partition(b"x-palyra-decision:")
    return behind.split(b"\r\n", 1)[0].strip().decode().upper()


@asynccontextmanager
async def installation_in(
    directory: Path, ports: dict[str, int], ca: UpstreamCa, tunnels: int
) -> AsyncIterator[Running]:
    """`palyra-egress up`, until the block ends."""
    policy, hosts = directory / "policy.yaml", directory / "hosts"
    policy.write_text(_POLICY.format(**ports))
    hosts.write_text(f"127.0.0.1 {HOST}\n")
    home = Home(directory / "home")
    async with started(
        *(BIN / "palyra-egress", "up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        *("--policy", policy, "--hosts-file", hosts, "--extra-roots", ca.ca_file),
        *("--max-connections-per-worker", str(tunnels + 1)),
        core=PROXY_CORE,
        environment={**os.environ, "PALYRA_HOME": str(home.directory)},
    ) as up:
        await line_of(up, "Ctrl-C")
        token = home.token_file.read_text().strip()
        operator = OperatorClient(home.admin_url_file.read_text().strip(), token)
        installation = Installation(home)
        try:
            yield Running(installation, EgressNote.read(installation.note), operator)
        finally:
            await operator.close()


async def one_round(
    tunnels: int, upstream: asyncio.subprocess.Process, ports: dict[str, int], ca: UpstreamCa
) -> Latency:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        async with (
            installation_in(directory, ports, ca, tunnels) as running,
            a_lease(running, directory, "bad") as (session, lease),
            a_lease(running, directory, "other") as (_, others_lease),
        ):
            credentials = _credential(lease), _credential(others_lease)
            made = Round(running, session, *credentials, upstream, ports)
            program = Path(__file__).with_name("talkers.py")
            async with started(sys.executable, program, made.talk(tunnels), core=1) as talkers:
                await line_of(talkers, "ready", OPEN_WITHIN_S + tunnels * OPEN_ONE_WITHIN_S)
                await asyncio.sleep(SETTLE_S)
                return await made.violate(talkers)


@asynccontextmanager
async def a_lease(
    running: Running, directory: Path, name: str
) -> AsyncIterator[tuple[WorkerSession, LeaseAnswer]]:
    """A registered worker with the lease of a run of its own."""
    worker_id, run_id = str(ULID()), f"run-{name}"
    session = SessionSettings(
        fleet=running.installation.home.socket_path,
        proxy_address=running.note.proxy,
        launcher=Launcher(SigningKey.load(running.installation.launcher_key)),
        identity=WorkerIdentity(worker_id, f"bench:{worker_id}"),
    )
    measured = measure(sys.executable)
    await _approve(running, measured, run_id)
    workspace = directory / name
    workspace.mkdir()
    scope = WorkspaceScopeModel(
        workspace_root=str(workspace), allowed_paths=(str(workspace),), read_only=False
    )
    async with await WorkerSession.open(session, measured) as worker:
        lease = await worker.take_lease(run_id, scope, 300_000)
        await worker.start_lease()
        yield worker, lease


async def _approve(running: Running, measured: Measurement, run_id: str) -> None:
    """Accept what was measured, and grant it one run."""
    values = ReferenceValues(
        image_digests_sha256=(measured.image_digest_sha256,),
        build_digests_sha256=(measured.build_digest_sha256,),
        artifact_digests_sha256=(measured.artifact.digest_sha256,),
    )
    await running.operator.add_reference_values(values)
    grant = GrantRequest(
        run_id=run_id, tool_name="bench", principal="bench", egress_profile="bench", ttl_ms=600_000
    )
    await running.operator.create_grant(grant)


def _credential(lease: LeaseAnswer) -> str:
    basic = base64.b64encode(f"{lease.lease_id}:{lease.egress_secret}".encode()).decode()
    return f"Proxy-Authorization: Basic {basic}\r\n"


async def run(rounds: int, sizes: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    """Every round of every size; sizes take turns."""
    with_all_descriptors()
    found: dict[str, list[dict[str, float]]] = {str(size): [] for size in sizes}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        ca = UpstreamCa.create(Path(name))
        program = Path(__file__).with_name("upstream.py")
        async with started(
            sys.executable, program, ca.issue(HOST), "--watch-ends", core=1
        ) as upstream:
            ports = json.loads(await line_of(upstream))
            for _ in range(rounds):
                for size in sizes:
                    found[str(size)].append(asdict(await one_round(size, upstream, ports, ca)))
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: with few rounds the 99th is the greatest."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(found: dict[str, list[dict[str, float]]]) -> str:
    columns = {
        "decided_ms": "verdict",
        "refused_ms": "refusal read",
        "last_byte_ms": "last byte out",
        "stopped_ms": "since verdict",
        "server_end_ms": "server end",
        "cut_ms": "last one cut",
        "quarantined_ms": "fleet has it",
        "told_ms": "worker told",
        "others_ms": "others' slowest",
    }
    lines = [f"{'ms, p50 / p99':16}" + "".join(f"{title:>16}" for title in columns.values())]
    for size, rounds in found.items():
        cells = ""
        for column in columns:
            values = [one[column] for one in rounds]
            shown = f"{statistics.median(values):.1f} / {percentile(values, 0.99):.1f}"
            cells += f"{shown:>16}"
        lines.append(f"{size + ' tunnels':16}{cells}")
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    lines.append(f"{len(next(iter(found.values())))} rounds of each; load average {load}")
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
