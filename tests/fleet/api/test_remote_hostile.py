"""Strangers, other people's certificates and bent HTTP at the listener for other machines."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from palyra_fleet.api import remote_listener
from palyra_fleet.api.application import ApiSettings, make_application
from palyra_fleet.api.remote_listener import self_test
from palyra_fleet.api.routes import Listener, RouteTableError
from palyra_fleet.client import FleetProblem, FleetUnavailable, ProxyClient
from palyra_fleet.identity.client_certificate import fingerprint_of
from palyra_fleet.identity.messages import PairedDevice
from palyra_fleet.node_agent.keeper import client_context
from palyra_fleet.node_agent.material import Certificate
from palyra_fleet.nodes.errors import TlsUnsound
from palyra_fleet.nodes.server_certificate import ServerCertificate
from palyra_fleet.nodes.tls_port import FrontLimits
from palyra_fleet.wire.request_proof import HEADER, prove
from tests.fakes.node_world import ShiftedClock, forged
from tests.fakes.pairing_device import csr_pem
from tests.fakes.remote_world import Machine, RemoteWorld, remote_world

NAME = "palyrad-node-rpc"
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
WITHIN_S = 60.0


@pytest.fixture
async def world() -> AsyncIterator[RemoteWorld]:
    async with remote_world() as served:
        yield served


def context_of(machine: Machine) -> ssl.SSLContext:
    return client_context(machine.certificate, machine.roots_pem)


def exchange(
    port: int,
    context: ssl.SSLContext,
    sent: bytes,
    session: ssl.SSLSession | None = None,
) -> tuple[bytes, ssl.SSLSession | None, bool]:
    """Everything the listener says to these bytes; nothing, if it does not take us."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as plain,
            context.wrap_socket(plain, server_hostname=NAME, session=session) as tls,
        ):
            tls.sendall(sent)
            said = b""
            while chunk := tls.recv(65536):
                said += chunk
                if said.startswith(b"HTTP/1.1 ") and said.count(b"HTTP/1.1 ") >= sent.count(
                    b" HTTP/1.1\r\n"
                ):
                    break
            return said, tls.session, bool(tls.session_reused)
    except OSError:
        return b"", None, False


async def said_to(world: RemoteWorld, machine: Machine, sent: bytes) -> bytes:
    said, _, _ = await asyncio.to_thread(exchange, world.port, context_of(machine), sent)
    return said


GET = b"GET /livez HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\n\r\n"


async def test_only_certificates_of_paired_devices_get_an_answer(world: RemoteWorld) -> None:
    host = await world.pair("node")
    assert (await said_to(world, host, GET)).startswith(b"HTTP/1.1 200")
    authority = world.identity.authority
    bad = {
        "another authority's": forged(None, host.device_id),
        "expired": forged(authority, host.device_id, days_from=-3, days_to=-2),
        "not valid yet": forged(authority, host.device_id, days_from=1, days_to=2),
        "for no client": forged(authority, host.device_id, purposes=()),
        "a server's": forged(authority, host.device_id, purposes=(SERVER,)),
        "a client's and a server's": forged(authority, host.device_id, purposes=(CLIENT, SERVER)),
        "an authority": forged(authority, host.device_id, ca=True),
        "with two URI names": forged(authority, host.device_id, uris=_two_uris(host)),
        "with a long chain": forged(authority, host.device_id, junk=6),
        "with a chain of a megabyte": forged(authority, host.device_id, junk=1200),
        "without identity": forged(authority, host.device_id, uris=()),
        "of another trust domain": forged(
            authority, host.device_id, uris=(f"spiffe://other.example/device/{host.device_id}",)
        ),
        "signed by us and never issued": forged(authority, host.device_id),
    }
    for what, material in bad.items():
        certificate = Certificate(material.chain_pem.decode(), material.key_pem.decode(), 0)
        said = await said_to(world, replace(host, certificate=certificate), GET)
        refused = said == b"" or said.startswith((b"HTTP/1.1 401", b"HTTP/1.1 403"))
        assert refused, (what, said[:80])
    bare = ssl.create_default_context(cadata=host.roots_pem)
    bare.set_alpn_protocols(["http/1.1"])
    assert (await asyncio.to_thread(exchange, world.port, bare, GET))[0] == b""


def _two_uris(host: Machine) -> tuple[str, str]:
    ours = f"spiffe://palyra.internal/device/{host.device_id}"
    return ours, ours.replace("01", "02", 1)


async def test_what_was_good_and_is_not_any_more_gets_no_answer(world: RemoteWorld) -> None:
    """Rotated out, revoked, and of a device that was removed: at the next connection."""
    rotated, revoked, removed = [await world.pair("node") for _ in range(3)]
    caller = world.identity.check(
        fingerprint_of(ssl.PEM_cert_to_DER_cert(rotated.certificate.certificate_pem)), world.clock()
    )
    assert isinstance(caller, PairedDevice)
    issued = await world.identity.rotate(caller, csr_pem(rotated.device.tls))
    assert (await said_to(world, rotated, GET)).startswith(b"HTTP/1.1 200")
    newer = replace(
        rotated, certificate=replace(rotated.certificate, certificate_pem=issued.certificate_pem)
    )
    assert (await said_to(world, newer, GET)).startswith(b"HTTP/1.1 200")
    world.clock.ahead_ms += world.identity.settings.overlap_ms
    await world.identity.revoke_device(revoked.device_id, "lost", "anna")
    await world.identity.remove_device(removed.device_id, "sold", "anna")
    for machine in (rotated, revoked, removed):
        said = await said_to(world, machine, GET)
        assert said == b"" or said.startswith(b"HTTP/1.1 403"), said[:80]
    assert (await said_to(world, newer, GET)).startswith(b"HTTP/1.1 200")


async def test_old_tls_other_protocols_and_resumed_sessions_are_refused(world: RemoteWorld) -> None:
    host = await world.pair("node")
    context = context_of(host)
    said, session, _ = await asyncio.to_thread(exchange, world.port, context, GET)
    assert said and session is not None
    said, _, reused = await asyncio.to_thread(exchange, world.port, context, GET, session)
    assert said and not reused, "a session was resumed"
    old = context_of(host)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert (await asyncio.to_thread(exchange, world.port, old, GET))[0] == b""
    for protocols in (["h2"], []):
        other = context_of(host)
        other.set_alpn_protocols(protocols)
        assert (await asyncio.to_thread(exchange, world.port, other, GET))[0] == b""


async def test_the_self_test_sees_a_listener_that_asks_for_no_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await self_test()
    real = ServerCertificate.context

    def careless(self: ServerCertificate, *, with_clients: bool) -> ssl.SSLContext:
        del with_clients
        return real(self, with_clients=False)

    monkeypatch.setattr(ServerCertificate, "context", careless)
    with pytest.raises(TlsUnsound, match="without a certificate"):
        await self_test()


async def test_the_application_for_other_machines_is_not_made_without_a_device_gate(
    world: RemoteWorld,
) -> None:
    with pytest.raises(RouteTableError):
        make_application(Listener.REMOTE, world.service, ApiSettings(world.principals))


async def test_a_proof_is_worth_nothing_on_another_connection_device_or_listener(
    world: RemoteWorld,
) -> None:
    host, _ = await world.proxy_host()
    other, _ = await world.proxy_host()
    proof = prove(host.key, "GET", "/v1/proxy/chain", b"", world.clock())
    ask = f"GET /v1/proxy/chain HTTP/1.1\r\nHost: f\r\n{HEADER}: {proof}\r\n\r\n".encode()
    assert (await said_to(world, other, ask)).startswith(b"HTTP/1.1 403")  # and it is spent
    assert (await said_to(world, host, ask)).startswith(b"HTTP/1.1 401")
    fresh = prove(host.key, "GET", "/v1/proxy/chain", b"", world.clock())
    ask = ask.replace(proof.encode(), fresh.encode())
    assert (await said_to(world, host, ask)).startswith(b"HTTP/1.1 200")
    for _ in range(2):
        assert (await said_to(world, host, ask)).startswith(b"HTTP/1.1 401")


BENT = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a signed length": b"Content-Length: +2\r\n\r\n{}",
    "a folded header": b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "a bare CR": b"X-A: b\rX-B: c\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": b"Content-Length : 2\r\n\r\n{}",
    "a header bomb": b"X-A: " + b"a" * 20_000 + b"\r\n\r\n",
    "a body bomb": b"Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n{}",
    "compressed": b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
    b"Content-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("rest", BENT.values(), ids=BENT.keys())
async def test_bent_requests_are_refused_and_what_hides_behind_them_is_not_answered(
    world: RemoteWorld, rest: bytes
) -> None:
    host = await world.pair("node")
    head = b"POST /v1/device/certificate:rotate HTTP/1.1\r\nHost: fleet\r\n"
    said = await said_to(world, host, head + rest)
    assert said[9:12] in {b"400", b"413", b"415"}, said[:80]
    assert b"certificate_pem" not in said


PATHS = (
    "/v1/proxy/../workers",
    "/v1//workers",
    "/v1/workers",
    "/v1/proxies",
    "/V1/proxy/chain",
    "/v1/proxy/chain/",
    "/v1/proxy%2Fchain",
    "/v1/proxy/chain;a=b",
    "//livez",
    "/livez/..",
    "http://fleet/v1/workers",
    "/v1/pairing/codes",
)


@pytest.mark.parametrize("path", PATHS)
async def test_no_spelling_of_a_path_reaches_what_is_not_served_here(
    world: RemoteWorld, path: str
) -> None:
    host, _ = await world.proxy_host()
    proof = prove(host.key, "GET", path, b"", world.clock())
    ask = f"GET {path} HTTP/1.1\r\nHost: f\r\n{HEADER}: {proof}\r\n\r\n".encode()
    said = await said_to(world, host, ask)
    assert said[:12] in {b"HTTP/1.1 404", b"HTTP/1.1 400", b"HTTP/1.1 405"}, said[:80]


async def test_handshakes_that_never_finish_and_connections_of_one_certificate_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports: list[remote_listener.ApiPort] = []

    class Noted(remote_listener.ApiPort):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            ports.append(self)

    monkeypatch.setattr(remote_listener, "ApiPort", Noted)
    limits = FrontLimits(handshakes=4, handshake_within_s=0.3, per_certificate=3)
    async with remote_world(limits=limits) as world:
        host = await world.pair("node")
        slow = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(8)]
        for reader, _ in slow:  # every one is let go, soon or at once
            try:
                async with asyncio.timeout(WITHIN_S):
                    assert await reader.read() == b""
            except ConnectionError:
                pass
        for _, writer in slow:
            writer.close()
        # who does finish may take its time, on a slow machine too
        ports[-1].limits = replace(limits, handshake_within_s=WITHIN_S)
        held = []
        for _ in range(4):
            opened = await asyncio.open_connection(
                "127.0.0.1", world.port, ssl=context_of(host), server_hostname=NAME
            )
            opened[1].write(GET.replace(b"Connection: close\r\n", b""))
            held.append((opened, await _first_line(opened[0])))
        assert [line[:12] for _, line in held] == [b"HTTP/1.1 200"] * 3 + [b""]
        for (_, writer), _ in held:
            writer.transport.abort()


async def _first_line(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(WITHIN_S):
            return await reader.readline()
    except ConnectionError:
        return b""


async def test_a_device_that_calls_too_often_is_told_to_wait_and_others_are_not(
    world: RemoteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, other = await world.pair("node"), await world.pair("node")
    stopped_ms = world.clock()  # no time passes, in which there would be calls again
    monkeypatch.setattr(ShiftedClock, "__call__", lambda _self: stopped_ms)
    async with host.as_itself() as itself, other.as_itself() as unhurried:
        refused = set()
        for _ in range(30):
            try:
                await itself.rotate_certificate("no request")
            except FleetProblem as problem:
                refused.add(problem.reason)
        assert "api.too_fast" in refused
        await itself.is_accepted()
        with pytest.raises(FleetProblem) as caught:
            await unhurried.rotate_certificate("no request")
        assert caught.value.reason != "api.too_fast"


async def test_a_fleet_with_other_roots_is_not_believed(world: RemoteWorld) -> None:
    host, _ = await world.proxy_host()
    async with remote_world() as stranger:
        there = replace(host, url=stranger.url)
        async with there.as_proxy() as client:
            with pytest.raises(FleetUnavailable):
                await client.evidence_chain()
    async with ProxyClient(Path("/nonexistent/fleet.sock"), host.key) as client:
        with pytest.raises(FleetUnavailable):
            await client.evidence_chain()
    assert remote_listener.ALPN == "http/1.1"
