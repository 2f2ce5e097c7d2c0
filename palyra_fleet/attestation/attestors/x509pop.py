"""`x509pop`: the worker's machine holds the key of a certificate under a configured authority.

The evidence is signed by the certificate's key, over the fleet's nonce and the worker's key: that
is the proof of possession. The chain is validated for client authentication at the fleet's time
(RFC 5280, by `cryptography`; subject alternative names are required, Ed25519 authorities are not
taken), and the leaf must match one of the selectors. The identity is the certificate's one URI (a
SPIFFE id outlives its certificate), or without one its key. Revocation lists are not read: keep
certificates short-lived. Pure.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from palyra_fleet.attestation.attestor import (
    OpenedEvidence,
    TrustedKeys,
    open_statement,
    refused,
    until,
)
from palyra_fleet.refusals import Refusal
from palyra_fleet.wire.backing import MAX_CERTIFICATES, X509Backing
from palyra_fleet.wire.certificate_names import identity_of, names_of_host, uris_of
from palyra_fleet.wire.models import RegisterRequest
from palyra_fleet.wire.signatures import KeyNotSupported, is_signed_by, supported

_UNREADABLE: Final = (
    ValueError,
    KeyError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises over strangers' bytes, some of it only when a part is looked at."""


@dataclass(frozen=True, slots=True)
class CertificateSelector:
    """Which certificates are admitted. Every value that is set must match one of the leaf's. In
    `uri` and `common_name` a trailing `*` stands for any ending, in `dns` a leading `*.` for one
    label. One without a value matches nothing."""

    uri: str | None = None
    dns: str | None = None
    common_name: str | None = None

    def admits(self, certificate: x509.Certificate) -> bool:
        wanted = (
            (self.uri, _has_beginning, uris_of(certificate)),
            (self.dns, _is_host, names_of_host(certificate)),
            (self.common_name, _has_beginning, _common_names_of(certificate)),
        )
        asked = [
            any(matches(pattern, value) for value in values)
            for pattern, matches, values in wanted
            if pattern is not None
        ]
        return bool(asked) and all(asked)


class X509PopAttestor:
    """Admits holders of certificates under `roots` that a selector admits."""

    kind: Final = "x509pop"

    def __init__(
        self, roots: Sequence[x509.Certificate], selectors: Sequence[CertificateSelector]
    ) -> None:
        self._store = Store(list(roots))
        self._selectors = tuple(selectors)

    def open(
        self, request: RegisterRequest, keys: TrustedKeys, now_unix_ms: int
    ) -> OpenedEvidence | Refusal:
        del keys
        backing = request.backing
        if not isinstance(backing, X509Backing):
            return refused("the evidence comes without a certificate")
        try:
            leaf, *others = [_certificate(text) for text in backing.chain]
            refusal = self._chain_refusal(leaf, others, now_unix_ms)
        except _UNREADABLE:
            return refused("the certificate chain is not base64 of DER certificates")
        if refusal is not None:
            return refusal
        try:
            identity, key = identity_of(leaf), supported(leaf.public_key())
        except (KeyNotSupported, *_UNREADABLE) as error:
            return refused(f"the certificate is refused: {error}")
        opened = open_statement(request, self.kind, partial(is_signed_by, key), identity)
        if isinstance(opened, Refusal):
            return opened
        return until(opened, int(leaf.not_valid_after_utc.timestamp() * 1000))

    def claim(self, request: RegisterRequest, now_unix_ms: int) -> Refusal | None:
        del request, now_unix_ms
        return None

    def _chain_refusal(
        self, leaf: x509.Certificate, others: list[x509.Certificate], now_unix_ms: int
    ) -> Refusal | None:
        now = datetime.fromtimestamp(now_unix_ms / 1000, UTC)
        if now < leaf.not_valid_before_utc:
            return refused("the certificate is not yet valid")
        if now > leaf.not_valid_after_utc:
            return refused("the certificate has expired")
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(now)
            .max_chain_depth(MAX_CERTIFICATES)
            .build_client_verifier()
        )
        try:
            verifier.verify(leaf, others)
        except VerificationError:
            return refused("the certificate does not lead to a configured authority")
        if not any(selector.admits(leaf) for selector in self._selectors):
            return refused("no selector admits this certificate")
        return None


def _common_names_of(certificate: x509.Certificate) -> list[str]:
    named = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [str(attribute.value) for attribute in named]


def _has_beginning(pattern: str, value: str) -> bool:
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return value == pattern


def _is_host(pattern: str, value: str) -> bool:
    if pattern.startswith("*."):
        label, dot, rest = value.lower().partition(".")
        return bool(label and dot) and label != "*" and rest == pattern[2:].lower()
    return value.lower() == pattern.lower()


def _certificate(text: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("not base64") from error
