"""Client certificates that a device must not get in with, each wrong in exactly one thing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Authority:
    """A root of the test's own making."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str = "Palyra Gateway CA") -> "Authority":
        key = new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        usage = key_usage(key_cert_sign=True, crl_sign=True)
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, SHA256())
        )
        return cls(key, certificate)


def key_usage(**on: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


@dataclass(slots=True)
class LeafPlan:
    """A leaf as the fleet makes it; a flaw changes one field."""

    device_id: str
    now: datetime
    trust_domain: str = "palyra.internal"
    key: Any = field(default_factory=new_key)
    before: timedelta = timedelta(minutes=-1)
    after: timedelta = timedelta(hours=24)
    ca: bool | None = False
    usage: dict[str, bool] | None = field(default_factory=lambda: {"digital_signature": True})
    purposes: list[x509.ObjectIdentifier] | None = field(
        default_factory=lambda: [ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    names: list[x509.GeneralName] | None = None
    common_name: str | None = None

    @property
    def uri(self) -> str:
        return f"spiffe://{self.trust_domain}/device/{self.device_id}"

    def sign(self, authority: Authority) -> x509.Certificate:
        common = self.common_name or f"Palyra Device {self.device_id}"
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Palyra"),
            ]
        )
        builder = (
            x509.CertificateBuilder(authority.certificate.subject, subject, self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + self.before)
            .not_valid_after(self.now + self.after)
        )
        identifier = authority.certificate.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        ).value
        names = [x509.UniformResourceIdentifier(self.uri)] if self.names is None else self.names
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
        ]
        if self.ca is not None:
            extensions.append((x509.BasicConstraints(self.ca, None), True))
        if self.usage is not None:
            extensions.append((key_usage(**self.usage), True))
        if self.purposes is not None:
            extensions.append((x509.ExtendedKeyUsage(self.purposes), False))
        if names:
            extensions.append((x509.SubjectAlternativeName(names), False))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(authority.key, SHA256())


def _uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def _set(**changes: Any) -> Callable[[LeafPlan], None]:
    def change(plan: LeafPlan) -> None:
        for name, value in changes.items():
            setattr(plan, name, value(plan) if callable(value) else value)

    return change


CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
FLAWS: dict[str, Callable[[LeafPlan], None]] = {
    "expired": _set(before=timedelta(hours=-2), after=timedelta(seconds=0)),
    "not yet valid": _set(before=timedelta(seconds=1)),
    "server only": _set(purposes=[SERVER]),
    "client and server": _set(purposes=[CLIENT, SERVER]),
    "any purpose": _set(purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    "no purpose": _set(purposes=None),
    "an authority": _set(ca=True),
    "an authority that signs": _set(ca=True, usage={"key_cert_sign": True}),
    "no constraints": _set(ca=None),
    "may sign certificates": _set(usage={"digital_signature": True, "key_cert_sign": True}),
    "no key usage": _set(usage=None),
    "no name": _set(names=[]),
    "two URIs": _set(names=lambda p: [_uri(p.uri), _uri(p.uri[:-1] + "Z")]),
    "the URI twice": _set(names=lambda p: [_uri(p.uri), _uri(p.uri)]),
    "a DNS name too": _set(names=lambda p: [_uri(p.uri), x509.DNSName("localhost")]),
    "a DNS name only": _set(names=[x509.DNSName("localhost")]),
    "another trust domain": _set(names=lambda p: [_uri(p.uri.replace("internal", "other"))]),
    "a longer path": _set(names=lambda p: [_uri(p.uri + "/x")]),
    "a query": _set(names=lambda p: [_uri(p.uri + "?x")]),
    "another kind of identity": _set(names=lambda p: [_uri(p.uri.replace("device", "worker"))]),
    "an id that is no ULID": _set(names=lambda p: [_uri(p.uri[:-1] + "U")]),
    "an id in lower case": _set(
        names=lambda p: [_uri(p.uri.replace(p.device_id, p.device_id.lower()))]
    ),
    "another common name": _set(common_name="Palyra Device 7ZZZZZZZZZZZZZZZZZZZZZZZZZ"),
    "an RSA key": _set(key=rsa.generate_private_key(65537, 2048)),
    "a P-384 key": _set(key=ec.generate_private_key(ec.SECP384R1())),
}
REFUSED_BY_US_ALONE = frozenset(
    {
        "client and server", "no purpose", "no constraints",
        "may sign certificates", "no key usage", "no name", "two URIs", "the URI twice",
        "a DNS name too", "a DNS name only", "another trust domain", "a longer path", "a query",
        "another kind of identity", "an id that is no ULID", "an id in lower case",
        "another common name", "an RSA key", "a P-384 key", "an authority",
    }
)  # fmt: skip
"""What OpenSSL lets through, so that only our own check stands in the way."""


def flawed(flaw: str, authority: Authority, device_id: str, now: datetime) -> tuple[bytes, Any]:
    """The DER of a certificate with that flaw, and its key."""
    plan = LeafPlan(device_id, now)
    FLAWS[flaw](plan)
    certificate = plan.sign(authority)
    return certificate.public_bytes(serialization.Encoding.DER), plan.key
