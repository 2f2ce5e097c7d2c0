"""`--isolate` without root, by both commands: installation, launcher and worker are an ordinary
account's, that no file of accounts knows; and real programs that go around the proxy are heard by
nobody.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.installation import EgressNote
from tests.e2e import visitor
from tests.e2e.place import FLEET, Place
from tests.e2e.programs import Finished, programs
from tests.e2e.test_isolate import WHY_NOT
from tests.e2e.upstreams import API, HOSTS, upstreams
from tests.fakes.ordinary_account import ordinary_account

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

MANY_PROGRAMS_S = 120.0
VISITOR = Path(visitor.__file__).read_text()
NODE_TCP = "fetch(process.argv[1]).then(() => 0, () => process.exit(1))"
NODE_UDP = """
const socket = require("dgram").createSocket(process.argv[1]);
socket.send("x", process.argv[2], process.argv[3], (error) => process.exit(error ? 1 : 0));
"""
SEND = """
import socket, sys
family, kind = int(sys.argv[1]), int(sys.argv[2])
with socket.socket(family, kind) as sender:
    sender.settimeout(3)
    sender.connect((sys.argv[3], int(sys.argv[4])))
    sender.send(b"x")
    sender.recv(1)
"""
RAW = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)"


@dataclass(slots=True)
class Heard:
    """Listeners of the machine outside, and which of them were reached."""

    ports: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    async def listen(self, host: str, open_ones: AsyncExitStack) -> None:
        server = await asyncio.start_server(partial(self._tcp, host), host, 0)
        await open_ones.enter_async_context(server)
        self.ports[host] = server.sockets[0].getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            partial(Datagrams, self, host), (host, self.ports[host])
        )
        open_ones.callback(transport.close)

    async def _tcp(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.names.append(f"tcp {host}")
        with suppress(OSError):
            await reader.read(1)
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
            await writer.drain()
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, heard: Heard, host: str) -> None:
        self._heard, self._host = heard, host

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._heard.names.append(f"udp {self._host}")
        self._transport.sendto(data[:2] + b"\x81\x05" + data[4:], addr)


@pytest.fixture
async def heard() -> AsyncIterator[Heard]:
    found = Heard()
    async with AsyncExitStack() as open_ones:
        for host in ("127.0.0.1", "::1"):
            with suppress(OSError):  # IPv6 may be off
                await found.listen(host, open_ones)
        yield found


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """An installation of an ordinary account."""
    with ordinary_account() as account:
        directory, project = account.directory / "installation", account.directory / "project"
        directory.mkdir()
        project.mkdir()
        ca = UpstreamCa.create(directory / "upstream")
        async with (
            upstreams(ca.server_context(*HOSTS), directory / "git") as served,
            programs(account.prefix) as registry,
        ):
            nameless = dict.fromkeys(("USER", "LOGNAME", "LNAME", "USERNAME"), "")
            found = Place(directory, registry, served, ca, account.environment() | nameless)
            account.owns(directory, project, found.policy_file, found.hosts_file)
            yield found


def around(heard: Heard) -> list[list[str]]:
    """Real programs, each told to use no proxy."""
    commands: list[list[str]] = [["raw socket", sys.executable, "-c", RAW]]
    for host, port in heard.ports.items():
        url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        family, node = ("10", "udp6") if ":" in host else ("2", "udp4")
        dig = ("dig", "+time=1", "+tries=1", "-p", str(port), f"@{host}", "leak.example")
        commands += [
            [f"curl {host}", "curl", "-sS", "-g", "--noproxy", "*", "--max-time", "3", url],
            [f"wget {host}", "wget", "-q", "--no-proxy", "-T", "3", "-t", "1", "-O", "-", url],
            [f"fetch {host}", "node", "-e", NODE_TCP, url],
            [f"dgram {host}", "node", "-e", NODE_UDP, node, str(port), host],
            [f"dig {host}", *dig],
            [f"dig over TCP {host}", *dig, "+tcp"],
            [f"ping {host}", "ping", "-6" if ":" in host else "-4", "-c", "1", "-W", "1", host],
            [f"tcp {host}", sys.executable, "-c", SEND, family, "1", host, str(port)],
            [f"udp {host}", sys.executable, "-c", SEND, family, "2", host, str(port)],
        ]
    return [command for command in commands if shutil.which(command[1])]


def got_nowhere(done: Finished, commands: list[list[str]]) -> None:
    """Each program failed. Node's datagrams are sent into nothing, which is no error to it."""
    assert done.code == 0, done.said
    codes = json.loads(done.out)
    assert set(codes) == {name for name, *_ in commands}
    through = {name for name, code in codes.items() if code == 0}
    assert {name for name in through if not name.startswith("dgram")} == set(), done.said


async def test_real_programs_of_an_ordinary_account_get_nowhere_but_through_the_proxy(
    place: Place, heard: Heard, curl: str
) -> None:
    await place.up()
    visit, commands = (sys.executable, "-c", VISITOR), around(heard)
    outside = await place.programs.finished(
        *visit, json.dumps(commands), environment=place.environment, within_s=MANY_PROGRAMS_S
    )
    assert outside.code == 0, outside.said
    every = {f"{kind} {host}" for kind in ("tcp", "udp") for host in heard.ports}
    assert set(heard.names) == every, "the check can fail: outside, all of it is heard"
    heard.names.clear()

    through = ["through", curl, "-sS", "--fail", place.upstreams.url(API, "/open/thing")]
    program = await place.run(
        *("api-isolated", *visit, json.dumps([*commands, through])),
        options=("--isolate",),
        directory=place.directory.parent / "project",
    )
    code = await program.ended(MANY_PROGRAMS_S)
    done = Finished(code, program.out.text, program.err.text)
    codes = json.loads(done.out)
    assert codes.pop("through") == 0, done.said
    got_nowhere(Finished(done.code, json.dumps(codes), done.err), commands)
    assert heard.names == []
    assert [str(request) for request in place.upstreams.seen] == [f"GET {API}/open/thing"]

    done = await fleets_own_command(place, *visit, json.dumps(commands[:1] + commands[-2:]))
    got_nowhere(done, commands[:1] + commands[-2:])
    assert heard.names == []
    levels = [event.detail["binding_level"] for event in await place.events("worker.registered")]
    assert levels == ["enforced", "enforced"]


async def fleets_own_command(place: Place, *program: str) -> Finished:
    """`palyra-fleet worker run --isolate` in the same installation."""
    note = EgressNote.read(place.home / "egress.json")
    granted = ("--tool", "python", "--principal", "tests", "--profile", "api-isolated")
    made = await place.fleet("grant", "create", "run-2", *granted)
    assert made.code == 0, made.said
    return await place.programs.finished(
        *(FLEET, "worker", "run", "--isolate", "--hide", place.home, "--run-id", "run-2"),
        *("--socket", note.fleet_socket, "--proxy", note.proxy),
        *("--launcher-key", note.launcher_key),
        *("--ca", note.ca_file, "--ca-bundle", note.bundle_file),
        *("--", *program),
        environment=place.worker_environment,
        within_s=MANY_PROGRAMS_S,
        directory=place.directory.parent / "project",
    )
