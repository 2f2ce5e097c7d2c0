"""Our own check of a client certificate, beside what TLS does: in values and in TLS 1.3."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.identity.client_certificate import (
    MAX_CHAIN,
    CertificateFlaw,
    fingerprint_of,
    verify_client_certificate,
)
from palyra_fleet.identity.messages import VerifiedLeaf
from tests.fakes.hostile_certificates import (
    FLAWS,
    REFUSED_BY_US_ALONE,
    Authority,
    LeafPlan,
    flawed,
    new_key,
)

DEVICE = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
DOMAIN = "palyra.internal"
OURS, FOREIGN = Authority.make(), Authority.make()
"""Both have the same name, as an impostor's would."""


def _now() -> datetime:
    """Real time: OpenSSL has no other."""
    return datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 (see the docstring)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _check(*chain: bytes, now: datetime | None = None) -> VerifiedLeaf | CertificateFlaw:
    at = _ms(now or _now())
    return verify_client_certificate(chain, (OURS.certificate,), DOMAIN, at)


def test_a_good_certificate_names_its_device() -> None:
    der = _der(LeafPlan(DEVICE, _now()).sign(OURS))
    found = _check(der)
    assert isinstance(found, VerifiedLeaf)
    assert (found.device_id, found.fingerprint) == (DEVICE, fingerprint_of(der))


def test_a_chain_may_carry_the_root_which_plays_no_part() -> None:
    good = _der(LeafPlan(DEVICE, _now()).sign(OURS))
    assert isinstance(_check(good, _der(OURS.certificate)), VerifiedLeaf)
    foreign = _der(LeafPlan(DEVICE, _now()).sign(FOREIGN))
    assert _check(foreign, _der(FOREIGN.certificate)) is CertificateFlaw.UNTRUSTED
    assert _check(foreign, _der(OURS.certificate)) is CertificateFlaw.UNTRUSTED


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_certificate_with_a_flaw_is_no_devices(flaw: str) -> None:
    now = _now()
    der, _ = flawed(flaw, OURS, DEVICE, now)
    assert isinstance(_check(der, now=now), CertificateFlaw)


def test_a_leaf_signed_by_a_leaf_is_untrusted() -> None:
    middle_key = new_key()
    middle = LeafPlan(DEVICE, _now(), key=middle_key).sign(OURS)
    der = _der(LeafPlan(DEVICE, _now()).sign(Authority(middle_key, middle)))
    assert _check(der, _der(middle)) is CertificateFlaw.UNTRUSTED


def test_a_root_is_no_device() -> None:
    assert isinstance(_check(_der(OURS.certificate)), CertificateFlaw)


def test_validity_begins_and_ends_to_the_second() -> None:
    now = _now()
    plan = LeafPlan(DEVICE, now)
    der = _der(plan.sign(OURS))
    assert isinstance(_check(der, now=now + plan.before), VerifiedLeaf)
    end = now + plan.after
    one_ms = (_ms(now + plan.before) - 1, _ms(end))
    trusted = (OURS.certificate,)
    assert verify_client_certificate([der], trusted, DOMAIN, one_ms[0]) is (
        CertificateFlaw.NOT_YET_VALID
    )
    assert isinstance(
        verify_client_certificate([der], trusted, DOMAIN, one_ms[1] - 1), VerifiedLeaf
    )
    assert verify_client_certificate([der], trusted, DOMAIN, one_ms[1]) is CertificateFlaw.EXPIRED


def test_chains_are_bounded_and_may_not_be_empty() -> None:
    good = _der(LeafPlan(DEVICE, _now()).sign(OURS))
    assert _check() is CertificateFlaw.MISSING
    assert _check(*[good] * (MAX_CHAIN + 1)) is CertificateFlaw.TOO_LARGE
    assert _check(good, bytes(16_384)) is CertificateFlaw.TOO_LARGE


def test_without_a_trusted_root_nobody_is_a_device() -> None:
    der = _der(LeafPlan(DEVICE, _now()).sign(OURS))
    assert verify_client_certificate([der], (), DOMAIN, _ms(_now())) is CertificateFlaw.UNTRUSTED


GOOD = _der(LeafPlan(DEVICE, _now()).sign(OURS))


@given(place=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_and_raises_nothing(place: int, bit: int) -> None:
    changed = bytearray(GOOD)
    changed[place] ^= 1 << bit
    assert isinstance(_check(bytes(changed)), CertificateFlaw)


@given(junk=st.binary(max_size=200))
def test_bytes_that_are_no_certificate_are_malformed(junk: bytes) -> None:
    assert _check(junk) is CertificateFlaw.MALFORMED


class Gate:
    """A TLS 1.3 server that demands a client certificate, then asks our check about it."""

    def __init__(self) -> None:
        self.verdicts: asyncio.Queue[VerifiedLeaf | CertificateFlaw] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport: ssl.SSLObject = writer.get_extra_info("ssl_object")
        assert transport.version() == "TLSv1.3"
        der = transport.getpeercert(binary_form=True)
        verdict = _check(*([der] if der else []))
        self.verdicts.put_nowait(verdict)
        writer.write(b"in" if isinstance(verdict, VerifiedLeaf) else b"no")
        writer.close()


def _write(path: Path, certificate: bytes, key: Any) -> str:
    pem = ssl.DER_cert_to_PEM_cert(certificate).encode() + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(pem)
    return str(path)


@asynccontextmanager
async def _gate(folder: Path) -> AsyncIterator[tuple[Gate, int]]:
    key = new_key()
    name = [x509.DNSName("localhost")]
    plan = LeafPlan(DEVICE, _now(), key=key, names=name, purposes=None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(_write(folder / "server.pem", _der(plan.sign(OURS)), key))
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(_der(OURS.certificate)))
    context.verify_mode = ssl.CERT_REQUIRED
    gate = Gate()
    server = await asyncio.start_server(gate.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield gate, server.sockets[0].getsockname()[1]


async def _knock(port: int, certificate_file: str | None) -> bytes:
    """What the server let us read; nothing if TLS itself refused us."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(_der(OURS.certificate)))
    if certificate_file is not None:
        context.load_cert_chain(certificate_file)
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        try:
            return await reader.read()
        finally:
            writer.close()
    except (ssl.SSLError, ConnectionError):
        return b""


@pytest.mark.parametrize("flaw", [*FLAWS, "foreign root", "none"])
async def test_in_tls_a_flawed_certificate_gets_nobody_in(tmp_path: Path, flaw: str) -> None:
    async with _gate(tmp_path) as (gate, port):
        file: str | None = None
        if flaw == "foreign root":
            plan = LeafPlan(DEVICE, _now())
            file = _write(tmp_path / "client.pem", _der(plan.sign(FOREIGN)), plan.key)
        elif flaw != "none":
            file = _write(tmp_path / "client.pem", *flawed(flaw, OURS, DEVICE, _now()))
        answer = await _knock(port, file)
        if flaw in REFUSED_BY_US_ALONE:
            assert answer == b"no"
            assert isinstance(gate.verdicts.get_nowait(), CertificateFlaw)
        else:
            assert answer == b""
            assert gate.verdicts.empty()


async def test_in_tls_a_good_certificate_gets_in(tmp_path: Path) -> None:
    plan = LeafPlan(DEVICE, _now())
    file = _write(tmp_path / "client.pem", _der(plan.sign(OURS)), plan.key)
    async with _gate(tmp_path) as (gate, port):
        assert await _knock(port, file) == b"in"
        assert isinstance(gate.verdicts.get_nowait(), VerifiedLeaf)
