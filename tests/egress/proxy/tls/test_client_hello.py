"""Mirror of proxy/client_hello.py."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.tls import ClientHello as MitmproxyHello

from palyra_egress.proxy.tls.client_hello import (
    HelloMalformed,
    hello_problem,
    parse_client_hello,
)
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost, EgressRequest, Requester, RequestKind
from palyra_egress.verdict import INSPECTED, Carriage, TlsMode
from tests.fakes.client_hello import (
    ECH,
    GREASE_ECH,
    SERVER_NAME,
    extension,
    message,
    names,
    vector,
    versions,
)

HOST = b"a.example"
TLS = versions(0x0304, 0x0303)
SEALED = extension(ECH, GREASE_ECH)
TUNNEL = Carriage(TlsMode.TUNNEL)


def connect(host: str = "a.example") -> EgressRequest:
    who = Requester("worker", "lease", "p")
    target = CanonicalHost(host)
    return EgressRequest(RequestKind.CONNECT, "CONNECT", "https", target, 443, "", "", who)


FITS = [
    (message(names(HOST), TLS), TUNNEL),
    (message(names(b"A.Example"), TLS), TUNNEL),
    (message(names(b"a.example."), TLS), TUNNEL),
    (message(names(HOST)), TUNNEL),  # TLS 1.2 has no supported_versions
    (message(names(HOST), SEALED, TLS), INSPECTED),  # we answer: nobody can open it
    (message(names(HOST), SEALED, TLS), Carriage(TlsMode.TUNNEL, ech=True)),
    (message(TLS), Carriage(TlsMode.TUNNEL, missing_sni=True)),
    (message(TLS), Carriage(TlsMode.INSPECT, missing_sni=True)),
    (message(names(HOST), versions(0x7A7A, 0x0304)), TUNNEL),  # GREASE version
    (message(names(HOST), extension(0x1A1A, b""), TLS, extension(0x2A2A, b"\0")), TUNNEL),
]


@pytest.mark.parametrize(("hello", "carriage"), FITS)
def test_a_hello_that_names_the_tunnels_host_fits(hello, carriage):
    assert hello_problem(hello, connect(), carriage) is None


DOES_NOT_FIT = [
    (message(names(b"b.example"), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names(b"a.example\0"), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names(b"a.example\0.evil.example"), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names(b" a.example"), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names(b"a.example.."), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names("ä.example".encode()), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names(b""), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names(b"127.0.0.1"), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names(HOST, b"b.example"), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names(HOST), names(b"b.example"), TLS), Reason.AUTHORITY_MISMATCH),
    (message(names(HOST), names(HOST), TLS), Reason.AUTHORITY_MISMATCH),
    (message(TLS), Reason.SNI_MISSING),
    (message(bare=True), Reason.SNI_MISSING),
    (message(names(HOST), SEALED, TLS), Reason.ECH_NOT_ALLOWED),
    (message(names(HOST), extension(0xFFCE, b"old"), TLS), Reason.ECH_NOT_ALLOWED),
    (message(names(HOST), versions(0x0302, 0x0301)), Reason.PROTOCOL_NOT_SUPPORTED),
    (message(names(HOST), legacy_version=0x0301), Reason.PROTOCOL_NOT_SUPPORTED),
    (message(names(HOST), legacy_version=0x0300), Reason.PROTOCOL_NOT_SUPPORTED),
    (message(names(HOST), TLS, rest=b"\0"), Reason.REQUEST_MALFORMED),
    (message(names(HOST), TLS, TLS), Reason.REQUEST_MALFORMED),
    (message(extension(SERVER_NAME, b""), TLS), Reason.REQUEST_MALFORMED),
    (message(extension(SERVER_NAME, vector(b"", 2)), TLS), Reason.REQUEST_MALFORMED),
    (message(extension(SERVER_NAME, vector(b"\x01\0\x01a", 2)), TLS), Reason.REQUEST_MALFORMED),
    (message(extension(SERVER_NAME, names(HOST)[4:] + b"x"), TLS), Reason.REQUEST_MALFORMED),
    (message(names(HOST), TLS)[:-1], Reason.REQUEST_MALFORMED),
    (b"", Reason.REQUEST_MALFORMED),
]


@pytest.mark.parametrize(("hello", "reason"), DOES_NOT_FIT)
def test_any_other_hello_is_refused(hello, reason):
    assert hello_problem(hello, connect(), TUNNEL) is reason


@pytest.mark.parametrize("hello", [message(names(b"b.example"), SEALED, TLS)])
def test_an_accepted_encrypted_hello_still_names_the_tunnels_host_outside(hello):
    carriage = Carriage(TlsMode.TUNNEL, ech=True)
    assert hello_problem(hello, connect(), carriage) is Reason.AUTHORITY_MISMATCH


def test_a_tunnel_to_an_address_has_no_server_name():
    assert hello_problem(message(TLS), connect("192.0.2.7"), TUNNEL) is None
    named = message(names(b"192.0.2.7"), TLS)
    assert hello_problem(named, connect("192.0.2.7"), TUNNEL) is Reason.AUTHORITY_MISMATCH


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(data):
    assert hello_problem(data, connect(), TUNNEL) in (None, *Reason)


@given(st.data())
def test_a_hello_with_a_changed_byte_is_read_as_mitmproxy_reads_it_or_refused(data):
    hello = bytearray(message(names(HOST), SEALED, TLS))
    hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    try:
        ours = parse_client_hello(bytes(hello))
    except HelloMalformed:
        return
    theirs = MitmproxyHello(bytes(hello)).sni
    if theirs is not None:
        assert theirs.encode() in ours.names


def test_what_openssl_sends_is_read():
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="a.example"
    )
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = parse_client_hello(outgoing.read()[9:])
    assert (hello.names, hello.hides_name, hello.has_modern_tls) == ((HOST,), False, True)
