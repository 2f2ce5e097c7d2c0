"""What becomes of a verified request: an operator's decision, made once, and the device's polls.

pending → approved | rejected | expired; approved → completed | rejected | expired; nothing ever
leaves rejected, completed or expired. A poll of an approved request answers `CertificateDue`: the
service issues, makes it durable, and answers. Times: Unix ms. Pure.
"""

from dataclasses import dataclass, replace

from palyra_fleet.identity import pairing_transcript as transcript
from palyra_fleet.identity.messages import AskPairingStatus, PairingStatus
from palyra_fleet.identity.pairing import PairingDecision, PairingLedger, is_over
from palyra_fleet.identity.pairing_input import session_refusal
from palyra_fleet.identity.records import (
    DevicePairingRequestRecord,
    PairingChange,
    PairingMaterial,
    RequestState,
)
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, refuse


@dataclass(frozen=True, slots=True)
class DeviceStanding:
    """What identity knows about the device a request names."""

    revoked: bool
    identity_fingerprint: str | None
    """Of the signing key it is paired with now, if it is."""


@dataclass(frozen=True, slots=True)
class CertificateDue:
    """An approved request whose certificate is to be issued now."""

    request: DevicePairingRequestRecord


def decide(
    ledger: PairingLedger,
    now: int,
    approval_id: str,
    standing: DeviceStanding | None,
    *,
    approve: bool,
    decided_by: str,
    reason: str,
    replace_identity: bool,
) -> PairingDecision[DevicePairingRequestRecord]:
    """An operator's word, once. `standing` is needed to approve."""
    request = ledger.request_of_approval(approval_id)
    if request is None:
        return PairingDecision(refuse(NodeReason.REQUEST_UNKNOWN))
    if is_over(request, now):
        return _expired(request, refuse(NodeReason.ALREADY_DECIDED, state="expired"))
    if request.state is not RequestState.PENDING:
        return PairingDecision(refuse(NodeReason.ALREADY_DECIDED, state=request.state.value))
    if approve:
        refusal = _approval_refusal(ledger, now, request, standing, replace_identity)
        if refusal is not None:
            return PairingDecision(refusal)
    decided = replace(
        request,
        state=RequestState.APPROVED if approve else RequestState.REJECTED,
        decision_reason=reason or None,
        decided_by=decided_by,
        decided_at_unix_ms=now,
        expires_at_unix_ms=max(
            request.expires_at_unix_ms, now + ledger.settings.collect_ms if approve else 0
        ),
    )
    return PairingDecision(decided, PairingChange(put_requests=(decided,)))


def poll(
    ledger: PairingLedger, now: int, asked: AskPairingStatus
) -> PairingDecision[PairingStatus | CertificateDue]:
    """Where a request stands, told to the device that made it."""
    malformed = session_refusal(asked.session_id, asked.device_id)
    if malformed is not None:
        return PairingDecision(malformed)
    request = ledger.requests.get(asked.session_id)
    if request is None:
        return PairingDecision(refuse(NodeReason.REQUEST_UNKNOWN))
    if request.device_id != asked.device_id:
        return PairingDecision(refuse(NodeReason.REQUEST_OTHER_DEVICE))
    if (
        not ledger.makes_keys or asked.device_signature
    ) and not transcript.status_signature_is_valid(
        bytes.fromhex(request.verified_pairing.signing_public_key_hex),
        request.session_id,
        asked.device_signature,
    ):
        return PairingDecision(refuse(NodeReason.STATUS_SIGNATURE))
    if is_over(request, now):
        return _expired(request, status_of(replace(request, state=RequestState.EXPIRED)))
    if request.state is RequestState.APPROVED:
        return PairingDecision(CertificateDue(request))
    return PairingDecision(status_of(request))


def completed(
    request: DevicePairingRequestRecord, material: PairingMaterial, private_key_pem: str = ""
) -> PairingDecision[PairingStatus]:
    """The certificate was issued. A key goes into this answer only, never into the record."""
    done = replace(request, state=RequestState.COMPLETED, material=material)
    answer = replace(status_of(done), mtls_client_private_key_pem=private_key_pem)
    return PairingDecision(answer, PairingChange(put_requests=(done,)))


def not_issued(request: DevicePairingRequestRecord, why: str) -> PairingDecision[PairingStatus]:
    """The certificate can no longer be issued; the approval is void."""
    done = replace(request, state=RequestState.REJECTED, decision_reason=why)
    return PairingDecision(status_of(done), PairingChange(put_requests=(done,)))


def status_of(request: DevicePairingRequestRecord) -> PairingStatus:
    """The answer for a request as it stands; never with a private key."""
    material = request.material
    return PairingStatus(
        state=request.state,
        reason=request.decision_reason or request.state.value
        if request.state is RequestState.REJECTED
        else request.state.value,
        approval_id=request.approval_id,
        identity_fingerprint=request.verified_pairing.identity_fingerprint,
        transcript_hash=request.verified_pairing.transcript_hash_hex,
        mtls_client_certificate_pem=material.mtls_client_certificate_pem if material else "",
        gateway_ca_certificate_pem=material.gateway_ca_certificate_pem if material else "",
        cert_expires_at_unix_ms=material.cert_expires_at_unix_ms if material else 0,
    )


def _expired[A](request: DevicePairingRequestRecord, answer: A | NodeRefusal) -> PairingDecision[A]:
    gone = replace(request, state=RequestState.EXPIRED)
    return PairingDecision(answer, PairingChange(put_requests=(gone,)))


def _approval_refusal(
    ledger: PairingLedger,
    now: int,
    request: DevicePairingRequestRecord,
    standing: DeviceStanding | None,
    replace_identity: bool,
) -> NodeRefusal | None:
    if standing is None or standing.revoked:
        return refuse(NodeReason.DEVICE_REVOKED)
    identities = {standing.identity_fingerprint} | {
        other.verified_pairing.identity_fingerprint
        for other in ledger.requests.values()
        if other.device_id == request.device_id
        and other.state is RequestState.APPROVED
        and not is_over(other, now)
    }
    identities -= {None, request.verified_pairing.identity_fingerprint}
    if identities and not replace_identity:
        return refuse(NodeReason.REPLACES_IDENTITY)
    return None
