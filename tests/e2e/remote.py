"""Fleet, two proxies and a worker host as if on four machines: pairing, mutual TLS, real programs.

Each "machine" is a directory of its own; what they share is loopback. The proxies and the worker's
host pair with a code that an operator minted, and an operator approves them.
"""

import asyncio
import signal
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from palyra_fleet.wire.node_models import ApproveDevice, PairingCodeRequest
from tests.e2e.place import (
    EGRESS,
    FLEET,
    FREE,
    PUPPET,
    Place,
    Puppet,
    ask_proxy,
    labelled,
    proxy_authorization,
)
from tests.e2e.programs import Program
from tests.fakes.proxy_harness import LEASE, SECRET
from tests.fakes.until import until

STRANGER = f"http://{LEASE}:{SECRET}@proxy.example"


@dataclass(slots=True)
class RemotePlace:
    """Everything running. `devices` are the ids that pairing gave."""

    place: Place
    fleet: Program
    proxies: dict[str, Program] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return said(self.fleet, "other machines:")

    def proxy_url(self, name: str) -> str:
        return labelled(self.proxies[name], "proxy")

    def machine(self, name: str) -> Path:
        return self.place.directory / f"machine-{name}"

    async def pair(self, name: str, kind: str) -> str:
        """`node install` there, an operator's approval here; the device's id."""
        home = self.machine(name) / "device"
        async with self.place.operator() as operator:
            minted = await operator.mint_pairing_code(PairingCodeRequest(method="qr"))
            install = await self.place.programs.start(
                *(FLEET, "node", "install", "--kind", kind, "--home", home),
                *("--enrolment", said(self.fleet, "nodes that enrol:")),
                *("--node", said(self.fleet, "nodes:")),
                *("--ca", said(self.fleet, "the nodes' root:")),
                environment=self.place.environment,
                with_input=True,
            )
            install.write(minted.code + "\n")
            await until("the machine waits", lambda: "waiting for an operator" in install.err.text)
            (request,) = [
                one for one in await operator.pairing_requests() if one.state == "pending_approval"
            ]
            assert request.identity_fingerprint in install.err.text
            await operator.approve_device(request.approval_id, ApproveDevice(reason="it is ours"))
        assert await install.ended() == 0, install
        self.devices[name] = request.device_id
        return request.device_id

    async def start_proxy(self, name: str) -> None:
        program = await self.place.programs.start(
            *(EGRESS, "proxy", "serve", *self.place.proxy_arguments()),
            *("--state-dir", self.machine(name), "--fleet", self.url),
            environment=self.place.environment,
        )
        self.proxies[name] = program
        await program.says("worker bundle")

    async def restart_fleet(self) -> None:
        """End it in order, and start it again where it was."""
        where = urlsplit(self.url).netloc
        self.fleet.signal(signal.SIGTERM)
        assert await self.fleet.ended() == 0
        self.fleet = await start_fleet(self.place, listen=where)

    async def has_heard(self, name: str) -> bool:
        return await self.reason(name, STRANGER) == "egress.no_lease"

    async def reason(self, name: str, credentials_of: str) -> str | None:
        reply = await ask_proxy(self.proxy_url(name), "http://api.example/", credentials_of)
        return None if reply is None else reply.reason

    async def puppet(self, proxy: str, run_id: str) -> Puppet:
        """A worker on the paired host, attested through this proxy."""
        await self.place.fleet(
            *("grant", "create", run_id, "--tool", "puppet", "--principal", "tests"),
            *("--profile", "api"),
        )
        program = await self.place.programs.start(
            *(FLEET, "worker", "run", "--fleet", self.url),
            *("--device", self.machine("host") / "device"),
            *("--proxy", self.proxy_url(proxy).removeprefix("http://"), "--run-id", run_id),
            *("--ca", labelled(self.proxies[proxy], "worker CA")),
            *("--ca-bundle", labelled(self.proxies[proxy], "worker bundle")),
            *("--", sys.executable, PUPPET),
            environment=self.place.worker_environment,
            with_input=True,
        )
        return await Puppet.of(program)

    async def stream(self, proxy: str, credentials_of: str) -> "OpenStream":
        """An open tunnel through this proxy, in the middle of an endless answer."""
        address = urlsplit(self.proxy_url(proxy))
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        authority = f"api.example:{self.place.upstreams.port}"
        credentials = proxy_authorization(credentials_of)
        writer.write(
            f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
            f"Proxy-Authorization: {credentials}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.splitlines()[0], head
        context = ssl.create_default_context(cafile=labelled(self.proxies[proxy], "worker CA"))
        await writer.start_tls(context, server_hostname="api.example")
        writer.write(f"GET /open/stream HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        opened = OpenStream(reader, writer)
        assert b" 200 " in await reader.readline()
        await opened.more()
        return opened


@dataclass(slots=True)
class OpenStream:
    """Bytes that keep coming, until somebody cuts them."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def more(self) -> None:
        """Wait for some more bytes."""
        async with asyncio.timeout(60):
            assert await self.reader.read(4096)

    async def until_cut(self) -> float:
        """When the last byte came, on the loop's clock; returns once the connection is gone."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        try:
            async with asyncio.timeout(60):
                while await self.reader.read(4096):
                    last = loop.time()
        except (ConnectionError, ssl.SSLError):
            pass
        self.writer.transport.abort()
        return last


def said(program: Program, label: str) -> str:
    """What the fleet told on standard error after `label`."""
    for line in program.err.text.splitlines():
        if line.startswith(label):
            return line.removeprefix(label).strip()
    raise AssertionError(f"{label!r} was not said: {program}")


async def start_fleet(place: Place, listen: str = FREE) -> Program:
    program = await place.programs.start(
        *(FLEET, "serve", "--admin", FREE, "--nodes", "--enrolment", FREE, "--node", FREE),
        *("--listen", listen),
        environment=place.environment,
    )
    await until("the fleet serves", lambda: "operator token" in program.err.text)
    return program


async def set_up_remote(place: Place, *proxies: str) -> RemotePlace:
    """The fleet, these proxies, and a worker's host whose launcher is enrolled."""
    remote = RemotePlace(place, await start_fleet(place))
    host = await remote.pair("host", "node")
    for name in proxies:
        await remote.pair(name, "proxy")
        await remote.start_proxy(name)
    for command in (
        ("launcher", "enrol", "launcher-host", "--device", host),
        ("reference", "add", "--measure", sys.executable),
    ):
        done = await place.fleet(*command)
        assert done.code == 0, done.said
    for name in proxies:
        await until(f"proxy {name} has heard the fleet", lambda name=name: remote.has_heard(name))
    return remote
