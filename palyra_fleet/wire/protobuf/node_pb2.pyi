from palyra_fleet.wire.protobuf import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeNoticeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_NOTICE_KIND_UNSPECIFIED: _ClassVar[NodeNoticeKind]
    NODE_NOTICE_KIND_QUARANTINED: _ClassVar[NodeNoticeKind]
    NODE_NOTICE_KIND_LEASE_REVOKED: _ClassVar[NodeNoticeKind]
    NODE_NOTICE_KIND_ROTATE_CERTIFICATE: _ClassVar[NodeNoticeKind]
NODE_NOTICE_KIND_UNSPECIFIED: NodeNoticeKind
NODE_NOTICE_KIND_QUARANTINED: NodeNoticeKind
NODE_NOTICE_KIND_LEASE_REVOKED: NodeNoticeKind
NODE_NOTICE_KIND_ROTATE_CERTIFICATE: NodeNoticeKind

class PairingMethod(_message.Message):
    __slots__ = ("pin_code", "qr_token")
    PIN_CODE_FIELD_NUMBER: _ClassVar[int]
    QR_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pin_code: str
    qr_token: str
    def __init__(self, pin_code: _Optional[str] = ..., qr_token: _Optional[str] = ...) -> None: ...

class BeginPairingSessionRequest(_message.Message):
    __slots__ = ("v", "client_kind", "method", "replay")
    V_FIELD_NUMBER: _ClassVar[int]
    CLIENT_KIND_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    v: int
    client_kind: str
    method: PairingMethod
    replay: _common_pb2.ReplayProtection
    def __init__(self, v: _Optional[int] = ..., client_kind: _Optional[str] = ..., method: _Optional[_Union[PairingMethod, _Mapping]] = ..., replay: _Optional[_Union[_common_pb2.ReplayProtection, _Mapping]] = ...) -> None: ...

class BeginPairingSessionResponse(_message.Message):
    __slots__ = ("v", "session_id", "client_kind", "gateway_ephemeral_public", "challenge", "expires_at_unix_ms")
    V_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_KIND_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_EPHEMERAL_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    v: int
    session_id: str
    client_kind: str
    gateway_ephemeral_public: bytes
    challenge: bytes
    expires_at_unix_ms: int
    def __init__(self, v: _Optional[int] = ..., session_id: _Optional[str] = ..., client_kind: _Optional[str] = ..., gateway_ephemeral_public: _Optional[bytes] = ..., challenge: _Optional[bytes] = ..., expires_at_unix_ms: _Optional[int] = ...) -> None: ...

class CompletePairingSessionRequest(_message.Message):
    __slots__ = ("v", "session_id", "device_id", "client_kind", "proof", "device_signing_public", "device_x25519_public", "challenge_signature", "transcript_mac", "certificate_signing_request_pem")
    V_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_KIND_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SIGNING_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    DEVICE_X25519_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_MAC_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SIGNING_REQUEST_PEM_FIELD_NUMBER: _ClassVar[int]
    v: int
    session_id: str
    device_id: _common_pb2.CanonicalId
    client_kind: str
    proof: str
    device_signing_public: bytes
    device_x25519_public: bytes
    challenge_signature: bytes
    transcript_mac: bytes
    certificate_signing_request_pem: str
    def __init__(self, v: _Optional[int] = ..., session_id: _Optional[str] = ..., device_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., client_kind: _Optional[str] = ..., proof: _Optional[str] = ..., device_signing_public: _Optional[bytes] = ..., device_x25519_public: _Optional[bytes] = ..., challenge_signature: _Optional[bytes] = ..., transcript_mac: _Optional[bytes] = ..., certificate_signing_request_pem: _Optional[str] = ...) -> None: ...

class CompletePairingSessionResponse(_message.Message):
    __slots__ = ("v", "paired", "reason", "identity_fingerprint", "transcript_hash", "mtls_client_certificate_pem", "mtls_client_private_key_pem", "gateway_ca_certificate_pem", "cert_expires_at_unix_ms")
    V_FIELD_NUMBER: _ClassVar[int]
    PAIRED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_HASH_FIELD_NUMBER: _ClassVar[int]
    MTLS_CLIENT_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    MTLS_CLIENT_PRIVATE_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_CA_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CERT_EXPIRES_AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    v: int
    paired: bool
    reason: str
    identity_fingerprint: str
    transcript_hash: str
    mtls_client_certificate_pem: str
    mtls_client_private_key_pem: str
    gateway_ca_certificate_pem: str
    cert_expires_at_unix_ms: int
    def __init__(self, v: _Optional[int] = ..., paired: _Optional[bool] = ..., reason: _Optional[str] = ..., identity_fingerprint: _Optional[str] = ..., transcript_hash: _Optional[str] = ..., mtls_client_certificate_pem: _Optional[str] = ..., mtls_client_private_key_pem: _Optional[str] = ..., gateway_ca_certificate_pem: _Optional[str] = ..., cert_expires_at_unix_ms: _Optional[int] = ...) -> None: ...

class GetPairingRequestStatusRequest(_message.Message):
    __slots__ = ("v", "session_id", "device_id", "device_signature")
    V_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    v: int
    session_id: str
    device_id: _common_pb2.CanonicalId
    device_signature: bytes
    def __init__(self, v: _Optional[int] = ..., session_id: _Optional[str] = ..., device_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., device_signature: _Optional[bytes] = ...) -> None: ...

class GetPairingRequestStatusResponse(_message.Message):
    __slots__ = ("v", "status", "reason", "paired", "approval_id", "identity_fingerprint", "transcript_hash", "mtls_client_certificate_pem", "mtls_client_private_key_pem", "gateway_ca_certificate_pem", "cert_expires_at_unix_ms")
    V_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PAIRED_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_HASH_FIELD_NUMBER: _ClassVar[int]
    MTLS_CLIENT_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    MTLS_CLIENT_PRIVATE_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_CA_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CERT_EXPIRES_AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    v: int
    status: str
    reason: str
    paired: bool
    approval_id: str
    identity_fingerprint: str
    transcript_hash: str
    mtls_client_certificate_pem: str
    mtls_client_private_key_pem: str
    gateway_ca_certificate_pem: str
    cert_expires_at_unix_ms: int
    def __init__(self, v: _Optional[int] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., paired: _Optional[bool] = ..., approval_id: _Optional[str] = ..., identity_fingerprint: _Optional[str] = ..., transcript_hash: _Optional[str] = ..., mtls_client_certificate_pem: _Optional[str] = ..., mtls_client_private_key_pem: _Optional[str] = ..., gateway_ca_certificate_pem: _Optional[str] = ..., cert_expires_at_unix_ms: _Optional[int] = ...) -> None: ...

class RotateDeviceCertificateRequest(_message.Message):
    __slots__ = ("v", "device_id", "replay", "certificate_signing_request_pem")
    V_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SIGNING_REQUEST_PEM_FIELD_NUMBER: _ClassVar[int]
    v: int
    device_id: _common_pb2.CanonicalId
    replay: _common_pb2.ReplayProtection
    certificate_signing_request_pem: str
    def __init__(self, v: _Optional[int] = ..., device_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., replay: _Optional[_Union[_common_pb2.ReplayProtection, _Mapping]] = ..., certificate_signing_request_pem: _Optional[str] = ...) -> None: ...

class RotateDeviceCertificateResponse(_message.Message):
    __slots__ = ("v", "rotated", "reason", "mtls_client_certificate_pem", "mtls_client_private_key_pem", "cert_expires_at_unix_ms", "gateway_ca_certificate_pem")
    V_FIELD_NUMBER: _ClassVar[int]
    ROTATED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MTLS_CLIENT_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    MTLS_CLIENT_PRIVATE_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    CERT_EXPIRES_AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_CA_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    v: int
    rotated: bool
    reason: str
    mtls_client_certificate_pem: str
    mtls_client_private_key_pem: str
    cert_expires_at_unix_ms: int
    gateway_ca_certificate_pem: str
    def __init__(self, v: _Optional[int] = ..., rotated: _Optional[bool] = ..., reason: _Optional[str] = ..., mtls_client_certificate_pem: _Optional[str] = ..., mtls_client_private_key_pem: _Optional[str] = ..., cert_expires_at_unix_ms: _Optional[int] = ..., gateway_ca_certificate_pem: _Optional[str] = ...) -> None: ...

class RevokeDevicePairingRequest(_message.Message):
    __slots__ = ("v", "device_id", "reason", "replay")
    V_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    v: int
    device_id: _common_pb2.CanonicalId
    reason: str
    replay: _common_pb2.ReplayProtection
    def __init__(self, v: _Optional[int] = ..., device_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., reason: _Optional[str] = ..., replay: _Optional[_Union[_common_pb2.ReplayProtection, _Mapping]] = ...) -> None: ...

class RevokeDevicePairingResponse(_message.Message):
    __slots__ = ("v", "revoked", "reason")
    V_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    v: int
    revoked: bool
    reason: str
    def __init__(self, v: _Optional[int] = ..., revoked: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class DeviceCapability(_message.Message):
    __slots__ = ("name", "available")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    available: bool
    def __init__(self, name: _Optional[str] = ..., available: _Optional[bool] = ...) -> None: ...

class RegisterNodeRequest(_message.Message):
    __slots__ = ("v", "device_id", "platform", "capabilities", "replay")
    V_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    v: int
    device_id: _common_pb2.CanonicalId
    platform: str
    capabilities: _containers.RepeatedCompositeFieldContainer[DeviceCapability]
    replay: _common_pb2.ReplayProtection
    def __init__(self, v: _Optional[int] = ..., device_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., platform: _Optional[str] = ..., capabilities: _Optional[_Iterable[_Union[DeviceCapability, _Mapping]]] = ..., replay: _Optional[_Union[_common_pb2.ReplayProtection, _Mapping]] = ...) -> None: ...

class RegisterNodeResponse(_message.Message):
    __slots__ = ("v", "device_id", "accepted", "reason")
    V_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    v: int
    device_id: _common_pb2.CanonicalId
    accepted: bool
    reason: str
    def __init__(self, v: _Optional[int] = ..., device_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., accepted: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class NodeEventRequest(_message.Message):
    __slots__ = ("v", "device_id", "event_name", "payload_json", "replay", "accepts_push")
    V_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_PUSH_FIELD_NUMBER: _ClassVar[int]
    v: int
    device_id: _common_pb2.CanonicalId
    event_name: str
    payload_json: bytes
    replay: _common_pb2.ReplayProtection
    accepts_push: bool
    def __init__(self, v: _Optional[int] = ..., device_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., event_name: _Optional[str] = ..., payload_json: _Optional[bytes] = ..., replay: _Optional[_Union[_common_pb2.ReplayProtection, _Mapping]] = ..., accepts_push: _Optional[bool] = ...) -> None: ...

class NodeEventResponse(_message.Message):
    __slots__ = ("v", "event_id", "accepted", "reason", "dispatch", "notices")
    V_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DISPATCH_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    v: int
    event_id: _common_pb2.CanonicalId
    accepted: bool
    reason: str
    dispatch: NodeCapabilityDispatch
    notices: _containers.RepeatedCompositeFieldContainer[NodeNotice]
    def __init__(self, v: _Optional[int] = ..., event_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., accepted: _Optional[bool] = ..., reason: _Optional[str] = ..., dispatch: _Optional[_Union[NodeCapabilityDispatch, _Mapping]] = ..., notices: _Optional[_Iterable[_Union[NodeNotice, _Mapping]]] = ...) -> None: ...

class NodeCapabilityDispatch(_message.Message):
    __slots__ = ("request_id", "capability", "input_json", "max_payload_bytes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    MAX_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_id: _common_pb2.CanonicalId
    capability: str
    input_json: bytes
    max_payload_bytes: int
    def __init__(self, request_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., capability: _Optional[str] = ..., input_json: _Optional[bytes] = ..., max_payload_bytes: _Optional[int] = ...) -> None: ...

class ExecuteCapabilityRequest(_message.Message):
    __slots__ = ("v", "device_id", "capability", "input_json", "max_payload_bytes")
    V_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    MAX_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    v: int
    device_id: _common_pb2.CanonicalId
    capability: str
    input_json: bytes
    max_payload_bytes: int
    def __init__(self, v: _Optional[int] = ..., device_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., capability: _Optional[str] = ..., input_json: _Optional[bytes] = ..., max_payload_bytes: _Optional[int] = ...) -> None: ...

class ExecuteCapabilityResponse(_message.Message):
    __slots__ = ("v", "success", "output_json", "error")
    V_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    v: int
    success: bool
    output_json: bytes
    error: str
    def __init__(self, v: _Optional[int] = ..., success: _Optional[bool] = ..., output_json: _Optional[bytes] = ..., error: _Optional[str] = ...) -> None: ...

class NodeNotice(_message.Message):
    __slots__ = ("notice_id", "kind", "subject_id", "reason", "issued_at_unix_ms")
    NOTICE_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    notice_id: _common_pb2.CanonicalId
    kind: NodeNoticeKind
    subject_id: str
    reason: str
    issued_at_unix_ms: int
    def __init__(self, notice_id: _Optional[_Union[_common_pb2.CanonicalId, _Mapping]] = ..., kind: _Optional[_Union[NodeNoticeKind, str]] = ..., subject_id: _Optional[str] = ..., reason: _Optional[str] = ..., issued_at_unix_ms: _Optional[int] = ...) -> None: ...
