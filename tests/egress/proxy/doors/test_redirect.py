"""Transparent mode as the kernel does it: netfilter REDIRECT in a network namespace, IPv4 and IPv6.

The programs connect to addresses where nobody is; the names that they say lead to the upstreams.
"""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.channels.settings import ChannelSettings
from palyra_egress.proxy.channels.worker_sockets import LeaseListenerSettings
from tests.fakes.netns import own_network, redirect
from tests.fakes.proxy_harness import OTHER_WORKER, WORKER, Harness, proxy_harness, read_to_end
from tests.fakes.upstream import RecordingUpstream, recording_upstream

POLICY: Final = """\
version: 1
name: redirected
rules:
  - {id: api, hosts: [api.example], private: [127.0.0.0/8]}
  - {id: passed-on, hosts: [tunnel.example], private: [127.0.0.0/8], tls: tunnel}
  - {id: plain, hosts: [plain.example], schemes: [http], private: [127.0.0.0/8]}
profiles: {test: [api, passed-on, plain]}
"""
HOSTS: Final = "127.0.0.1 api.example tunnel.example plain.example\n"
REDIRECTED_PORT: Final = 8443
SOMEWHERE: Final = {WORKER: "203.0.113.7", OTHER_WORKER: "2001:db8:1::7"}


@dataclass
class Network:
    harness: Harness
    plain: RecordingUpstream
    secure: RecordingUpstream
    roots: Path

    @property
    def worker_roots(self) -> Path:
        return self.harness.proxy.enforcement.authority.root_path

    def nothing_was_dialled(self) -> None:
        assert (self.plain.connections, self.secure.connections) == (0, 0)

    async def curl(self, url: str, ip: str, *arguments: str) -> tuple[int, str]:
        """curl that has resolved the name to an address of its own."""
        curl = shutil.which("curl")
        if curl is None:
            pytest.skip("curl is not installed here")
        host, port = url.split("/")[2], 443 if url.startswith("https") else 80
        process = await asyncio.create_subprocess_exec(
            *(curl, "-sS", "--max-time", "20", "--cacert", str(self.worker_roots)),
            *("--resolve", f"{host}:{port}:{ip}", *arguments, url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={},
        )
        out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()


@pytest.fixture
async def network(tmp_path) -> AsyncIterator[Network]:
    ca = UpstreamCa.create(tmp_path / "ca")
    listeners = LeaseListenerSettings(
        redirected={
            WORKER: ("127.0.0.1", REDIRECTED_PORT),
            OTHER_WORKER: ("::1", REDIRECTED_PORT),
        }
    )
    settings: Any = ChannelSettings(lease_listeners=listeners)
    context = ca.server_context("api.example", "tunnel.example")
    with own_network():
        async with (
            recording_upstream(port=80) as plain,
            recording_upstream(context, port=443) as secure,
            proxy_harness(
                tmp_path / "proxy", POLICY, HOSTS, ca.ca_file, channels=settings
            ) as harness,
        ):
            async with asyncio.timeout(60):
                await harness.proxy.channels.followed.wait()
            redirect(REDIRECTED_PORT)
            yield Network(harness, plain, secure, ca.ca_file)


@pytest.mark.parametrize("worker", SOMEWHERE)
async def test_curl_is_carried_without_knowing_it(network, worker):
    ip = SOMEWHERE[worker]
    for url, upstream in (
        ("https://api.example/x", network.secure),
        ("http://plain.example/x", network.plain),
    ):
        code, out = await network.curl(url, f"[{ip}]" if ":" in ip else ip)
        assert (code, out) == (0, "hello")
        assert upstream.heads == [b"GET /x HTTP/1.1"]
    written = f"[{ip}]" if ":" in ip else ip
    for entry in network.harness.verdicts():
        assert entry["worker_id"] == worker
        assert entry["headed_for"].rpartition(":")[0] == written
        assert entry["addresses"] == ["127.0.0.1"]


async def test_tls_that_is_passed_on_reaches_the_server_itself(network):
    reader, writer = await asyncio.open_connection(SOMEWHERE[WORKER], 443)
    context = ssl.create_default_context(cafile=str(network.roots))
    await writer.start_tls(context, server_hostname="tunnel.example")
    writer.write(b"GET /x HTTP/1.1\r\nHost: tunnel.example\r\n\r\n")
    assert (await read_to_end(reader, b"hello")).endswith(b"hello")
    writer.close()


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://paste.example/", 0, "egress.host_not_allowed"),
        ("https://paste.example/", 35, "access denied"),
        ("http://169.254.169.254/latest/meta-data/", 0, "egress.metadata_target"),
        ("https://203.0.113.7/", 35, "access denied"),  # no name: judged as the address it is
    ],
)
async def test_curl_sees_what_is_refused(network, url, code, said):
    got, out = await network.curl(url, SOMEWHERE[WORKER])
    assert got == code
    assert said in out
    network.nothing_was_dialled()


async def test_a_protocol_that_is_no_http_reaches_nobody(network):
    reader, writer = await asyncio.open_connection(SOMEWHERE[WORKER], 22)
    writer.write(b"\x00\x00\x00\x14ssh key exchange")
    assert await read_to_end(reader) == b""
    assert network.harness.verdicts()[-1]["reason"] == "egress.protocol_not_supported"
    network.nothing_was_dialled()
    writer.close()


async def test_a_server_that_speaks_first_is_never_heard(network):
    """SMTP and the like: the client waits for a greeting that nobody was asked for."""
    reader, writer = await asyncio.open_connection(SOMEWHERE[WORKER], 22)
    writer.write(b"EHLO worker.example\r\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await reader.read(1)
    network.nothing_was_dialled()
    writer.close()


async def test_datagrams_are_not_redirected_and_reach_nobody(network):
    """QUIC and DNS: only TCP is led to the proxy; what else leaves is for the namespace to refuse,
    and the proxy opens no datagram socket for anybody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 443))
        server.setblocking(False)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"\xc0\x00\x00\x00\x01", (SOMEWHERE[WORKER], 443))
        with pytest.raises(BlockingIOError):
            server.recv(100)
    assert network.harness.verdicts() == []
    network.nothing_was_dialled()


async def test_who_connects_to_the_listener_itself_is_refused(network):
    reader, writer = await asyncio.open_connection("127.0.0.1", REDIRECTED_PORT)
    writer.write(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n")
    assert await read_to_end(reader) == b""
    entry = network.harness.verdicts()[-1]
    assert (entry["reason"], entry["worker_id"]) == ("egress.proxy_target", WORKER)
    network.nothing_was_dialled()
    writer.close()


async def test_a_host_that_names_the_listener_is_refused(network):
    code, out = await network.curl(f"http://127.0.0.1:{REDIRECTED_PORT}/", "127.0.0.1")
    assert code != 0 or "egress." in out
    network.nothing_was_dialled()


async def test_a_worker_that_is_blocked_loses_what_is_open(network):
    reader, writer = await asyncio.open_connection(SOMEWHERE[WORKER], 80)
    writer.write(b"GET /x HTTP/1.1\r\nHost: plain.example\r\n\r\n")
    assert await reader.read(9) == b"HTTP/1.1 "
    network.harness.tell("block", worker_id=WORKER)
    assert not (await read_to_end(reader)).startswith(b"HTTP")
    writer.close()
    code, out = await network.curl("http://plain.example/y", SOMEWHERE[WORKER])
    assert "egress.quarantined" in out or code != 0
    assert network.plain.heads == [b"GET /x HTTP/1.1"]
