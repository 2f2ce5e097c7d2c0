"""Signing keys: named by their public half, kept in private files, never shown."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from palyra_fleet.wire.keys import (
    KeyFileError,
    SigningKey,
    signature_is_valid,
    thumbprint_sha256,
)

# RFC 8032, section 7.1, TEST 2: public key, message, signature
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
MESSAGE = b"\x72"
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_a_signature_of_the_standards_own_example_is_valid() -> None:
    assert signature_is_valid(PUBLIC, SIGNATURE, MESSAGE)


@pytest.mark.parametrize(
    ("public", "signature", "message"),
    [
        (PUBLIC, SIGNATURE, b"\x73"),
        (PUBLIC, SIGNATURE[:-1], MESSAGE),
        (PUBLIC, b"", MESSAGE),
        (PUBLIC, bytes(64), MESSAGE),
        (PUBLIC[:-1], SIGNATURE, MESSAGE),
        (b"", SIGNATURE, MESSAGE),
        (bytes(32), SIGNATURE, MESSAGE),
        (b"\xff" * 32, SIGNATURE, MESSAGE),
    ],
)
def test_anything_else_is_not_valid_and_raises_nothing(
    public: bytes, signature: bytes, message: bytes
) -> None:
    assert not signature_is_valid(public, signature, message)


def test_a_key_signs_what_its_public_half_verifies() -> None:
    key = SigningKey.generate()
    assert signature_is_valid(key.public_key, key.sign(b"m"), b"m")
    assert key.thumbprint == thumbprint_sha256(key.public_key)
    assert len(key.thumbprint) == 64


def test_a_key_file_is_made_once_private_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "worker.pem"
    made = SigningKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load_or_create(path).public_key == made.public_key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o700 | 0o010])
def test_a_key_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "worker.pem"
    SigningKey.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="too open"):
        SigningKey.load(path)


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "worker.pem"
    with pytest.raises(KeyFileError, match="cannot read"):
        SigningKey.load(path)
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for content, word in ((b"nonsense", "not a PEM"), (other, "Ed25519")):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match=word):
            SigningKey.load(path)


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "worker.pem"
    key = SigningKey.load_or_create(path)
    secret_line = path.read_text().splitlines()[1]
    assert secret_line not in repr(key)
    assert repr(key) == f"SigningKey({key.thumbprint[:16]}…)"
    assert os.fspath(path) not in repr(key)


@pytest.mark.parametrize("sign_bit", [0, 0x80])
@pytest.mark.parametrize(
    "start", ["00" * 31, "01" + "00" * 30, "ec" + "ff" * 30, "ed" + "ff" * 30, "ee" + "ff" * 30]
)
def test_a_key_with_which_anybody_can_sign_signs_nothing(start: str, sign_bit: int) -> None:
    last = (0x7F if start.endswith("ff") else 0) | sign_bit
    key = bytes.fromhex(start) + bytes([last])
    for point in (key, bytes([1]) + bytes(31)):
        for number in range(16):
            assert not signature_is_valid(key, point + bytes(32), b"message %d" % number)
