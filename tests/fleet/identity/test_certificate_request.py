"""Of a PKCS#10 request only a proven P-256 key is taken, and nothing it holds raises anything."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.identity.certificate_request import MAX_PEM_BYTES, checked_public_key
from tests.fakes.hostile_certificates import new_key
from tests.fakes.pairing_device import csr_pem

KEY = new_key()
PEM = csr_pem(KEY)
DER = base64.b64decode("".join(PEM.splitlines()[1:-1]))


def _pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> str:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n"


def test_a_good_request_gives_its_key() -> None:
    assert checked_public_key(PEM) == KEY.public_key()
    assert checked_public_key(_pem(DER)) == KEY.public_key()
    assert checked_public_key("a line before\n" + PEM) == KEY.public_key()


@given(place=st.integers(0, len(DER) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused(place: int, bit: int) -> None:
    changed = bytearray(DER)
    changed[place] ^= 1 << bit
    assert checked_public_key(_pem(bytes(changed))) is None


def test_a_signature_that_leaves_out_bits_is_refused() -> None:
    """Bits that are zero may be called unused: one request in two can be changed so."""
    for _ in range(20):
        der = bytearray(base64.b64decode("".join(csr_pem(new_key()).splitlines()[1:-1])))
        at = der.index(0, -75)
        assert der[at - 2] == 0x03
        der[at] = 1
        assert checked_public_key(_pem(bytes(der))) is None


@given(junk=st.binary(max_size=100))
def test_what_is_no_request_is_refused(junk: bytes) -> None:
    assert checked_public_key(_pem(junk)) is None


@pytest.mark.parametrize(
    "pem",
    [
        "",
        PEM + PEM,
        PEM + _pem(b"x", "PRIVATE KEY"),
        _pem(DER, "CERTIFICATE"),
        PEM + "\n" * MAX_PEM_BYTES,
        "é" + PEM,
        PEM[:-40],
    ],
)
def test_anything_but_one_request_is_refused(pem: str) -> None:
    assert checked_public_key(pem) is None
