"""FleetCertificateAuthority: signs device and server certificates, and is rotated by overlap.

The newest authority signs devices. An older one stays trusted until its last leaf has gone, and
until then signs the servers' certificates: devices that know only the old root must still reach us
to get their next certificate, with which they are given both roots. Keys rest sealed, each under
its authority's name, and are open only in this process. A server's key is never written at all.
Times: Unix ms. Sources: specification 30, section 4; RFC 5280.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from palyra_fleet.identity import certificate_profiles as profiles
from palyra_fleet.identity.certificate_request import checked_public_key
from palyra_fleet.identity.client_certificate import fingerprint_of
from palyra_fleet.wire.sealing import MasterKey, SealBroken

SERVER_NAMES: Final = ("localhost", "palyrad-node-rpc")
"""Clients override the TLS server name to the second."""
DEVICE_LIFE_MS: Final = 24 * 60 * 60 * 1000
SERVER_LIFE_MS: Final = 7 * 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class AuthorityRecord:
    """One authority as stored. Without a key it only vouches for what it signed."""

    authority_id: str
    certificate_der: bytes = field(repr=False)
    sealed_key: bytes = field(repr=False)
    created_at_unix_ms: int
    retired_at_unix_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AuthorityStanding:
    """A trusted authority, what it signs, and how many good device certificates still need it.

    `last_ends_at_unix_ms`: when the last of those ends by itself; None if there are none.
    """

    authority_id: str
    certificate_sha256: str
    created_at_unix_ms: int
    expires_at_unix_ms: int
    signs_devices: bool
    signs_servers: bool
    good_certificates: int
    last_ends_at_unix_ms: int | None


@dataclass(frozen=True, slots=True)
class IssuedLeaf:
    """A new device certificate and what the ledger must know of it."""

    certificate_pem: str
    fingerprint: str
    authority_id: str
    not_before_unix_ms: int
    not_after_unix_ms: int


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What a TLS listener presents. Renew it from `renew_at_unix_ms` on."""

    certificate_pem: str
    private_key_pem: str = field(repr=False)
    authority_id: str
    renew_at_unix_ms: int
    expires_at_unix_ms: int


class FleetCertificateAuthority:
    """Trusted authorities, oldest first; the last one signs devices."""

    def __init__(
        self, records: Sequence[AuthorityRecord], master: MasterKey, trust_domain: str
    ) -> None:
        """Opens the keys. Raises SealBroken; ValueError if there is no authority at all."""
        self.trust_domain = profiles.checked_trust_domain(trust_domain)
        self._signers = [
            _opened(record, master) for record in records if record.retired_at_unix_ms is None
        ]
        if not self._signers:
            raise ValueError("no authority is trusted")

    @property
    def authority_id(self) -> str:
        """Of the one that signs devices."""
        return profiles.authority_id(self._signers[-1].certificate)

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        return tuple(signer.certificate for signer in self._signers)

    @property
    def trust_bundle_pem(self) -> str:
        """Every trusted root, the newest first: what devices are given and listeners verify by."""
        return "".join(_pem(signer.certificate) for signer in reversed(self._signers))

    def sign_request(
        self, csr_pem: str, device_id: str, now_unix_ms: int, life_ms: int = DEVICE_LIFE_MS
    ) -> IssuedLeaf | None:
        """A leaf for the key of a PKCS#10 request; None if the request is not good."""
        public_key = checked_public_key(csr_pem)
        if public_key is None:
            return None
        return self._leaf(public_key, device_id, now_unix_ms, life_ms)

    def make_key_and_leaf(
        self, device_id: str, now_unix_ms: int, life_ms: int = DEVICE_LIFE_MS
    ) -> tuple[IssuedLeaf, str]:
        """For clients that send no request: a leaf and its new private key (PKCS#8 PEM)."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._leaf(key.public_key(), device_id, now_unix_ms, life_ms), _key_pem(key)

    def make_server_identity(
        self, names: Sequence[str], now_unix_ms: int, life_ms: int = SERVER_LIFE_MS
    ) -> ServerIdentity:
        """A certificate for our listeners, with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        signer = self._signers[0]
        certificate = profiles.server_certificate(
            signer,
            key.public_key(),
            (*SERVER_NAMES, *names),
            x509.random_serial_number(),
            now_unix_ms,
            life_ms,
        )
        expires = profiles.unix_ms(certificate.not_valid_after_utc)
        return ServerIdentity(
            certificate_pem=_pem(certificate),
            private_key_pem=_key_pem(key),
            authority_id=profiles.authority_id(signer.certificate),
            renew_at_unix_ms=now_unix_ms + (expires - now_unix_ms) * 2 // 3,
            expires_at_unix_ms=expires,
        )

    def _leaf(
        self, key: ec.EllipticCurvePublicKey, device_id: str, now_unix_ms: int, life_ms: int
    ) -> IssuedLeaf:
        certificate = profiles.device_certificate(
            self._signers[-1],
            key,
            device_id,
            self.trust_domain,
            x509.random_serial_number(),
            now_unix_ms,
            life_ms,
        )
        return IssuedLeaf(
            certificate_pem=_pem(certificate),
            fingerprint=fingerprint_of(certificate.public_bytes(serialization.Encoding.DER)),
            authority_id=self.authority_id,
            not_before_unix_ms=profiles.unix_ms(certificate.not_valid_before_utc),
            not_after_unix_ms=profiles.unix_ms(certificate.not_valid_after_utc),
        )

    def __repr__(self) -> str:
        return f"FleetCertificateAuthority({self.authority_id}, {len(self._signers)} trusted)"


def make_authority(master: MasterKey, now_unix_ms: int) -> AuthorityRecord:
    """A new authority, its key sealed under its own name."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = profiles.authority_certificate(key, x509.random_serial_number(), now_unix_ms)
    name = profiles.authority_id(certificate)
    secret = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return AuthorityRecord(
        authority_id=name,
        certificate_der=certificate.public_bytes(serialization.Encoding.DER),
        sealed_key=master.seal(key_record_name(name), secret),
        created_at_unix_ms=now_unix_ms,
    )


def retired(record: AuthorityRecord, now_unix_ms: int) -> AuthorityRecord:
    """No longer trusted, and its key is gone."""
    return replace(record, sealed_key=b"", retired_at_unix_ms=now_unix_ms)


def key_record_name(authority_id: str) -> str:
    """The name an authority's key is sealed under."""
    return f"authority/{authority_id}/key"


def _opened(record: AuthorityRecord, master: MasterKey) -> profiles.Signer:
    certificate = x509.load_der_x509_certificate(record.certificate_der)
    name = key_record_name(record.authority_id)
    key = serialization.load_der_private_key(master.open(name, record.sealed_key), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SealBroken(f"sealed record '{name}': not a P-256 key; restore it")
    if key.public_key() != certificate.public_key():
        raise SealBroken(f"sealed record '{name}': not this certificate's key; restore it")
    return profiles.Signer(certificate, key)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
