"""Everything a worker needs around it: a served fleet, a receipt proxy, a launcher, a grant.

`Program` is a real child process that reports that it is up over a socket and then does as told.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ulid import ULID

from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import GrantRequest
from palyra_fleet.worker.launcher import Launcher, WorkerIdentity
from palyra_fleet.worker.run_settings import RunSettings
from palyra_fleet.worker.runner import run_as_worker
from palyra_fleet.worker.session import SessionSettings
from palyra_fleet.worker.timekeeper import LoopTime, Timekeeper
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.manual_time import STUCK_AFTER_S
from tests.fakes.receipt_proxy import ReceiptProxy, receipt_proxy
from tests.fakes.served_fleet import ServedFleet, served_fleet

RUN_ID = "run-1"
GRANT = GrantRequest(
    run_id=RUN_ID, tool_name="shell", principal="ops", egress_profile="default", ttl_ms=600_000
)
_UP = """
import os, signal, socket, subprocess, sys, time
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
def say(text):
    link.sendall(text.encode() + b"\\n")
def wait():
    link.recv(1)
"""


@dataclass(slots=True)
class Bench:
    fleet: ServedFleet
    proxy: ReceiptProxy
    settings: RunSettings
    home: Path
    said: list[str] = field(default_factory=list)
    lines: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    worker_id: str = ""

    @property
    def workspaces(self) -> Path:
        return self.home / "workspaces"

    @property
    def worker(self) -> FakeWorker:
        return self.fleet.service.known[self.worker_id]

    def program(self, script: str) -> list[str]:
        """A command that says it is up with `say(...)` and holds on with `wait()`."""
        return [sys.executable, "-I", "-c", _UP + script, str(self.home / "link.sock")]

    async def run(self, command: list[str], ttl_ms: int = 300_000) -> int:
        settings = replace(self.settings, ttl_ms=ttl_ms)
        return await run_as_worker(command, settings, self.said.append)

    async def heard(self) -> str:
        """The next line that the program said; fails where none comes, as of a run that ended."""
        async with asyncio.timeout(STUCK_AFTER_S):
            return await self.lines.get()


def _home_in(directory: str) -> Path:
    home = Path(directory).resolve()
    (home / "workspaces").mkdir()
    return home


@asynccontextmanager
async def bench(time: Timekeeper | None = None) -> AsyncIterator[Bench]:
    """`time` is that of the fake fleet, the proxy and the worker alike."""
    kept = time or LoopTime()
    launcher_key = SigningKey.generate()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        home = _home_in(directory)
        async with (
            served_fleet(clock=kept.wall_unix_ms) as fleet,
            receipt_proxy(fleet.proxy_key, kept.wall_unix_ms) as proxy,
        ):
            fleet.service.launchers["launcher-1"] = launcher_key.public_key
            await fleet.service.create_grant("operator", GRANT)
            worker_id = str(ULID())
            session = SessionSettings(
                fleet=fleet.socket_path,
                proxy_address=proxy.address,
                launcher=Launcher(launcher_key),
                identity=WorkerIdentity(worker_id, f"worker:{worker_id}"),
                time=kept,
            )
            settings = RunSettings(
                session=session,
                run_id=RUN_ID,
                combined_bundle=home / "bundle.pem",
                palyra_ca=home / "ca.pem",
                workspace_parent=home / "workspaces",
            )
            made = Bench(fleet, proxy, settings, home, worker_id=worker_id)
            links: set[asyncio.StreamWriter] = set()

            async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                links.add(writer)
                async for line in reader:
                    made.lines.put_nowait(line.decode().rstrip())
                writer.close()

            async with await asyncio.start_unix_server(listen, str(home / "link.sock")):
                yield made
                for link in links:
                    link.close()
