"""One installation under test: its home, policy and upstreams, and the real commands on it.

`Place` knows how to call the console scripts of this environment with PALYRA_HOME set; nothing in
it reaches into the programs. What a worker's program inherits is made hostile on purpose
(`HOSTILE`): left-over proxy and CA settings that would break it or lead around the proxy.
"""

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.client import OperatorClient
from palyra_fleet.wire.models import EventView, ViolationView, WorkerView
from tests.e2e.programs import Finished, Program, Programs
from tests.e2e.upstreams import HOSTS, Upstreams
from tests.fakes.proxy_harness import Reply, read_reply

BIN = Path(sys.executable).parent
EGRESS, FLEET = BIN / "palyra-egress", BIN / "palyra-fleet"
PUPPET = Path(__file__).with_name("puppet.py")
FREE = "127.0.0.1:0"
METADATA_URL = "http://169.254.169.254/latest/meta-data/"
VIOLATE = f"import urllib.request; urllib.request.urlopen({METADATA_URL!r})"
"""A worker's program that the policy below quarantines."""
POLICY = """\
version: 1
name: e2e
rules:
  - id: api
    hosts: [api.example]
    ports: [{port}]
    methods: [GET]
    paths: [/open/**]
    private: [127.0.0.1/32]
  - id: git
    hosts: [git.example]
    ports: [{port}]
    methods: [GET, POST]
    private: [127.0.0.1/32]
  - id: packages
    hosts: [packages.example]
    ports: [{port}]
    methods: [GET, HEAD]
    private: [127.0.0.1/32]
profiles:
  api: [api]
  api-net: {{rules: [api], requires: {{capabilities: [net]}}}}
  api-isolated: {{rules: [api], requires: {{binding_level: enforced}}}}
  git: [git]
  packages: [packages]
violations:
  quarantine: [metadata_target, private_target]
"""
_NOWHERE = "/nonexistent/ca.pem"
_ELSEWHERE = "http://127.0.0.1:9"
HOSTILE = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), _ELSEWHERE),
    **dict.fromkeys(("ALL_PROXY", "all_proxy", "PIP_PROXY"), _ELSEWHERE),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "*"),
    **dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), _NOWHERE),
    **dict.fromkeys(("PIP_CERT", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"), _NOWHERE),
}


@dataclass(frozen=True, slots=True)
class Running:
    """A running `up`: its process and where it listens."""

    program: Program
    proxy: str
    admin_url: str


@dataclass(slots=True)
class Place:
    """The files of one installation and the programs that use them."""

    directory: Path
    programs: Programs
    upstreams: Upstreams
    ca: UpstreamCa
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy_file.write_text(POLICY.format(port=self.upstreams.port))
        self.hosts_file.write_text(f"127.0.0.1 {' '.join(HOSTS)}\n")

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def policy_file(self) -> Path:
        return self.directory / "policy.yaml"

    @property
    def hosts_file(self) -> Path:
        return self.directory / "hosts"

    @property
    def audit_file(self) -> Path:
        return self.home / "egress" / "audit.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PALYRA_")}
        return {**kept, "PALYRA_HOME": str(self.home), **self.extra}

    @property
    def worker_environment(self) -> dict[str, str]:
        """What `run` is called with: what a careless machine may hold."""
        kept = {k: v for k, v in self.environment.items() if not k.startswith(("PIP_", "GIT_"))}
        return {
            **kept,
            **HOSTILE,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def proxy_arguments(
        self, listen: str = FREE, policy: Path | None = None
    ) -> tuple[str | Path, ...]:
        return (
            *("--listen", listen, "--policy", policy or self.policy_file),
            *("--hosts-file", self.hosts_file, "--extra-roots", self.ca.ca_file),
        )

    def up_command(self, listen: str = FREE, admin: str = FREE) -> tuple[str | Path, ...]:
        return (EGRESS, "up", *self.proxy_arguments(listen), "--admin", admin)

    async def start_up(self, *options: str) -> Program:
        """Start `up`, and do not wait for anything."""
        command = (*self.up_command(), *options)
        return await self.programs.start(*command, environment=self.environment)

    async def up(self, *options: str) -> Running:
        """A running installation."""
        program = await self.start_up(*options)
        await program.says("Ctrl-C stops everything in order.")
        return Running(program, labelled(program, "proxy"), labelled(program, "admin API"))

    async def run(
        self, profile: str, *command: str | Path, options: tuple[str, ...] = (), **more: Any
    ) -> Program:
        """Start a program as a worker of this installation."""
        return await self.programs.start(
            *(EGRESS, "run", "--profile", profile, *options, "--", *command),
            environment=self.worker_environment,
            **more,
        )

    async def run_to_its_end(self, profile: str, *command: str | Path, **more: Any) -> Finished:
        program = await self.run(profile, *command, **more)
        code = await program.ended()
        return Finished(code, program.out.text, program.err.text)

    async def puppet(self, profile: str) -> "Puppet":
        """A worker that does what the test tells it."""
        program = await self.run(profile, sys.executable, PUPPET, with_input=True)
        return await Puppet.of(program)

    async def egress(self, *arguments: str | Path) -> Finished:
        return await self.programs.finished(EGRESS, *arguments, environment=self.environment)

    async def fleet(self, *arguments: str | Path) -> Finished:
        return await self.programs.finished(FLEET, *arguments, environment=self.environment)

    async def fleet_json(self, *arguments: str) -> Any:
        """What a command of the fleet shows as JSON."""
        done = await self.fleet(*arguments, "-o", "json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[OperatorClient]:
        """The admin API of the running installation, with the operator's token."""
        url = (self.home / "admin.url").read_text().strip()
        token = (self.home / "operator.token").read_text().strip()
        async with OperatorClient(url, token) as client:
            yield client

    async def workers(self) -> tuple[WorkerView, ...]:
        async with self.operator() as operator:
            return await operator.workers()

    async def violations(self) -> tuple[ViolationView, ...]:
        async with self.operator() as operator:
            return await operator.violations()

    async def events(self, reason: str) -> list[EventView]:
        """The fleet's events with this reason."""
        async with self.operator() as operator:
            found = await operator.events(0, 1000)
        return [event for event in found if event.reason == reason]

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_file.read_text().splitlines()]


@dataclass(slots=True)
class Puppet:
    """A worker's program under the test's control, and the proxy URL it was given."""

    program: Program
    proxy_url: str
    pid: int
    lines: int

    @classmethod
    async def of(cls, program: Program, after_lines: int = 0) -> "Puppet":
        """The puppet that begins to speak after so many lines of the program's output."""
        first = json.loads(await program.line(after_lines))
        return cls(program, first["proxy"], first["pid"], after_lines + 1)

    async def get(self, url: str) -> dict[str, Any]:
        """Have it fetch a URL; its status, if any, and what its client says."""
        self.program.write(json.dumps({"get": url}) + "\n")
        answer: dict[str, Any] = json.loads(await self.program.line(self.lines))
        self.lines += 1
        return answer

    async def exit(self, code: int) -> int:
        self.leave(code)
        return await self.program.ended()

    def leave(self, code: int) -> None:
        """End it, where the program that started it goes on."""
        self.program.write(json.dumps({"exit": code}) + "\n")

    def is_alive(self) -> bool:
        return is_alive(self.pid)


def is_alive(pid: int) -> bool:
    """Whether a process with this id is there and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def labelled(program: Program, label: str) -> str:
    """What a serving command printed after `label`."""
    lines = program.out.text.splitlines() + program.err.text.splitlines()
    (found,) = [line.removeprefix(label).strip() for line in lines if line.startswith(label)]
    return found


def proxy_authorization(proxy_url: str) -> str:
    parts = urlsplit(proxy_url)
    return "Basic " + base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()


async def ask_proxy(
    proxy: str, url: str, credentials_of: str, headers: Mapping[str, str] | None = None
) -> Reply | None:
    """One request in absolute form (http) or a CONNECT (https) to `proxy`, with the credentials in
    the proxy URL `credentials_of`. None when the connection was cut."""
    parts = urlsplit(url)
    authority = parts.netloc if parts.scheme == "https" else parts.netloc or ""
    line = f"CONNECT {authority}" if parts.scheme == "https" else f"GET {url}"
    fields = {
        "Host": authority,
        "Proxy-Authorization": proxy_authorization(credentials_of),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    address = urlsplit(proxy)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(f"{line} HTTP/1.1\r\n{head}\r\n".encode())
        return await read_reply(reader, has_body=lambda status: status != 200)
    finally:
        writer.close()
