"""Every certificate that the fleet issued and remembers: authorities, its listeners', devices'.

What state each is in follows the gate: what the gate would refuse is not called valid here. What a
list shows is chosen before anything is parsed. Times: Unix ms. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from palyra_fleet.identity.authority import AuthorityRecord, ServerIdentity
from palyra_fleet.identity.certificate_profiles import unix_ms
from palyra_fleet.identity.client_certificate import fingerprint_of
from palyra_fleet.identity.device_records import CertificateRecord, CertificateState
from palyra_fleet.wire.certificate_models import CertificateKind, Standing, place_of

_OF_DEVICES: Final = {
    CertificateState.PENDING: Standing.PENDING,
    CertificateState.CURRENT: Standing.VALID,
    CertificateState.RETIRING: Standing.SUPERSEDED,
    CertificateState.REVOKED: Standing.REVOKED,
}


@dataclass(frozen=True, slots=True)
class KnownCertificate:
    """One certificate. `authority_id` signed it; `ends_at_unix_ms` may be before its own end."""

    kind: CertificateKind
    standing: Standing
    fingerprint: str
    authority_id: str
    der_or_pem: bytes
    issued_at_unix_ms: int
    ends_at_unix_ms: int
    device_id: str | None = None
    ended_reason: str | None = None

    @property
    def place(self) -> str:
        return place_of(self.issued_at_unix_ms, self.fingerprint)

    @property
    def certificate(self) -> x509.Certificate:
        if self.der_or_pem.startswith(b"-----"):
            return x509.load_pem_x509_certificate(self.der_or_pem)
        return x509.load_der_x509_certificate(self.der_or_pem)


@dataclass(frozen=True, slots=True)
class CertificateFilter:
    """Whatever is said must be so. `expires_within_ms`: still good, and no longer than that."""

    standing: Standing | None = None
    kind: CertificateKind | None = None
    device_id: str | None = None
    expires_within_ms: int | None = None

    def fits(self, one: KnownCertificate, now: int) -> bool:
        within = self.expires_within_ms
        return (
            self.standing in {None, one.standing}
            and self.kind in {None, one.kind}
            and self.device_id in {None, one.device_id}
            and (within is None or (one.standing.good and one.ends_at_unix_ms - now <= within))
        )


def of_device(record: CertificateRecord, now: int, *, shut_out: bool) -> KnownCertificate:
    """`shut_out`: the gate refuses the device, whatever this certificate says."""
    standing = _OF_DEVICES[record.state]
    if standing.good:
        own_end = record.ends_at_unix_ms == record.not_after_unix_ms
        if own_end and now >= record.ends_at_unix_ms:
            standing = Standing.EXPIRED
        elif shut_out:
            standing = Standing.REVOKED
    return KnownCertificate(
        CertificateKind.DEVICE,
        standing,
        record.fingerprint,
        record.authority_id,
        record.certificate_pem.encode(),
        record.issued_at_unix_ms,
        record.ends_at_unix_ms,
        record.device_id,
        record.ended_reason,
    )


def of_authorities(records: Iterable[AuthorityRecord], now: int) -> Iterator[KnownCertificate]:
    """Given oldest first; of those that are trusted the last signs devices."""
    every = tuple(records)
    trusted = [one for one in every if one.retired_at_unix_ms is None]
    for record in every:
        certificate = x509.load_der_x509_certificate(record.certificate_der)
        ends = unix_ms(certificate.not_valid_after_utc)
        standing = Standing.VALID if record is trusted[-1] else Standing.SUPERSEDED
        if record.retired_at_unix_ms is not None:
            standing, ends = Standing.RETIRED, min(ends, record.retired_at_unix_ms)
        elif now >= ends:
            standing = Standing.EXPIRED
        yield KnownCertificate(
            CertificateKind.AUTHORITY,
            standing,
            fingerprint_of(record.certificate_der),
            record.authority_id,
            record.certificate_der,
            record.created_at_unix_ms,
            ends,
        )


def of_server(server: ServerIdentity) -> KnownCertificate:
    """What the listeners present now."""
    certificate = x509.load_pem_x509_certificate(server.certificate_pem.encode())
    der = certificate.public_bytes(Encoding.DER)
    return KnownCertificate(
        CertificateKind.SERVER,
        Standing.VALID,
        fingerprint_of(der),
        server.authority_id,
        der,
        unix_ms(certificate.not_valid_before_utc),
        server.expires_at_unix_ms,
    )
