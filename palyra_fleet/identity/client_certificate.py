"""Is this client certificate one of ours, good now, and a device's? Asked without trusting TLS.

TLS libraries skip checks when a session is resumed, and take any leaf whose chain fits. So the
listener passes on what the peer presented, and everything is checked here again: chain and times
(by `cryptography`'s verifier), and the exact profile that the authority gives to devices. Whatever
else a certificate says, it is no device's. Times: Unix ms. Source: RFC 5280, section 6. Pure.
"""

import hashlib
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from palyra_fleet.identity.certificate_profiles import (
    NOT_PARSED,
    common_name,
    device_uri,
    instant,
    unix_ms,
)
from palyra_fleet.identity.messages import VerifiedLeaf
from palyra_fleet.wire.ids import is_canonical_ulid

MAX_CHAIN: Final = 4
MAX_CHAIN_BYTES: Final = 16 * 1024
_DEVICE_URI: Final = re.compile(r"spiffe://[^/]+/device/(.+)")


class CertificateFlaw(StrEnum):
    """Why a certificate is not usable; for our log, the caller hears one text for all."""

    MISSING = "missing"
    TOO_LARGE = "chain_too_large"
    MALFORMED = "malformed"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    UNTRUSTED = "untrusted"
    NOT_A_LEAF = "not_a_leaf"
    KEY_TYPE = "key_type"
    EXTENDED_KEY_USAGE = "extended_key_usage"
    ALTERNATIVE_NAME = "alternative_name"
    COMMON_NAME = "common_name"


def fingerprint_of(certificate_der: bytes) -> str:
    """Lower-case hex SHA-256 of the leaf's DER."""
    return hashlib.sha256(certificate_der).hexdigest()


def verify_client_certificate(
    chain_der: Sequence[bytes],
    trusted: Sequence[x509.Certificate],
    trust_domain: str,
    now_unix_ms: int,
) -> VerifiedLeaf | CertificateFlaw:
    """The device named by the leaf (first in the chain), or what is wrong. Never raises."""
    if not chain_der:
        return CertificateFlaw.MISSING
    if len(chain_der) > MAX_CHAIN or sum(map(len, chain_der)) > MAX_CHAIN_BYTES:
        return CertificateFlaw.TOO_LARGE
    try:
        leaf = x509.load_der_x509_certificate(chain_der[0])
        flaw = _times(leaf, now_unix_ms) or _trust(leaf, trusted, now_unix_ms)
        if flaw is not None:
            return flaw
        return _profile(leaf, chain_der[0], trust_domain)
    except NOT_PARSED:
        return CertificateFlaw.MALFORMED


def _times(leaf: x509.Certificate, now_unix_ms: int) -> CertificateFlaw | None:
    if now_unix_ms < unix_ms(leaf.not_valid_before_utc):
        return CertificateFlaw.NOT_YET_VALID
    if now_unix_ms >= unix_ms(leaf.not_valid_after_utc):
        return CertificateFlaw.EXPIRED
    return None


def _trust(
    leaf: x509.Certificate, trusted: Sequence[x509.Certificate], now_unix_ms: int
) -> CertificateFlaw | None:
    """Intermediates of the peer play no part: an authority of ours signs leaves only."""
    if not trusted:
        return CertificateFlaw.UNTRUSTED
    verifier = (
        PolicyBuilder().store(Store(list(trusted))).time(instant(now_unix_ms)).max_chain_depth(0)
    ).build_client_verifier()
    try:
        verifier.verify(leaf, [])
    except VerificationError:
        return CertificateFlaw.UNTRUSTED
    return None


def _profile(
    leaf: x509.Certificate, leaf_der: bytes, trust_domain: str
) -> VerifiedLeaf | CertificateFlaw:
    extensions = leaf.extensions
    constraints = _value(extensions, x509.BasicConstraints)
    usage = _value(extensions, x509.KeyUsage)
    if constraints is None or constraints.ca or usage is None or usage.key_cert_sign:
        return CertificateFlaw.NOT_A_LEAF
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return CertificateFlaw.KEY_TYPE
    purposes = _value(extensions, x509.ExtendedKeyUsage)
    if purposes is None or list(purposes) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        return CertificateFlaw.EXTENDED_KEY_USAGE
    names = list(_value(extensions, x509.SubjectAlternativeName) or ())
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        return CertificateFlaw.ALTERNATIVE_NAME
    named = _DEVICE_URI.fullmatch(names[0].value)
    device_id = named[1] if named else ""
    ours = is_canonical_ulid(device_id) and names[0].value == device_uri(trust_domain, device_id)
    if not ours:
        return CertificateFlaw.ALTERNATIVE_NAME
    common = [a.value for a in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if common != [common_name(device_id)]:
        return CertificateFlaw.COMMON_NAME
    return VerifiedLeaf(
        fingerprint=fingerprint_of(leaf_der),
        device_id=device_id,
        not_before_unix_ms=unix_ms(leaf.not_valid_before_utc),
        not_after_unix_ms=unix_ms(leaf.not_valid_after_utc),
    )


def _value[E: x509.ExtensionType](extensions: x509.Extensions, kind: type[E]) -> E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
