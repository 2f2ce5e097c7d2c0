"""A real egress proxy on loopback with a hand-fed fleet view, for tests over real sockets.

The proxy is the product's own (`EgressProxy.start`); only the fleet's stream is replaced: the test
applies the view messages itself. Names resolve through a hosts file to loopback, which the policies
of these tests allow with `private`.
"""

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from palyra_egress.clock import now_monotonic_ms, now_unix_ms
from palyra_egress.credentials.binding import SecretLookup
from palyra_egress.proxy.bounds.deadlines import DEADLINES, Deadlines
from palyra_egress.proxy.core import NO_SECRETS
from palyra_egress.proxy.egress_proxy import EgressProxy
from palyra_egress.proxy.guard.guard import ConnectionGuard
from palyra_egress.proxy.handler import AddonChain, EnforcingHandler, GuardFactory
from palyra_egress.proxy.settings import ProxySettings
from palyra_fleet.wire.view_models import AttestedFacts, Binding, ViewMessage

WORKER = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
LEASE = "01ARZ3NDEKTSV4RRFFQ69G5FAW"
OTHER_WORKER = "01BX5ZZKBKACTAV9WEVGEMMVRZ"
OTHER_LEASE = "01BX5ZZKBKACTAV9WEVGEMMVS0"
SECRET = "s" * 43
OTHER_SECRET = "o" * 43


def binding(
    worker: str = WORKER,
    lease: str = LEASE,
    secret: str = SECRET,
    profile: str = "test",
    fence: int = 1,
    lives_ms: int = 3_600_000,
    facts: AttestedFacts | None = None,
) -> Binding:
    return Binding(
        worker_id=worker,
        lease_id=lease,
        run_id="run-1",
        fence=fence,
        egress_profile=profile,
        egress_secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
        expires_at_unix_ms=now_unix_ms() + lives_ms,
        facts=facts or AttestedFacts(),
    )


def basic(lease: str = LEASE, secret: str = SECRET) -> str:
    return "Basic " + base64.b64encode(f"{lease}:{secret}".encode()).decode()


@dataclass
class Reply:
    """An HTTP answer as the worker saw it."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        return self.phrase.removeprefix("Palyra: ")


@dataclass
class Harness:
    proxy: EgressProxy
    directory: Path
    seq: int = 0
    streams: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def core(self) -> Any:
        return self.proxy.enforcement.core

    def tell(self, kind: str, **fields: Any) -> None:
        """Apply one message of the fleet's stream."""
        self.seq += 1
        message = ViewMessage(kind=kind, epoch=1, seq=self.seq, highest_fence=1, **fields)  # type: ignore[arg-type]
        self.core.connections.cut(self.core.view.apply(message, now_monotonic_ms()))

    def audit(self) -> list[dict[str, Any]]:
        """Every audit entry so far."""
        lines = self.proxy.enforcement.settings.audit_file.read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    def verdicts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.audit() if entry["kind"] == "verdict"]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.proxy.address)
        self.streams.append(writer)
        return reader, writer

    async def connect_socks(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self.proxy.socks_address is not None
        reader, writer = await asyncio.open_connection(*self.proxy.socks_address)
        self.streams.append(writer)
        return reader, writer

    async def send(self, raw: bytes) -> Reply | None:
        """Send raw bytes on a new connection; the first answer, or None when it was cut."""
        reader, writer = await self.connect()
        writer.write(raw)
        return await read_reply(reader)

    async def tunnel(
        self,
        authority: str,
        *,
        credentials: str | None = None,
        sni: str | None = "",
        roots: Path | None = None,
    ) -> tuple[Reply | None, asyncio.StreamReader, asyncio.StreamWriter]:
        """CONNECT and, when allowed, a TLS handshake with `sni` (default: the authority's host;
        None: none) that trusts `roots` alone (default: the proxy's own)."""
        reply, reader, writer = await self.connect_to(authority, credentials=credentials)
        if reply is None or reply.status != 200:
            return reply, reader, writer
        await self.shake_hands(writer, authority.rpartition(":")[0] if sni == "" else sni, roots)
        return reply, reader, writer

    async def shake_hands(
        self, writer: asyncio.StreamWriter, name: str | None, roots: Path | None = None
    ) -> None:
        """TLS in a tunnel that is open; without a name, no name is sent or checked."""
        trusted = roots or self.proxy.enforcement.authority.root_path
        context = ssl.create_default_context(cafile=str(trusted))
        if name is None:
            context.check_hostname = False
        await writer.start_tls(context, server_hostname=name)

    async def connect_to(
        self, authority: str, *, credentials: str | None = None, after: bytes = b""
    ) -> tuple[Reply | None, asyncio.StreamReader, asyncio.StreamWriter]:
        """CONNECT alone, with bytes sent right after its head."""
        reader, writer = await self.connect()
        header = credentials if credentials is not None else basic()
        writer.write(
            f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
            f"Proxy-Authorization: {header}\r\n\r\n".encode()
            + after
        )
        reply = await read_reply(reader, has_body=lambda status: status != 200)
        return reply, reader, writer


async def read_reply(reader: asyncio.StreamReader, has_body: Any = None) -> Reply | None:
    """Read one HTTP answer; None when the connection ended before one."""
    try:
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        return None
    lines = head.decode("latin-1").split("\r\n")
    _, status, phrase = (lines[0] + " ").split(" ", 2)
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:] if line)
    }
    body = b""
    if has_body is None or has_body(int(status)):
        length = int(headers.get("content-length", "0"))
        body = await reader.readexactly(length)
    return Reply(int(status), phrase.strip(), headers, body)


async def read_to_end(reader: asyncio.StreamReader, last: bytes = b"") -> bytes:
    """Everything until the connection is closed or reset, or until `last`, if that is given."""
    got = b""
    async with asyncio.timeout(60):
        try:
            while data := await reader.read(65536):
                got += data
                if last and got.endswith(last):
                    break
        except OSError:  # a reset, bare or inside TLS, is an end too
            pass
    return got


@dataclass
class Injection:
    """Faults for every connection of one proxy: a guard that misbehaves, a foreign addon chain,
    and how long a hook or an identity may take."""

    guard_class: type[ConnectionGuard] = ConnectionGuard
    chain: AddonChain | None = None
    hook_deadline_s: float | None = None
    identity_deadline_s: float | None = None
    deadlines: Deadlines = DEADLINES
    proxy: EgressProxy | None = None

    def make_guard(self, handler: EnforcingHandler) -> ConnectionGuard:
        assert self.proxy is not None
        handler._chain = self.chain
        if self.hook_deadline_s is not None:
            handler._hook_deadline_s = self.hook_deadline_s
        if self.identity_deadline_s is not None:
            handler._identity_deadline_s = self.identity_deadline_s
        parts = replace(self.proxy.enforcement.parts, deadlines=self.deadlines)
        return self.guard_class(parts, handler)


@asynccontextmanager
async def proxy_harness(
    directory: Path,
    policy: str,
    hosts: str = "",
    extra_roots: Path | None = None,
    make_guard: GuardFactory | None = None,
    inject: Injection | None = None,
    secrets: SecretLookup | None = NO_SECRETS,
    **settings: Any,
) -> AsyncIterator[Harness]:
    """A running proxy with one live lease of profile `test`, and one of another worker."""
    if inject is not None:
        make_guard = inject.make_guard
    policy_file, hosts_file = _write_inputs(directory, policy, hosts)
    proxy = await EgressProxy.start(
        ProxySettings(
            state_dir=directory / "state",
            policy_file=policy_file,
            fleet=directory / "no-fleet.sock",
            hosts_file=hosts_file,
            extra_roots_file=extra_roots,
            listen_port=0,
            listen_socks=("127.0.0.1", 0),
            max_view_age_ms=3_600_000,
            drain_s=0.1,
            **settings,
        ),
        make_guard,
        secrets,
    )
    if inject is not None:
        inject.proxy = proxy
    harness = Harness(proxy, directory)
    try:
        harness.tell(
            "snapshot",
            bindings=(binding(), binding(OTHER_WORKER, OTHER_LEASE, OTHER_SECRET)),
        )
        yield harness
    finally:
        for writer in harness.streams:
            writer.close()
        await proxy.stop()


def _write_inputs(directory: Path, policy: str, hosts: str) -> tuple[Path, Path]:
    directory.mkdir(parents=True, exist_ok=True)
    policy_file, hosts_file = directory / "policy.yaml", directory / "hosts"
    policy_file.write_text(policy)
    hosts_file.write_text(hosts)
    return policy_file, hosts_file
