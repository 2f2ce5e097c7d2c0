"""The three kinds of certificate, field by field: authority, device, server. All keys are P-256.

A device is named by its URI SAN (`spiffe://<trust domain>/device/<ULID>`); the common name repeats
it for people. Not-before lies a minute back for clocks that are slow. Whoever calls gives keys,
serial numbers and times; nothing is random here. Times: Unix ms, whole seconds in certificates.
Sources: RFC 5280; RFC 5480; the SPIFFE ID and X.509-SVID standards. Pure.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_NAME: Final = "Palyra Gateway CA"
ORGANISATION: Final = "Palyra"
AUTHORITY_LIFE_MS: Final = 10 * 365 * 24 * 60 * 60 * 1000
CLOCK_SKEW_MS: Final = 60_000
NOT_PARSED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # a negative serial number, where warnings are errors
)
"""What reading a stranger's certificate or request may raise."""
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,254}")


@dataclass(frozen=True, slots=True)
class Signer:
    """An authority's certificate and key. Without `repr` of the key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Signer({authority_id(self.certificate)})"


def checked_trust_domain(text: str) -> str:
    """Raises ValueError for what no SPIFFE id may carry."""
    if _TRUST_DOMAIN.fullmatch(text) is None:
        raise ValueError(
            f"trust domain {text!r}: expected lower-case letters, digits, '.', '-' and '_'"
        )
    return text


def common_name(device_id: str) -> str:
    return f"Palyra Device {device_id}"


def device_uri(trust_domain: str, device_id: str) -> str:
    return f"spiffe://{trust_domain}/device/{device_id}"


def authority_id(certificate: x509.Certificate) -> str:
    """The hex subject key identifier, by which leaves name their issuer."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return extension.value.digest.hex()


def instant(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms // 1000, UTC)


def unix_ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def authority_certificate(
    key: ec.EllipticCurvePrivateKey, serial: int, now_unix_ms: int
) -> x509.Certificate:
    """A self-signed root that may sign leaves and nothing that signs."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, AUTHORITY_NAME)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    return (
        _dated(serial, now_unix_ms, now_unix_ms + AUTHORITY_LIFE_MS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, SHA256())
    )


def device_certificate(
    signer: Signer,
    public_key: ec.EllipticCurvePublicKey,
    device_id: str,
    trust_domain: str,
    serial: int,
    now_unix_ms: int,
    life_ms: int,
) -> x509.Certificate:
    """A client certificate for one device."""
    builder = _leaf(signer, public_key, common_name(device_id), serial, now_unix_ms, life_ms)
    uri = x509.UniformResourceIdentifier(device_uri(trust_domain, device_id))
    return (
        builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer.key, SHA256())
    )


def server_certificate(
    signer: Signer,
    public_key: ec.EllipticCurvePublicKey,
    names: Iterable[str],
    serial: int,
    now_unix_ms: int,
    life_ms: int,
) -> x509.Certificate:
    """A server certificate for DNS names and addresses, in the order given, each once."""
    alternatives = [_alternative(name) for name in dict.fromkeys(names)]
    builder = _leaf(signer, public_key, "Palyra Gateway", serial, now_unix_ms, life_ms)
    return (
        builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(signer.key, SHA256())
    )


def _leaf(
    signer: Signer,
    public_key: ec.EllipticCurvePublicKey,
    name: str,
    serial: int,
    now_unix_ms: int,
    life_ms: int,
) -> x509.CertificateBuilder:
    issuer = signer.certificate
    # no leaf outlives its authority
    until = min(now_unix_ms + life_ms, unix_ms(issuer.not_valid_after_utc))
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _dated(serial, now_unix_ms, until)
        .subject_name(_name(name))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )


def _dated(serial: int, now_unix_ms: int, until_unix_ms: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(serial)
        .not_valid_before(instant(now_unix_ms - CLOCK_SKEW_MS))
        .not_valid_after(instant(until_unix_ms))
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
        ]
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
