"""A proxy whose workers come in by other ways than the plain listener, and a server behind it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization

from palyra_egress.proxy.bounds.deadlines import DEADLINES, Deadlines
from palyra_egress.proxy.channels.settings import ChannelSettings
from palyra_egress.proxy.channels.worker_tls import WorkerTlsSettings
from palyra_fleet.identity.client_certificate import fingerprint_of
from palyra_fleet.wire.view_models import Binding
from tests.fakes.hostile_certificates import Authority, LeafPlan
from tests.fakes.proxy_harness import (
    WORKER,
    Harness,
    Reply,
    binding,
    proxy_harness,
    read_reply,
)
from tests.fakes.upstream import RecordingUpstream, recording_upstream

POLICY: Final = """\
version: 1
name: channels
rules:
  - id: plain
    hosts: [plain.example]
    schemes: [http]
    ports: [{port}]
    methods: [GET, POST]
    private: [127.0.0.0/8]
profiles:
  test: [plain]
violations:
  quarantine: [foreign_credentials]
"""
TRUST_DOMAIN: Final = "palyra.internal"
FLEET: Final = Authority.make()
IMPOSTOR: Final = Authority.make()
"""Has the same name as the fleet's authority, and another key."""


def real_now() -> datetime:
    """Real time: OpenSSL has no other."""
    return datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 (see the docstring)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that somebody shows, in a file with its key."""

    file: Path
    fingerprint: str


def shown_by(directory: Path, der: bytes, key: Any, name: str = "client") -> ClientCertificate:
    path = directory / f"{name}.pem"
    pem = ssl.DER_cert_to_PEM_cert(der).encode() + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(pem)
    return ClientCertificate(path, fingerprint_of(der))


def certificate_for(
    directory: Path, worker: str = WORKER, authority: Authority = FLEET, name: str = "client"
) -> ClientCertificate:
    """A good certificate of this worker, unless the authority is another."""
    plan = LeafPlan(worker, real_now(), TRUST_DOMAIN)
    der = plan.sign(authority).public_bytes(serialization.Encoding.DER)
    return shown_by(directory, der, plan.key, name)


def bound(*fingerprints: str, **changes: Any) -> Binding:
    """The worker's lease as the fleet tells it, with these certificates."""
    return binding(**changes).model_copy(update={"client_certificates_sha256": fingerprints})


@dataclass
class ChannelWorld:
    harness: Harness
    upstream: RecordingUpstream
    directory: Path
    shown: ClientCertificate | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def request(self, credentials: str | None = None, path: str = "/x") -> bytes:
        """A request that the policy allows, with or without credentials."""
        authority = f"plain.example:{self.upstream.port}"
        shown = f"Proxy-Authorization: {credentials}\r\n" if credentials is not None else ""
        return (
            f"GET http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n{shown}\r\n"
        ).encode()

    async def over_tls(
        self, certificate: ClientCertificate | None, context: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the TLS listener that shows this certificate. Raises OSError."""
        where = self.harness.proxy.channels.worker_tls_address
        assert where is not None
        if context is None:
            context = self.tls_context()
        if certificate is not None:
            context.load_cert_chain(certificate.file)
        reader, writer = await asyncio.open_connection(
            *where, ssl=context, server_hostname="localhost"
        )
        self.writers.append(writer)
        return reader, writer

    def tls_context(self) -> ssl.SSLContext:
        """Trusts the proxy's own root alone."""
        return ssl.create_default_context(
            cafile=str(self.harness.proxy.enforcement.authority.root_path)
        )

    async def over_socket(self, path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(path))
        self.writers.append(writer)
        return reader, writer

    async def ask(
        self,
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        credentials: str | None = None,
    ) -> Reply | None:
        """Send the request; the answer, or None when the connection was cut."""
        reader, writer = stream
        writer.write(self.request(credentials))
        return await read_reply(reader)

    def rebind(self, *fingerprints: str) -> None:
        """The fleet tells the worker's lease again, with these certificates."""
        self.harness.tell("bind", bindings=(bound(*fingerprints),))

    def nothing_left(self) -> None:
        assert bytes(self.upstream.received) == b""


@asynccontextmanager
async def channel_world(
    directory: Path, channels: ChannelSettings, deadlines: Deadlines = DEADLINES
) -> AsyncIterator[ChannelWorld]:
    async with (
        recording_upstream() as upstream,
        proxy_harness(
            directory / "proxy",
            POLICY.format(port=upstream.port),
            "127.0.0.1 plain.example\n",
            channels=channels,
            deadlines=deadlines,
        ) as harness,
    ):
        world = ChannelWorld(harness, upstream, directory)
        try:
            yield world
        finally:
            for writer in world.writers:
                writer.close()


def worker_tls(directory: Path, *authorities: Authority) -> ChannelSettings:
    """The TLS listener on a free port, believing these authorities (the fleet's)."""
    roots = directory / "fleet-roots.pem"
    write_roots(roots, *(authorities or (FLEET,)))
    return ChannelSettings(WorkerTlsSettings("127.0.0.1", 0, roots, TRUST_DOMAIN))


def write_roots(path: Path, *authorities: Authority) -> None:
    path.write_bytes(
        b"".join(one.certificate.public_bytes(serialization.Encoding.PEM) for one in authorities)
    )
