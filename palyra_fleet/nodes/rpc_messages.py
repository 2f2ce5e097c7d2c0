"""Messages of the wire to values and back. A response's `v` is `max(request.v, 1)`. Pure."""

from collections.abc import Iterable

from palyra_fleet.identity.messages import (
    AskPairingStatus,
    BeginPairing,
    BegunPairing,
    CompletedPairing,
    CompletePairing,
    IssuedCertificate,
    PairingStatus,
    Replay,
)
from palyra_fleet.nodes.capabilities import CapabilityDispatch, CapabilityResult
from palyra_fleet.nodes.streams import Notice, NoticeKind
from palyra_fleet.wire.protobuf import common_pb2, node_pb2

_KINDS = {
    NoticeKind.QUARANTINED: node_pb2.NODE_NOTICE_KIND_QUARANTINED,
    NoticeKind.LEASE_REVOKED: node_pb2.NODE_NOTICE_KIND_LEASE_REVOKED,
    NoticeKind.ROTATE_CERTIFICATE: node_pb2.NODE_NOTICE_KIND_ROTATE_CERTIFICATE,
}


def version_of(v: int) -> int:
    return max(v, 1)


def canonical(ulid: str) -> common_pb2.CanonicalId:
    return common_pb2.CanonicalId(ulid=ulid)


def replay_of(sent: common_pb2.ReplayProtection) -> Replay:
    return Replay(sent.nonce, sent.timestamp_unix_ms)


def begin_of(request: node_pb2.BeginPairingSessionRequest) -> BeginPairing:
    chosen = request.method.WhichOneof("value")
    return BeginPairing(
        client_kind=request.client_kind,
        pin_code=request.method.pin_code if chosen == "pin_code" else None,
        qr_token=request.method.qr_token if chosen == "qr_token" else None,
        replay=replay_of(request.replay) if request.HasField("replay") else None,
    )


def begun_message(v: int, begun: BegunPairing) -> node_pb2.BeginPairingSessionResponse:
    return node_pb2.BeginPairingSessionResponse(
        v=version_of(v),
        session_id=begun.session_id,
        client_kind=begun.client_kind.value,
        gateway_ephemeral_public=begun.gateway_ephemeral_public,
        challenge=begun.challenge,
        expires_at_unix_ms=begun.expires_at_unix_ms,
    )


def complete_of(request: node_pb2.CompletePairingSessionRequest) -> CompletePairing:
    return CompletePairing(
        version=request.v,
        session_id=request.session_id,
        device_id=request.device_id.ulid,
        client_kind=request.client_kind,
        proof=request.proof,
        device_signing_public=request.device_signing_public,
        device_x25519_public=request.device_x25519_public,
        challenge_signature=request.challenge_signature,
        transcript_mac=request.transcript_mac,
        certificate_signing_request_pem=request.certificate_signing_request_pem,
    )


def completed_message(
    v: int, completed: CompletedPairing
) -> node_pb2.CompletePairingSessionResponse:
    return node_pb2.CompletePairingSessionResponse(
        v=version_of(v),
        paired=False,
        reason="pending_approval",
        identity_fingerprint=completed.identity_fingerprint,
        transcript_hash=completed.transcript_hash,
    )


def status_of(request: node_pb2.GetPairingRequestStatusRequest) -> AskPairingStatus:
    return AskPairingStatus(request.session_id, request.device_id.ulid, request.device_signature)


def status_message(v: int, status: PairingStatus) -> node_pb2.GetPairingRequestStatusResponse:
    return node_pb2.GetPairingRequestStatusResponse(
        v=version_of(v),
        status=status.state.value,
        reason=status.reason,
        paired=status.paired,
        approval_id=status.approval_id,
        identity_fingerprint=status.identity_fingerprint,
        transcript_hash=status.transcript_hash,
        mtls_client_certificate_pem=status.mtls_client_certificate_pem,
        mtls_client_private_key_pem=status.mtls_client_private_key_pem,
        gateway_ca_certificate_pem=status.gateway_ca_certificate_pem,
        cert_expires_at_unix_ms=status.cert_expires_at_unix_ms,
    )


def rotated_message(v: int, issued: IssuedCertificate) -> node_pb2.RotateDeviceCertificateResponse:
    return node_pb2.RotateDeviceCertificateResponse(
        v=version_of(v),
        rotated=True,
        reason="rotated",
        mtls_client_certificate_pem=issued.certificate_pem,
        mtls_client_private_key_pem=issued.private_key_pem,
        cert_expires_at_unix_ms=issued.cert_expires_at_unix_ms,
        gateway_ca_certificate_pem=issued.gateway_ca_certificate_pem,
    )


def executed_message(v: int, result: CapabilityResult) -> node_pb2.ExecuteCapabilityResponse:
    return node_pb2.ExecuteCapabilityResponse(
        v=version_of(v),
        success=result.success,
        output_json=result.output_json,
        error=result.error,
    )


def dispatch_message(dispatch: CapabilityDispatch) -> node_pb2.NodeCapabilityDispatch:
    return node_pb2.NodeCapabilityDispatch(
        request_id=canonical(dispatch.request_id),
        capability=dispatch.capability,
        input_json=dispatch.input_json,
        max_payload_bytes=dispatch.max_payload_bytes,
    )


def notice_messages(notices: Iterable[Notice]) -> list[node_pb2.NodeNotice]:
    return [
        node_pb2.NodeNotice(
            notice_id=canonical(notice.notice_id),
            kind=_KINDS[notice.kind],
            subject_id=notice.subject_id,
            reason=notice.reason,
            issued_at_unix_ms=notice.issued_at_unix_ms,
        )
        for notice in notices
    ]
