"""What is asked of pairing and identity, and what is answered: plain values, no transport.

Fields repeat those of the wire messages; a value here is as the caller sent it, checked by nobody
yet, unless its name or type says otherwise. `repr` of what carries a code or a private key shows
neither. Times: Unix ms. Pure.
"""

from dataclasses import dataclass, field

from palyra_fleet.identity.records import ClientKind, CodeMethod, RequestState


@dataclass(frozen=True, slots=True)
class Replay:
    """`ReplayProtection` as sent."""

    nonce: str
    timestamp_unix_ms: int


@dataclass(frozen=True, slots=True)
class BeginPairing:
    """Exactly one of the two codes is set; both None means the oneof was empty."""

    client_kind: str
    pin_code: str | None = field(default=None, repr=False)
    qr_token: str | None = field(default=None, repr=False)
    replay: Replay | None = None


@dataclass(frozen=True, slots=True)
class BegunPairing:
    session_id: str
    client_kind: ClientKind
    gateway_ephemeral_public: bytes
    challenge: bytes
    expires_at_unix_ms: int


@dataclass(frozen=True, slots=True)
class CompletePairing:
    """`version` is the request's `v`; 0 counts as 1."""

    version: int
    session_id: str
    device_id: str
    client_kind: str
    proof: str = field(repr=False)
    device_signing_public: bytes
    device_x25519_public: bytes
    challenge_signature: bytes
    transcript_mac: bytes
    certificate_signing_request_pem: str = ""


@dataclass(frozen=True, slots=True)
class CompletedPairing:
    """Always `paired=false, reason="pending_approval"`: an operator decides."""

    approval_id: str
    identity_fingerprint: str
    transcript_hash: str


@dataclass(frozen=True, slots=True)
class AskPairingStatus:
    session_id: str
    device_id: str
    device_signature: bytes = b""


@dataclass(frozen=True, slots=True)
class PairingStatus:
    """The answer to a status poll. The private key is there once at most, see `pairing_service`."""

    state: RequestState
    reason: str
    approval_id: str
    identity_fingerprint: str
    transcript_hash: str
    mtls_client_certificate_pem: str = ""
    mtls_client_private_key_pem: str = field(default="", repr=False)
    gateway_ca_certificate_pem: str = ""
    cert_expires_at_unix_ms: int = 0

    @property
    def paired(self) -> bool:
        return self.state is RequestState.COMPLETED


@dataclass(frozen=True, slots=True)
class MintedCode:
    """A new code, shown to the operator once. `code_hash` names it afterwards."""

    code: str = field(repr=False)
    code_hash: str
    method: CodeMethod
    expires_at_unix_ms: int


@dataclass(frozen=True, slots=True)
class VerifiedLeaf:
    """A client certificate that chains to the fleet's authority and has the device profile.

    Made by `verify_client_certificate` only. Whether its device may speak is `admit`'s to say.
    """

    fingerprint: str
    device_id: str
    not_before_unix_ms: int
    not_after_unix_ms: int


@dataclass(frozen=True, slots=True)
class PairedDevice:
    """A device that may speak, and with which certificate it does.

    `signing_public_key` is the Ed25519 key it paired with; `identity_fingerprint` is that key's
    thumbprint, by which the fleet knows enrolled proxies.
    """

    device_id: str
    client_kind: ClientKind
    identity_fingerprint: str
    signing_public_key: bytes
    fingerprint: str
    cert_expires_at_unix_ms: int
    rotate_from_unix_ms: int
    """From here on a rotation is offered (half of the certificate's life)."""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate for a device, with the key if the fleet had to make it."""

    certificate_pem: str
    fingerprint: str
    gateway_ca_certificate_pem: str
    cert_expires_at_unix_ms: int
    private_key_pem: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RevocationNotice:
    """These certificates are no longer good: end what is open under them, now."""

    device_id: str
    fingerprints: frozenset[str]
    reason: str
    device_gone: bool
    """The device itself is revoked or removed, so its node record and queue go too."""
