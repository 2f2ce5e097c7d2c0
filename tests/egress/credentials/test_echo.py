"""A server that repeats a credential tells the worker nothing."""

import base64
import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.credentials.binding import (
    CredentialBinding,
    SecretRef,
    SecretSource,
    SecretValue,
)
from palyra_egress.credentials.echo import REDACTED, EchoFilter
from palyra_egress.credentials.injection import Injected

SECRET = b'ghp_a+b/c~"d&e<f>\\g%h-i'
FORM = b"Bearer " + SECRET
ECHO = EchoFilter(
    [
        Injected(
            CredentialBinding("authorization", SecretRef(SecretSource.ENV, "X"), prefix="Bearer "),
            SecretValue(SECRET.decode()),
            SecretValue(FORM.decode()),
        )
    ]
)


def _escaped_twice(text: bytes) -> bytes:
    return quote(quote(text, safe=""), safe="").encode()


ENCODINGS = {
    "clear": bytes,
    "percent": lambda text: quote(text, safe="").encode(),
    "percent in small letters": lambda text: quote(text, safe="").lower().encode(),
    "percent of every byte": lambda text: b"".join(b"%%%02x" % byte for byte in text),
    "percent twice": _escaped_twice,
    "base64": base64.b64encode,
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text).rstrip(b"="),
    "base64 behind one byte": lambda text: base64.b64encode(b"x" + text + b"yz"),
    "base64 behind two bytes": lambda text: base64.b64encode(b"xy" + text + b"z"),
    "base64 as percent": lambda text: quote(base64.b64encode(text), safe="").encode(),
    "hex": lambda text: text.hex().encode(),
    "hex in capitals": lambda text: text.hex().upper().encode(),
    "JSON": lambda text: json.dumps(text.decode()).encode(),
    "HTML": lambda text: html.escape(text.decode()).encode(),
}
ENCODED = pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)


@ENCODED
@pytest.mark.parametrize("what", [SECRET, FORM], ids=["secret", "whole value"])
def test_an_echo_is_taken_out_in_every_spelling(encode, what: bytes) -> None:
    text = b"https://other.example/?token=" + encode(what) + b"&more=1"

    left = ECHO.redacted(text)

    assert REDACTED in left
    assert encode(what) not in left
    assert encode(SECRET)[1:-3] not in left


def test_in_clear_only_the_secret_itself_is_taken_out() -> None:
    text = b"session=" + SECRET + b"; Path=/; HttpOnly"

    assert ECHO.redacted(text) == b"session=[redacted]; Path=/; HttpOnly"


@given(st.binary(max_size=60))
def test_what_holds_no_secret_stays_as_it_is(text: bytes) -> None:
    assert ECHO.redacted(text) == text
    assert EchoFilter([]).redacted(text) == text


@given(st.binary(max_size=20), st.binary(max_size=20), st.sampled_from(sorted(ENCODINGS)))
def test_the_secret_is_never_left_whatever_stands_around_it(
    before: bytes, after: bytes, name: str
) -> None:
    left = ECHO.redacted(before + ENCODINGS[name](SECRET) + after)

    assert SECRET not in left
    assert ENCODINGS[name](SECRET) not in left


def test_a_filter_shows_no_secret() -> None:
    assert b"ghp" not in repr(ECHO).encode()
    assert not hasattr(ECHO, "__dict__")
