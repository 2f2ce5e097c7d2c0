"""Mirror of proxy/relay.py."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.proxy.judgement import Judgement
from palyra_egress.proxy.tunnels.relay import MAX_RECORD_BYTES, Relay, TlsRecords
from palyra_egress.reasons import Reason
from palyra_egress.verdict import Limits
from tests.fakes.client_hello import APPLICATION, SERVER_HELLO, hello, record, vector

HELLO = hello(b"a.example")
ALERT = record(b"\x02\x28", kind=21)


def relay(limits: Limits = Limits(), *, has_room: bool = True) -> Relay:  # noqa: B008 frozen
    judgement = Judgement(Reason.ALLOWED, "id", allowed=True, limits=limits)
    return Relay(judgement, 0, lambda *_: has_room, lambda _hello: None)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(st.integers(0, 5000), max_size=12))
def test_records_are_followed_however_they_are_cut(cuts):
    whole = HELLO + APPLICATION * 3 + ALERT
    records = TlsRecords()
    assert all(records.accept(piece) for piece in _pieces(whole, cuts))


NO_RECORDS = [
    b"S",
    b"SSH-2.0-x\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x80\x2e\x01\x00\x02",  # an SSLv2 hello
    b"\x18\x03\x03\x00\x03xxx",  # heartbeat
    b"\x17\x02",
    b"\x17\x03\x03\x00\x00",
    b"\x17\x03\x03" + (MAX_RECORD_BYTES + 1).to_bytes(2),
]


@pytest.mark.parametrize("garbage", NO_RECORDS)
@pytest.mark.parametrize("before", [b"", HELLO, HELLO + APPLICATION])
def test_what_is_no_record_is_noticed(before, garbage):
    whole = TlsRecords()
    assert not whole.accept(before + garbage)
    cut = TlsRecords()
    assert not all(cut.accept(bytes([byte])) for byte in before + garbage)


def test_what_the_worker_sends_is_counted_and_held_to_its_budget():
    held = relay(Limits(max_request_bytes=len(HELLO) + len(APPLICATION)))
    assert held.send(HELLO) == HELLO
    assert held.send(APPLICATION) == b""
    assert held.send(b"\x17") is Reason.REQUEST_TOO_LARGE
    assert relay().send(b"plain text") is Reason.NON_HTTP_IN_TUNNEL
    assert relay(has_room=False).send(HELLO) is Reason.BUDGET_SPENT


def test_what_the_server_sends_is_counted_and_held_to_its_budget():
    held = relay(Limits(max_response_bytes=len(SERVER_HELLO)))
    assert held.receive(SERVER_HELLO) == SERVER_HELLO
    assert held.receive(APPLICATION) is Reason.RESPONSE_TOO_LARGE
    assert relay(has_room=False).receive(SERVER_HELLO) is Reason.BUDGET_SPENT


@pytest.mark.parametrize("start", [SERVER_HELLO, ALERT])
def test_a_server_begins_with_a_hello_or_an_alert(start):
    held = relay()
    assert b"".join(_bytes(held.receive(bytes([byte]))) for byte in start) == start
    assert held.receive(APPLICATION) == APPLICATION


def _bytes(passed: bytes | Reason) -> bytes:
    assert isinstance(passed, bytes)
    return passed


NO_SERVERS = [
    b"SSH-2.0-OpenSSH\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    APPLICATION,
    HELLO,  # a client's
    record(b"\x02" + vector(b"\x03\x01" + b"\x09" * 32, 3)),  # TLS 1.0
    record(b"\x02\x00\x00"),  # too short to say which
]


@pytest.mark.parametrize("start", NO_SERVERS)
def test_a_server_that_begins_with_anything_else_gets_no_channel(start):
    held = relay()
    assert held.receive(start + b"\x16\x03\x03\x00\x05.....") is Reason.UPSTREAM_PROTOCOL
