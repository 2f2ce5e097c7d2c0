"""DSSE: only bytes under this key's signature and this type are ever given out."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from palyra_fleet.wire.dsse import (
    ATTESTATION_TYPE,
    MAX_PAYLOAD_BYTES,
    RECEIPT_TYPE,
    DsseEnvelope,
    DsseSignature,
    EnvelopeRefused,
    open_envelope,
    pre_authentication_encoding,
    seal,
)
from palyra_fleet.wire.keys import SigningKey

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
SEALED = seal(KEY, RECEIPT_TYPE, b"payload")


def test_the_signed_bytes_are_those_of_the_standards_example() -> None:
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(payload=st.binary(max_size=300))
def test_what_was_sealed_is_what_is_opened(payload: bytes) -> None:
    assert open_envelope(seal(KEY, RECEIPT_TYPE, payload), RECEIPT_TYPE, KEY.public_key) == payload


def envelope(**changes: object) -> DsseEnvelope:
    return SEALED.model_copy(update=changes)


OWN = SEALED.signatures[0]
REFUSED = [
    pytest.param(envelope(payloadType=ATTESTATION_TYPE), id="another type"),
    pytest.param(envelope(signatures=()), id="no signature"),
    pytest.param(envelope(signatures=(OWN, OWN)), id="two signatures"),
    pytest.param(
        envelope(signatures=seal(OTHER, RECEIPT_TYPE, b"payload").signatures), id="another key's"
    ),
    pytest.param(
        envelope(signatures=seal(KEY, ATTESTATION_TYPE, b"payload").signatures),
        id="signed as another type",
    ),
    pytest.param(envelope(payload=base64.b64encode(b"other").decode()), id="another payload"),
    pytest.param(envelope(payload="not base64!"), id="a payload that is not base64"),
    pytest.param(envelope(payload=SEALED.payload + "\n"), id="base64 with a line break"),
    pytest.param(
        envelope(signatures=(DsseSignature(keyid=OWN.keyid, sig="!"),)), id="no base64 signature"
    ),
    pytest.param(seal(KEY, RECEIPT_TYPE, b"x" * (MAX_PAYLOAD_BYTES + 1)), id="too large"),
]


@pytest.mark.parametrize("sealed", REFUSED)
def test_an_envelope_that_is_not_exactly_right_is_refused(sealed: DsseEnvelope) -> None:
    with pytest.raises(EnvelopeRefused):
        open_envelope(sealed, RECEIPT_TYPE, KEY.public_key)


def test_the_key_that_is_claimed_does_not_matter_only_the_one_that_is_expected() -> None:
    claimed = DsseSignature(keyid=OTHER.thumbprint, sig=OWN.sig)
    opened = open_envelope(envelope(signatures=(claimed,)), RECEIPT_TYPE, KEY.public_key)
    assert opened == b"payload"


@pytest.mark.parametrize(
    "text",
    [
        '{"payloadType": "t", "payload": "", "signatures": [], "more": 1}',
        '{"payloadType": "t", "payload": ""}',
        '{"payloadType": "t", "payload": "", "signatures": [{"keyid": "x", "sig": ""}]}',
        '{"payloadType": "' + "t" * 129 + '", "payload": "", "signatures": []}',
        "[]",
    ],
)
def test_json_that_is_no_envelope_is_not_read(text: str) -> None:
    with pytest.raises(ValidationError):
        DsseEnvelope.model_validate_json(text)
