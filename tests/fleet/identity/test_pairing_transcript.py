"""The published vector, byte for byte, and keys that would let anybody share or sign."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from palyra_fleet.identity import pairing_transcript as transcript
from palyra_fleet.wire.keys import signature_is_valid, thumbprint_sha256

SESSION, DEVICE, KIND, PROOF = (
    "01ARZ3NDEKTSV4RRFFQ69G5FAW",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "node",
    "123456",
)
GATEWAY_SECRET = bytes(range(0x00, 0x20))
DEVICE_SECRET = bytes(range(0x20, 0x40))
SIGNING_SEED = bytes(range(0x40, 0x60))
CHALLENGE = bytes(range(0x60, 0x80))

GATEWAY_PUBLIC = "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f"
DEVICE_X25519 = "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"
DEVICE_ED25519 = "2543b92ff1095511476adc8369db6ddc933665a11978dda1404ee1066ca9559d"
SIGNATURE = (
    "fc6036a2752db301a32c3e93f3a2e566e45b0db3b3617d2a34e833a1f24cda60"
    "eabe96c5dde70c27027d0bca256f993cb941c2dcae3ec81a2d6f430322aa7408"
)
SHARED = "9663aa1da97e848a914a436d04163dfbb89178f107f1b5b77ed3854203382854"
MAC = "3e966b4a2b93680c6a0d8582103b3fa333f41a94e0c5aafdc615459f21ec1fa6"
TRANSCRIPT_HASH = "0880c6f8e9e5cbda4d7896fce5d168eb9f44467f70bd7fa5759d31dcd111bce5"
FINGERPRINT = "03396219237f75a64f12aeb7f39723abf400b160c364980a765dac24aeba2464"


def test_the_known_answer() -> None:
    gateway_public = transcript.public_of(GATEWAY_SECRET)
    assert gateway_public.hex() == GATEWAY_PUBLIC
    device_x25519 = X25519PrivateKey.from_private_bytes(DEVICE_SECRET)
    device_public = device_x25519.public_key().public_bytes_raw()
    assert device_public.hex() == DEVICE_X25519
    signing = Ed25519PrivateKey.from_private_bytes(SIGNING_SEED)
    signing_public = signing.public_key().public_bytes_raw()
    assert signing_public.hex() == DEVICE_ED25519

    payload = transcript.signature_payload(
        1, SESSION, CHALLENGE, gateway_public, DEVICE, KIND, PROOF
    )
    assert signing.sign(payload).hex() == SIGNATURE
    assert signature_is_valid(signing_public, bytes.fromhex(SIGNATURE), payload)

    shared = transcript.shared_secret(GATEWAY_SECRET, device_public)
    assert shared is not None
    assert shared.hex() == SHARED
    assert transcript.shared_secret(DEVICE_SECRET, gateway_public) == shared

    context = transcript.transcript_context(1, SESSION, DEVICE, KIND)
    mac = transcript.transcript_mac(shared, CHALLENGE, context)
    assert mac.hex() == MAC
    assert transcript.transcript_hash(mac) == TRANSCRIPT_HASH
    assert transcript.identity_fingerprint(signing_public) == FINGERPRINT


def test_the_version_is_four_bytes_little_endian() -> None:
    payload = transcript.signature_payload(0x01020304, SESSION, CHALLENGE, b"", DEVICE, KIND, "")
    assert payload.startswith(b"palyra-pairing-v1\x04\x03\x02\x01" + SESSION.encode())
    context = transcript.transcript_context(0x01020304, SESSION, DEVICE, KIND)
    assert context == (
        b"palyra-mtls-transcript-v1"
        + SESSION.encode()
        + b"\x04\x03\x02\x01"
        + DEVICE.encode()
        + b"node"
    )


# Source: RFC 7748, section 6.1; the points of small order on Curve25519
SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_key_with_which_anybody_shares_zeros_is_refused(point: str) -> None:
    assert transcript.shared_secret(GATEWAY_SECRET, bytes.fromhex(point)) is None


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_shares_nothing(length: int) -> None:
    assert transcript.shared_secret(GATEWAY_SECRET, bytes([9]) * length) is None


def test_a_status_poll_is_signed_for_one_session() -> None:
    key = Ed25519PrivateKey.from_private_bytes(SIGNING_SEED)
    public = key.public_key().public_bytes_raw()
    signature = key.sign(b"palyra-pairing-status-v1" + SESSION.encode())
    assert transcript.status_signature_is_valid(public, SESSION, signature)
    assert not transcript.status_signature_is_valid(public, DEVICE, signature)
    assert not transcript.status_signature_is_valid(public, SESSION, b"")
    assert not transcript.status_signature_is_valid(bytes(32), SESSION, bytes(64))


def test_a_device_is_named_as_the_fleet_names_enrolled_keys() -> None:
    public = bytes.fromhex(DEVICE_ED25519)
    assert transcript.identity_fingerprint(public) == thumbprint_sha256(public)
