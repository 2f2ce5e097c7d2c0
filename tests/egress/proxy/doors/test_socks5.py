"""SOCKS5 messages as values: what is read, what is refused, and what a refused client is told."""

import pytest

from palyra_egress.proxy.doors.socks5 import (
    CREDENTIALS_REFUSED,
    MAX_MESSAGE_BYTES,
    NO_METHOD,
    SOCKS4_REFUSED,
    Reply,
    SocksRefused,
    SocksTarget,
    read_credentials,
    read_greeting,
    read_request,
    reply_to,
)
from palyra_egress.reasons import Reason
from tests.fakes.proxy_harness import LEASE, SECRET
from tests.fakes.socks_client import credentials, request

NAME = b"\x05\x01\x00\x03"


@pytest.mark.parametrize("methods", [b"\x02", b"\x00\x02", b"\x00\x01\x02", bytes(range(255))])
def test_a_greeting_that_offers_user_and_password_is_taken(methods):
    greeting = bytes([5, len(methods)]) + methods
    assert read_greeting(greeting + b"more") == len(greeting)


@pytest.mark.parametrize(
    ("greeting", "reason", "answer"),
    [
        (b"\x05\x01\x00", Reason.NO_IDENTITY, NO_METHOD),  # no authentication
        (b"\x05\x01\x01", Reason.NO_IDENTITY, NO_METHOD),  # GSSAPI
        (b"\x05\x00", Reason.NO_IDENTITY, NO_METHOD),
        (b"\x05\x01\xff", Reason.NO_IDENTITY, NO_METHOD),
        (b"\x04\x01\x01\xbb\x7f\0\0\x01\0", Reason.PROTOCOL_NOT_SUPPORTED, SOCKS4_REFUSED),
        (b"\x04", Reason.PROTOCOL_NOT_SUPPORTED, SOCKS4_REFUSED),
        (b"GET / HTTP/1.1\r\n", Reason.PROTOCOL_NOT_SUPPORTED, b""),
        (b"\x16\x03\x01", Reason.PROTOCOL_NOT_SUPPORTED, b""),
        (b"\x00", Reason.PROTOCOL_NOT_SUPPORTED, b""),
    ],
)
def test_any_other_greeting_is_refused_in_its_own_words(greeting, reason, answer):
    with pytest.raises(SocksRefused) as refused:
        read_greeting(greeting)
    assert (refused.value.reason, refused.value.answer) == (reason, answer)


def test_the_credentials_of_a_lease_are_read():
    found = read_credentials(credentials() + b"more")
    assert found is not None and found[0] is not None
    assert (found[0].lease_id, found[0].secret) == (LEASE, SECRET)
    assert found[1] == len(credentials())


@pytest.mark.parametrize(
    "message",
    [
        credentials("", ""),
        credentials("user", "password"),
        credentials(LEASE, ""),
        credentials(LEASE, SECRET + "x"),
        credentials(LEASE + ":", SECRET),
        b"\x01\x01\xff\x01\xff",
        credentials("u" * 255, "p" * 255),
    ],
)
def test_what_cannot_be_a_leases_credentials_is_none_and_taken_whole(message):
    assert read_credentials(message + b"more") == (None, len(message))
    assert len(message) <= MAX_MESSAGE_BYTES


def test_credentials_of_another_version_are_malformed():
    with pytest.raises(SocksRefused) as refused:
        read_credentials(b"\x05" + credentials()[1:])
    assert refused.value.answer == CREDENTIALS_REFUSED


def test_a_secret_shows_in_no_repr():
    assert SECRET not in repr(read_credentials(credentials()))


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        ("api.example", "api.example"),
        ("API.Example.", "api.example"),
        ("203.0.113.7", "203.0.113.7"),
        (b"203.0.113.7", "203.0.113.7"),
        ("2001:DB8::1", "2001:db8::1"),
        (b"[2001:db8::1]", "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
    ],
)
def test_a_target_is_read_in_its_one_spelling(host, canonical):
    message = request(host, 443)
    assert read_request(message + b"more") == (SocksTarget(canonical, 443), len(message))


@pytest.mark.parametrize(
    ("message", "reason", "reply"),
    [
        (request("api.example", 443, command=2), Reason.PROTOCOL_NOT_SUPPORTED, 7),  # BIND
        (request("api.example", 443, command=3), Reason.PROTOCOL_NOT_SUPPORTED, 7),  # UDP ASSOCIATE
        (request("api.example", 443, command=0xF0), Reason.REQUEST_MALFORMED, 7),
        (b"\x04" + request("api.example", 443)[1:], Reason.REQUEST_MALFORMED, 1),
        (b"\x05\x01\x01\x03", Reason.REQUEST_MALFORMED, 1),  # reserved byte
        (b"\x05\x01\x00\x02", Reason.REQUEST_MALFORMED, 8),
        (b"\x05\x01\x00\x05", Reason.REQUEST_MALFORMED, 8),
        (request("api.example", 0), Reason.PORT_MISSING, 1),
        (request(b"", 443), Reason.HOST_MISSING, 1),
        (request(b"fe80::1%eth0", 443), Reason.HOST_MALFORMED, 1),
        (request(b"[fe80::1%25eth0]", 443), Reason.HOST_MALFORMED, 1),
        (request(b"api.example\0.other.example", 443), Reason.HOST_MALFORMED, 1),
        (request(b"api.example:443", 443), Reason.HOST_MALFORMED, 1),
        (request(b"user@api.example", 443), Reason.URL_CREDENTIALS, 1),
        (request(b"api.example/path", 443), Reason.HOST_MALFORMED, 1),
        (request(b"api example", 443), Reason.HOST_MALFORMED, 1),
        (request("api。example".encode(), 443), Reason.HOST_MALFORMED, 1),
        (request(b"\xff\xfe", 443), Reason.HOST_MALFORMED, 1),
        (request(b"2130706433", 443), Reason.NUMERIC_HOST, 1),
        (request(b"0x7f.1", 443), Reason.NUMERIC_HOST, 1),
        (request(b"127.1", 443), Reason.NUMERIC_HOST, 1),
        (request(b"a" * 64 + b".example", 443), Reason.HOST_MALFORMED, 1),
        (request(b"a." * 127 + b"a", 443), Reason.HOST_MALFORMED, 1),  # 255 characters
    ],
)
def test_a_request_that_is_not_carried_is_refused_with_its_reply_code(message, reason, reply):
    with pytest.raises(SocksRefused) as refused:
        read_request(message)
    assert refused.value.reason is reason
    assert refused.value.answer == bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (read_greeting, b"\x05\x03\x00\x01\x02"),
        (read_credentials, credentials()),
        (read_request, request("api.example", 443)),
        (read_request, request("203.0.113.7", 443)),
        (read_request, request("2001:db8::1", 443)),
    ],
)
def test_a_message_that_is_incomplete_is_waited_for_byte_by_byte(read, message):
    assert [read(message[:end]) for end in range(len(message))] == [None] * len(message)
    assert read(message) is not None


@pytest.mark.parametrize(
    ("reason", "reply"),
    [
        (Reason.ALLOWED, Reply.SUCCEEDED),
        (Reason.OBSERVED, Reply.SUCCEEDED),
        (Reason.HOST_NOT_ALLOWED, Reply.NOT_ALLOWED),
        (Reason.METADATA_TARGET, Reply.NOT_ALLOWED),
        (Reason.QUARANTINED, Reply.NOT_ALLOWED),
        (Reason.RESOLUTION_FAILED, Reply.HOST_UNREACHABLE),
        (Reason.RESOLUTION_EMPTY, Reply.HOST_UNREACHABLE),
        (Reason.INTERNAL, Reply.GENERAL_FAILURE),
        (Reason.HOST_MALFORMED, Reply.GENERAL_FAILURE),
    ],
)
def test_a_reason_has_its_reply_code(reason, reply):
    assert reply_to(reason) is reply


def test_only_what_is_allowed_is_told_as_success():
    assert {r for r in Reason if reply_to(r) is Reply.SUCCEEDED} == {
        Reason.ALLOWED,
        Reason.OBSERVED,
    }


def test_the_beginning_of_a_name_is_enough_to_know_its_length():
    assert read_request(NAME) is None
    assert read_request(NAME + b"\xff" + b"a" * 254) is None
