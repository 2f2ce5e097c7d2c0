"""What counts as proxy credentials; everything else is none."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.proxy.identity import ProxyCredentials, parse_proxy_credentials
from tests.fakes.proxy_harness import LEASE, SECRET, basic

GOOD = basic()


def encoded(text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("value", [GOOD, GOOD.replace("Basic", "bAsIc"), f"  {GOOD} "])
def test_basic_credentials_are_read(value):
    assert parse_proxy_credentials([value]) == ProxyCredentials(LEASE, SECRET)


NONE = [
    [],
    [""],
    ["Basic"],
    ["Basic "],
    [GOOD, GOOD],  # twice is not once
    [GOOD.replace("Basic", "Bearer")],
    [GOOD.removeprefix("Basic ")],
    ["Basic !!!!"],
    [GOOD[:-1] + "\n" + GOOD[-1]],
    ["Basic " + encoded(LEASE)],  # no colon
    ["Basic " + encoded(f"{LEASE}:")],
    ["Basic " + encoded(f":{SECRET}")],
    ["Basic " + encoded(f"{LEASE.lower()}:{SECRET}")],
    ["Basic " + encoded(f"8{LEASE[1:]}:{SECRET}")],  # no ULID starts so
    ["Basic " + encoded(f"{LEASE}:{SECRET}x")],
    ["Basic " + encoded(f"{LEASE}:{SECRET[1:]}")],
    ["Basic " + encoded(f"{LEASE}:{SECRET}\n")],
    ["Basic " + encoded(f"{LEASE}:{SECRET[:-1]}:")],
    ["Basic " + encoded(f"{LEASE}:{SECRET[:-1]}é")],
    ["Basic " + encoded(b"\xff\xfe:" + SECRET.encode())],
    ["Basic " + encoded(f"{LEASE}:{'٠' * 43}")],
]


@pytest.mark.parametrize("values", NONE)
def test_what_is_not_exactly_credentials_is_none(values):
    assert parse_proxy_credentials(values) is None


@given(st.lists(st.text(), max_size=3))
def test_no_header_breaks_the_reader(values):
    parse_proxy_credentials(values)


@given(st.binary(max_size=90))
def test_no_decoded_bytes_break_the_reader(data):
    parse_proxy_credentials(["Basic " + encoded(data)])


def test_the_secret_never_shows():
    credentials = parse_proxy_credentials([GOOD])
    assert SECRET not in repr(credentials)
    assert SECRET not in str(credentials)
