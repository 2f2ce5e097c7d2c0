"""Where the corpora's socket cases are played: the proxy, its upstreams, and the tables of answers.

`NOT_OURS`, `STRICTER` and `OWN_STATUS` say, case by case, where we answer differently and why.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy import handler
from palyra_egress.proxy.sockets.pinned_dial import dial_pinned
from tests.conformance.cases import ALL, CORPORA
from tests.conformance.not_ours import CASES, KINDS, SOCKETS
from tests.fakes.proxy_harness import (
    Harness,
    Reply,
    basic,
    proxy_harness,
    read_reply,
)
from tests.fakes.upstream import RecordingUpstream, recording_upstream

type Case = dict[str, Any]

if not ALL:
    pytest.skip(f"the corpora are not at {CORPORA}", allow_module_level=True)

ALSO_HERE: Final = frozenset(
    {"connect", "dns_resolution", "inner_host_mismatch", "proxy_authority_parse"}
)
SOCKET_CASES: Final = [
    case
    for case in ALL
    if case["kind"] in ALSO_HERE
    or KINDS.get(case["kind"]) is SOCKETS
    or CASES.get(case["id"]) is SOCKETS
]

NOT_OURS: Final = {
    "dv-tls-026": "no revocation lists are configured",
    "dv-ws-011": "what a server sends is not searched",
    "ip-cs-189": "a placeholder is swapped in its header only; bodies leave as they are",
    "mp-39": "bounded, and filled only after an allowed CONNECT: test_interception",
}
STRICTER: Final = {
    "dv-raw-002": "a Host that differs from the target is a mismatch; the note accepts a refusal",
    "dv-con-020": "a Host that differs from the CONNECT target is a mismatch; the note accepts 400",
    "dv-ws-006": "any Upgrade header is refused, whatever Connection says",
    "ip-ws-137": "any Upgrade header is refused, whatever Connection says",
}
# Refused as the case wants, with a status of our own that says more.
OWN_STATUS: Final = {
    "dv-raw-003": 421,  # the URL and the Host name two targets: authority_mismatch
}

# Streams of HTTP/2 that name another host than their tunnel, or two.
AUTHORITY_DIFFERS: Final = frozenset({"dv-h2-002", "dv-h2-003", "mp-22"})

POLICY: Final = """\
version: 1
name: corpora
rules:
  - id: tls
    hosts: [allowed.com, allowed2.com, api.example]
    methods: [GET, POST]
    private: [127.0.0.0/8]
  - id: plain
    hosts: [allowed.com]
    schemes: [http]
    ports: [80]
    methods: [GET, POST]
    private: [127.0.0.0/8]
  - id: literal
    hosts: [127.0.0.1]
    schemes: [http]
    ports: [5000]
    private: [127.0.0.0/8]
profiles: {test: [tls, plain, literal]}
"""
HOSTS: Final = "127.0.0.1 allowed.com allowed2.com evil.com other.com api.example u.example\n"


@dataclass
class World:
    harness: Harness
    plain: RecordingUpstream
    secure: RecordingUpstream

    def nothing_arrived(self) -> None:
        assert (self.plain.connections, self.secure.connections) == (0, 0)

    def was_refused_in_the_audit(self) -> bool:
        return any(
            entry.get("effect") == "deny" or entry.get("outcome") == "aborted"
            for entry in self.harness.audit()
        )

    def inner_requests(self) -> list[bytes]:
        return self.secure.heads


@asynccontextmanager
async def open_world(directory: Path, monkeypatch, upstream_names: str) -> AsyncIterator[World]:
    ca = UpstreamCa.create(directory / "ca")
    issuer = UpstreamCa.create(directory / "stranger") if upstream_names == "self-signed" else ca
    names = ("allowed.com", "allowed2.com", "api.example")
    async with (
        recording_upstream() as plain,
        recording_upstream(issuer.server_context(*names)) as secure,
        proxy_harness(directory / "proxy", POLICY, HOSTS, ca.ca_file) as harness,
    ):
        ports = {80: plain.port, 5000: plain.port, 443: secure.port}

        async def mapped(pinned, port, **more):
            return await dial_pinned(pinned, ports[port], **more)

        monkeypatch.setattr(handler, "dial_pinned", mapped)
        yield World(harness, plain, secure)


def cases_of(*kinds: str) -> list[Any]:
    return [
        pytest.param(case, id=case["id"])
        for case in SOCKET_CASES
        if case["kind"] in kinds and case["id"] not in NOT_OURS
    ]


RUN_KINDS: Final[set[str]] = set()


def runs(*kinds: str) -> Any:
    """Runs every case of these kinds, each in a world of its own."""
    RUN_KINDS.update(kinds)
    return pytest.mark.parametrize("case", cases_of(*kinds))


def raw_head(*lines: str) -> bytes:
    return "\r\n".join([*lines, f"Proxy-Authorization: {basic()}", "", ""]).encode()


async def through_tls(
    world: World, authority: str, *, sni: str | None, alpn: list[str] | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    """CONNECT and a TLS handshake; None when either is refused."""
    reader, writer = await world.harness.connect()
    writer.write(raw_head(f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"))
    reply = await read_reply(reader, has_body=lambda status: status != 200)
    if reply is None or reply.status != 200:
        return None
    root = world.harness.proxy.enforcement.authority.root_path
    context = ssl.create_default_context(cafile=str(root))
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    try:
        await writer.start_tls(context, server_hostname=sni)
    except (OSError, ssl.SSLError):
        return None
    return reader, writer


async def ask_inside(world: World, host: str, path: str = "/", connect: str = "") -> Reply | None:
    """A request inside a tunnel to `connect`, naming `host`."""
    streams = await through_tls(world, connect, sni=connect.partition(":")[0])
    assert streams is not None
    reader, writer = streams
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return await read_reply(reader)
