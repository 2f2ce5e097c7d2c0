"""The programs that a benchmark compares, started as anybody would start them.

Direct: no proxy. Stock: `mitmdump` with no addon, its own confdir, and the upstream's CA trusted.
Ours: `palyra-egress up` (proxy, fleet and admin API in one process) with a policy of two rules; the
credential belongs to a real lease, held by a program that `palyra-egress run` started.
"""

import asyncio
import base64
import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

BIN: Final = Path(sys.executable).parent
NAME: Final = "localhost"  # the one name that stock mitmdump resolves to this machine
PROXY_CORE, LOAD_CORE = 0, 1
START_WITHIN_S: Final = 60.0
_HOLDER: Final = """
import json, os, sys
print(json.dumps([os.environ["HTTPS_PROXY"], os.environ["NODE_EXTRA_CA_CERTS"]]), flush=True)
sys.stdin.read()
"""
_POLICY: Final = """\
version: 1
name: bench
rules:
  - id: plain
    hosts: [localhost]
    schemes: [http]
    ports: [{plain}]
    methods: [GET, POST]
    private: [127.0.0.0/8]
  - id: secure
    hosts: [localhost]
    ports: [{tls}]
    methods: [GET]
    private: [127.0.0.0/8]
profiles:
  bench: [plain, secure]
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """Where the load goes. `pid` is the process whose CPU time counts; None for direct."""

    name: str
    proxy: tuple[str, int] | None
    authorization: str | None
    ca_file: Path
    pid: int | None

    def cpu_seconds(self) -> float | None:
        """User and system time of the process so far, all threads."""
        if self.pid is None:
            return None
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Start programs inside this block on one core; without two cores they go anywhere."""
    before = os.sched_getaffinity(0)
    if {PROXY_CORE, LOAD_CORE} <= before:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@asynccontextmanager
async def started(
    *command: str | Path, core: int, environment: dict[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program with stdin and stdout as pipes, ended by its id when the block ends."""
    with on_core(core):
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def line_of(
    process: asyncio.subprocess.Process, prefix: str = "", within_s: float = START_WITHIN_S
) -> str:
    """The next line of stdout that starts with `prefix`. Raises EOFError when there is none."""
    assert process.stdout is not None
    async with asyncio.timeout(within_s):
        while line := await process.stdout.readline():
            text = line.decode().rstrip("\n")
            if text.startswith(prefix):
                return text
    raise EOFError(f"the program ended before it said {prefix!r}")


def direct(upstream_ca: Path) -> Contender:
    return Contender("direct", None, None, upstream_ca, None)


@asynccontextmanager
async def mitmdump(directory: Path, upstream_ca: Path) -> AsyncIterator[Contender]:
    confdir = directory / "mitmproxy"
    port = _free_port()
    async with started(
        *(BIN / "mitmdump", "-q", "--listen-host", "127.0.0.1", "--listen-port", str(port)),
        *("--set", f"confdir={confdir}"),
        *("--set", f"ssl_verify_upstream_trusted_ca={upstream_ca}"),
        core=PROXY_CORE,
    ) as process:
        await _until_listening(process, port)
        ca = confdir / "mitmproxy-ca-cert.pem"
        yield Contender("mitmdump", ("127.0.0.1", port), None, ca, process.pid)


@asynccontextmanager
async def ours(
    directory: Path, upstream_ca: Path, ports: dict[str, int]
) -> AsyncIterator[Contender]:
    async with ours_for(directory, upstream_ca, ports, workers=1) as (contender,):
        yield contender


@asynccontextmanager
async def ours_for(
    directory: Path, upstream_ca: Path, ports: dict[str, int], workers: int, *flags: str
) -> AsyncIterator[tuple[Contender, ...]]:
    """Our proxy, seen by several workers: the same address, a lease each."""
    policy, hosts = directory / "policy.yaml", directory / "hosts"
    policy.write_text(_POLICY.format(**ports))
    hosts.write_text(f"127.0.0.1 {NAME}\n")
    environment = {**os.environ, "PALYRA_HOME": str(directory / "home")}
    palyra = BIN / "palyra-egress"
    async with contextlib.AsyncExitStack() as stack:
        up = await stack.enter_async_context(
            started(
                *(palyra, "up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
                *("--policy", policy, "--hosts-file", hosts, "--extra-roots", upstream_ca),
                *flags,
                core=PROXY_CORE,
                environment=environment,
            )
        )
        await line_of(up, "Ctrl-C")
        holders = [
            await stack.enter_async_context(
                started(
                    *(palyra, "run", "--", sys.executable, "-c", _HOLDER),
                    core=LOAD_CORE,
                    environment=environment,
                )
            )
            for _ in range(workers)
        ]
        yield tuple([_held(await line_of(holder, "["), up.pid) for holder in holders])


def _held(line: str, pid: int) -> Contender:
    """What a holder of a lease says of it."""
    proxy_url, ca_file = json.loads(line)
    parts = urlsplit(proxy_url)
    credential = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    address = (str(parts.hostname), int(parts.port or 0))
    return Contender("ours", address, f"Basic {credential}", Path(ca_file), pid)


def with_all_descriptors() -> None:
    """Let this program, and those it starts, open as many files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_listening(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(START_WITHIN_S):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await writer.wait_closed()
            return
    raise EOFError("mitmdump ended before it listened")
