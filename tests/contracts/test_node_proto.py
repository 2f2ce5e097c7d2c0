"""What clients written for the published protocol count on: packages, names, numbers, bytes."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor

from palyra_fleet.wire.protobuf import common_pb2, node_pb2

FIRST_OF_OURS = 32

# message | number type name, … | reserved ranges; as published. Ours stand in OURS.
PUBLISHED = """
CanonicalId | 1 string ulid | 2-3
ReplayProtection | 1 string nonce, 2 int64 timestamp_unix_ms, 3 string signature | 4-5
PairingMethod | 1 string pin_code, 2 string qr_token | 3-8
BeginPairingSessionRequest | 1 uint32 v, 2 string client_kind, 3 PairingMethod method, \
4 ReplayProtection replay | 5-16
BeginPairingSessionResponse | 1 uint32 v, 2 string session_id, 3 string client_kind, \
4 bytes gateway_ephemeral_public, 5 bytes challenge, 6 uint64 expires_at_unix_ms | 7-16
CompletePairingSessionRequest | 1 uint32 v, 2 string session_id, 3 CanonicalId device_id, \
4 string client_kind, 5 string proof, 6 bytes device_signing_public, 7 bytes device_x25519_public, \
8 bytes challenge_signature, 9 bytes transcript_mac | 10-24
CompletePairingSessionResponse | 1 uint32 v, 2 bool paired, 3 string reason, \
4 string identity_fingerprint, 5 string transcript_hash, 6 string mtls_client_certificate_pem, \
7 string mtls_client_private_key_pem, 8 string gateway_ca_certificate_pem, \
9 uint64 cert_expires_at_unix_ms | 10-24
GetPairingRequestStatusRequest | 1 uint32 v, 2 string session_id, 3 CanonicalId device_id | 4-12
GetPairingRequestStatusResponse | 1 uint32 v, 2 string status, 3 string reason, 4 bool paired, \
5 string approval_id, 6 string identity_fingerprint, 7 string transcript_hash, \
8 string mtls_client_certificate_pem, 9 string mtls_client_private_key_pem, \
10 string gateway_ca_certificate_pem, 11 uint64 cert_expires_at_unix_ms | 12-24
RotateDeviceCertificateRequest | 1 uint32 v, 2 CanonicalId device_id, \
3 ReplayProtection replay | 4-12
RotateDeviceCertificateResponse | 1 uint32 v, 2 bool rotated, 3 string reason, \
4 string mtls_client_certificate_pem, 5 string mtls_client_private_key_pem, \
6 uint64 cert_expires_at_unix_ms | 7-16
RevokeDevicePairingRequest | 1 uint32 v, 2 CanonicalId device_id, 3 string reason, \
4 ReplayProtection replay | 5-12
RevokeDevicePairingResponse | 1 uint32 v, 2 bool revoked, 3 string reason | 4-12
DeviceCapability | 1 string name, 2 bool available | 3-8
RegisterNodeRequest | 1 uint32 v, 2 CanonicalId device_id, 3 string platform, \
4 repeated DeviceCapability capabilities, 5 ReplayProtection replay | 6-16
RegisterNodeResponse | 1 uint32 v, 2 CanonicalId device_id, 3 bool accepted, 4 string reason | 5-12
NodeEventRequest | 1 uint32 v, 2 CanonicalId device_id, 3 string event_name, \
4 bytes payload_json, 5 ReplayProtection replay | 6-12
NodeEventResponse | 1 uint32 v, 2 CanonicalId event_id, 3 bool accepted, 4 string reason, \
13 NodeCapabilityDispatch dispatch | 5-12
NodeCapabilityDispatch | 1 CanonicalId request_id, 2 string capability, 3 bytes input_json, \
4 uint64 max_payload_bytes | 5-12
ExecuteCapabilityRequest | 1 uint32 v, 2 CanonicalId device_id, 3 string capability, \
4 bytes input_json, 5 uint64 max_payload_bytes | 6-12
ExecuteCapabilityResponse | 1 uint32 v, 2 bool success, 3 bytes output_json, 4 string error | 5-12
"""

OURS = {
    "CompletePairingSessionRequest": "32 string certificate_signing_request_pem",
    "GetPairingRequestStatusRequest": "32 bytes device_signature",
    "RotateDeviceCertificateRequest": "32 string certificate_signing_request_pem",
    "RotateDeviceCertificateResponse": "32 string gateway_ca_certificate_pem",
    "NodeEventRequest": "32 bool accepts_push",
    "NodeEventResponse": "32 repeated NodeNotice notices",
}
OUR_MESSAGES = {"NodeNotice"}

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def file_of(module: object) -> descriptor_pb2.FileDescriptorProto:
    found = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(found)  # type: ignore[attr-defined]
    return found


def messages() -> dict[str, descriptor_pb2.DescriptorProto]:
    return {
        message.name: message
        for module in (common_pb2, node_pb2)
        for message in file_of(module).message_type
    }


def said(field: descriptor_pb2.FieldDescriptorProto) -> str:
    kind = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
    name = kind.removeprefix("TYPE_").lower()
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        name = field.type_name.rpartition(".")[2]
    repeated = "repeated " if field.label == field.LABEL_REPEATED else ""
    return f"{field.number} {repeated}{name} {field.name}"


def published_rows() -> list[tuple[str, list[str], tuple[int, int]]]:
    rows = []
    for line in PUBLISHED.strip().splitlines():
        name, fields, reserved = (part.strip() for part in line.split("|"))
        first, last = reserved.split("-")
        rows.append((name, [field.strip() for field in fields.split(",")], (int(first), int(last))))
    return rows


def test_the_packages_are_the_published_ones() -> None:
    assert file_of(common_pb2).package == "palyra.common.v1"
    assert file_of(node_pb2).package == "palyra.node.v1"


def test_every_message_is_published_or_named_as_ours() -> None:
    assert set(messages()) == {name for name, _, _ in published_rows()} | OUR_MESSAGES


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: row[0])
def test_a_message_has_the_published_fields_and_reserves(
    row: tuple[str, list[str], tuple[int, int]],
) -> None:
    name, fields, (first, last) = row
    message = messages()[name]
    ours = [OURS[name]] if name in OURS else []
    assert [said(field) for field in message.field] == fields + ours
    reserved = {number for span in message.reserved_range for number in range(span.start, span.end)}
    assert reserved == set(range(first, last + 1))


def test_what_is_ours_can_never_meet_a_published_number() -> None:
    numbers = {
        name: {int(field.split()[0]) for field in fields} | set(range(first, last + 1))
        for name, fields, (first, last) in published_rows()
    }
    for name, field in OURS.items():
        assert int(field.split()[0]) >= FIRST_OF_OURS > max(numbers[name])


def test_the_pairing_code_is_one_of_two() -> None:
    method = messages()["PairingMethod"]
    assert [choice.name for choice in method.oneof_decl] == ["value"]
    assert {field.oneof_index for field in method.field if field.HasField("oneof_index")} == {0}


def test_the_service_has_the_published_methods() -> None:
    (service,) = file_of(node_pb2).service
    assert service.name == "NodeService"
    unary = [method.name for method in service.method if not method.client_streaming]
    assert unary == [
        "BeginPairingSession",
        "CompletePairingSession",
        "GetPairingRequestStatus",
        "RotateDeviceCertificate",
        "RevokeDevicePairing",
        "RegisterNode",
        "ExecuteCapability",
    ]
    for method in service.method:
        if method.client_streaming:
            continue
        assert not method.server_streaming
        assert method.input_type == f".palyra.node.v1.{method.name}Request"
        assert method.output_type == f".palyra.node.v1.{method.name}Response"
    (stream,) = [method for method in service.method if method.client_streaming]
    assert (stream.name, stream.server_streaming) == ("StreamNodeEvents", True)
    assert stream.input_type == ".palyra.node.v1.NodeEventRequest"
    assert stream.output_type == ".palyra.node.v1.NodeEventResponse"


# Written out by hand from the published numbers: tag = number << 3 | wire type, then length, bytes.
GOLDEN = [
    (
        node_pb2.BeginPairingSessionRequest(
            v=1, client_kind="node", method=node_pb2.PairingMethod(pin_code="123456")
        ),
        b"\x08\x01\x12\x04node\x1a\x08\x0a\x06123456",
    ),
    (
        node_pb2.RegisterNodeRequest(
            v=1,
            device_id=common_pb2.CanonicalId(ulid=ULID),
            platform="linux",
            capabilities=[node_pb2.DeviceCapability(name="echo", available=True)],
        ),
        b"\x08\x01\x12\x1c\x0a\x1a" + ULID.encode() + b"\x1a\x05linux\x22\x08\x0a\x04echo\x10\x01",
    ),
    (
        node_pb2.NodeEventResponse(
            v=1,
            accepted=True,
            reason="accepted",
            dispatch=node_pb2.NodeCapabilityDispatch(capability="echo", max_payload_bytes=300),
        ),
        b"\x08\x01\x18\x01\x22\x08accepted\x6a\x09\x12\x04echo\x20\xac\x02",
    ),
    (
        node_pb2.GetPairingRequestStatusRequest(v=1, session_id="s", device_signature=b"\xff"),
        b"\x08\x01\x12\x01s\x82\x02\x01\xff",
    ),
]


@pytest.mark.parametrize(("message", "expected"), GOLDEN)
def test_a_message_has_these_bytes_on_the_wire(message: object, expected: bytes) -> None:
    assert message.SerializeToString(deterministic=True) == expected  # type: ignore[attr-defined]
    assert type(message).FromString(expected) == message  # type: ignore[attr-defined]


def test_a_published_client_skips_what_is_ours() -> None:
    notice = node_pb2.NodeNotice(reason="rotate")
    ours = node_pb2.NodeEventResponse(v=1, accepted=True, notices=[notice]).SerializeToString()
    published = b"\x08\x01\x18\x01"
    assert ours.startswith(published)
    assert ours[len(published) :][:2] == b"\x82\x02"  # number 32, which that client skips


def test_the_committed_code_is_what_make_proto_makes(tmp_path: Path) -> None:
    repository = Path(__file__).resolve().parents[2]
    script = repository / "scripts" / "make_protos.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=60)
    committed = repository / "palyra_fleet" / "wire" / "protobuf"
    kept = {path.name: path.read_bytes() for path in committed.iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
