"""The enforcement inside a real `mitmdump` process, and what cannot be done to it there."""

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

import pytest

from tests.fakes.free_port import free_port
from tests.fakes.process_limits import NO_CORE_FILES, core_limit
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
HOSTILE_ADDON = """\
from mitmproxy import http
from mitmproxy.exceptions import AddonHalt

def requestheaders(flow):
    flow.request.headers.pop("proxy-authorization", None)
    raise AddonHalt()

def request(flow):
    flow.request.path = "/changed"

def next_layer(nextlayer):
    raise RuntimeError("hostile")
"""


@dataclass
class Mitmdump:
    port: int
    script: Path
    upstream: RecordingUpstream
    process: asyncio.subprocess.Process

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
            process = await asyncio.create_subprocess_exec(
                *(str(MITMDUMP), "--listen-host", "127.0.0.1", "-p", str(port)),
                *(*extra, "-s", str(script), *sets),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"},
            )
            try:
                yield Mitmdump(port, script, upstream, process)
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        async with asyncio.timeout(60):
                            await process.wait()
                    except TimeoutError:
                        process.kill()
                        await process.wait()


async def test_a_script_in_mitmdump_enforces_like_the_product(tmp_path: Path):
    async with mitmdump(tmp_path) as running:
        await running.until_ready()
        nobody = await running.ask("/a", None)
        assert nobody is not None and (nobody.status, nobody.reason) == (407, "egress.no_identity")
        assert running.upstream.received == b""
        allowed = await running.ask("/b", basic())
        assert allowed is not None and allowed.status == 200
        assert running.upstream.heads == [b"GET /b HTTP/1.1"]


async def test_a_script_in_mitmdump_leaves_no_core_file(tmp_path: Path):
    async with mitmdump(tmp_path) as running:
        await running.until_ready()
        assert core_limit(running.process.pid) in NO_CORE_FILES


@pytest.mark.parametrize("deed", ["edited", "broken", "deleted"])
async def test_a_script_that_is_edited_broken_or_deleted_opens_nothing(tmp_path: Path, deed: str):
    async with mitmdump(tmp_path) as running:
        await running.until_ready()
        match deed:
            case "edited":
                running.script.write_text(running.script.read_text() + "\n# edited\n")
            case "broken":
                running.script.write_text("this is not Python\n")
            case _:
                running.script.unlink()
        for _ in range(25):  # mitmdump looks at its scripts once a second
            nobody = await running.ask("/a", None)
            assert nobody is None or nobody.status == 407
            await asyncio.sleep(0.1)
        assert running.upstream.received == b""
        allowed = await running.ask("/b", basic())
        assert allowed is None or allowed.status == 200


async def test_a_hostile_addon_before_ours_gets_nothing_through(tmp_path: Path):
    hostile = tmp_path / "hostile.py"
    hostile.write_text(HOSTILE_ADDON)
    async with mitmdump(tmp_path, "-s", str(hostile)) as running:
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                try:
                    reply = await running.ask("/a", basic())
                except OSError:
                    await asyncio.sleep(0.1)
                    continue
                if reply is not None and reply.status == 407:
                    break
                await asyncio.sleep(0.1)
        assert running.upstream.connections == 0


async def test_without_its_settings_mitmdump_stops_instead_of_forwarding(tmp_path: Path):
    async with mitmdump(tmp_path, without="palyra_policy") as running:
        async with asyncio.timeout(READY_WITHIN_S):
            await running.process.wait()
        assert running.upstream.connections == 0


async def test_a_source_of_secrets_that_cannot_work_stops_mitmdump_too(tmp_path: Path):
    half = ("--set", "palyra_kv_url=https://vault.example")
    async with mitmdump(tmp_path, *half) as running:
        async with asyncio.timeout(READY_WITHIN_S):
            await running.process.wait()
        assert running.upstream.connections == 0


async def test_secrets_are_set_up_by_options(tmp_path: Path):
    token = tmp_path / "kv-token"
    token.write_text("hvs.token-of-the-test")
    token.chmod(0o600)
    chosen = {
        "palyra_secrets_dir": tmp_path,
        "palyra_secret_env": "ONE, TWO",
        "palyra_kv_url": "http://127.0.0.1:9",
        "palyra_kv_token_file": token,
        "palyra_kv_v1_mounts": "old",
    }
    sets = [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
    async with mitmdump(tmp_path, *sets) as running:
        await running.until_ready()
