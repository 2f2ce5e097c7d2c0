"""A real `mitmdump` process with the script loaded, a server behind it, and a live view."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.free_port import free_port
from tests.fakes.proxy_harness import Reply, basic, binding, read_reply
from tests.fakes.upstream import RecordingUpstream, recording_upstream
from tests.fakes.view_server import view_server

SCRIPT = Path(__file__).parents[2] / "addons" / "palyra_egress_addon.py"
MITMDUMP = Path(sys.executable).with_name("mitmdump")
READY_WITHIN_S = 60.0
POLICY = """\
version: 1
name: test
rules:
  - id: plain
    hosts: [plain.example]
    schemes: [http]
    ports: [{port}]
    private: [127.0.0.1/32]
profiles:
  test: [plain]
"""


@dataclass
class Mitmdump:
    port: int
    script: Path
    upstream: RecordingUpstream
    process: asyncio.subprocess.Process
    said_file: Path

    @property
    def said(self) -> str:
        """What mitmdump has printed so far."""
        return self.said_file.read_text()

    async def ask(self, path: str, credentials: str | None) -> Reply | None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        authority = f"plain.example:{self.upstream.port}"
        header = f"Proxy-Authorization: {credentials}\r\n" if credentials else ""
        try:
            writer.write(
                f"GET http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n"
                f"{header}\r\n".encode()
            )
            return await read_reply(reader)
        finally:
            writer.close()

    async def until_ready(self) -> None:
        """Ask until the view has been heard."""
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                try:
                    reply = await self.ask("/ready", basic())
                except OSError:
                    reply = None
                if reply is not None and reply.status == 200:
                    break
                assert self.process.returncode is None, "mitmdump ended"
                await asyncio.sleep(0.1)
        self.upstream.received.clear()


@asynccontextmanager
async def mitmdump(
    tmp_path: Path, *extra: str, without: str | None = None
) -> AsyncIterator[Mitmdump]:
    script = tmp_path / SCRIPT.name
    shutil.copy(SCRIPT, script)
    (tmp_path / "hosts").write_text("127.0.0.1 plain.example\n")
    with tempfile.TemporaryDirectory(prefix="view-") as sockets:
        fleet = Path(sockets) / "fleet.sock"
        async with recording_upstream() as upstream, view_server(fleet, (binding(),)):
            (tmp_path / "policy.yaml").write_text(POLICY.format(port=upstream.port))
            port = free_port()
            options = {
                "confdir": tmp_path / "confdir",
                "palyra_state_dir": tmp_path / "state",
                "palyra_policy": tmp_path / "policy.yaml",
                "palyra_fleet_socket": fleet,
                "palyra_proxy_id": "proxy-script",
                "palyra_hosts_file": tmp_path / "hosts",
            }
            sets = [
                word for k, v in options.items() if k != without for word in ("--set", f"{k}={v}")
            ]
            said = tmp_path / "said"
            with said.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *(str(MITMDUMP), "--listen-host", "127.0.0.1", "-p", str(port)),
                    *(*extra, "-s", str(script), *sets),
                    stdout=output,
                    stderr=output,
                    env={**os.environ, "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"},
                )
            try:
                yield Mitmdump(port, script, upstream, process, said)
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        async with asyncio.timeout(60):
                            await process.wait()
                    except TimeoutError:
                        process.kill()
                        await process.wait()
