"""From a head to its one target: what is refused, and what the canonical form is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.proxy.http.canonical import (
    Target,
    TargetRefused,
    connect_target,
    nominated,
    plain_target,
    tunnelled_target,
)
from palyra_egress.proxy.http.request_head import RequestHead
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost, Requester

R = Reason
HOST = CanonicalHost("a.example")
WHO = Requester("worker", "lease", "test")


def reason_of(call, *arguments) -> Reason:
    with pytest.raises(TargetRefused) as refused:
        call(*arguments)
    return refused.value.reason


# --- CONNECT --------------------------------------------------------------------------------------

CONNECTS = [
    ("a.example:443", ["a.example:443"], ("a.example", 443)),
    ("A.Example.:443", [], ("a.example", 443)),  # no Host is allowed on CONNECT
    ("a.example:8443", ["A.EXAMPLE:8443"], ("a.example", 8443)),
    ("[2001:DB8::1]:443", ["[2001:db8:0::1]:443"], ("2001:db8::1", 443)),
    ("bücher.example:443", [], ("xn--bcher-kva.example", 443)),
    ("a.example", [], R.PORT_MISSING),
    ("a.example:", [], R.PORT_MISSING),
    ("a.example:0", [], R.REQUEST_MALFORMED),
    ("a.example:65536", [], R.REQUEST_MALFORMED),
    ("a.example:443", ["b.example:443"], R.AUTHORITY_MISMATCH),
    ("a.example:443", ["a.example:444"], R.AUTHORITY_MISMATCH),
    ("a.example:443", ["a.example:443", "a.example:443"], R.REQUEST_MALFORMED),
    ("user@a.example:443", [], R.URL_CREDENTIALS),
    ("2130706433:443", [], R.NUMERIC_HOST),
    ("127.1:443", [], R.NUMERIC_HOST),
    ("/a.example:443", [], R.HOST_MALFORMED),
    ("https://a.example:443", [], R.HOST_MALFORMED),
    ("fe80::1%eth0:443", [], R.HOST_MALFORMED),
    (":443", [], R.HOST_MISSING),
]


@pytest.mark.parametrize(("target", "hosts", "expected"), CONNECTS)
def test_a_connect_names_one_host_and_port(target, hosts, expected):
    head = RequestHead("CONNECT", target)
    if isinstance(expected, Reason):
        assert reason_of(connect_target, head, hosts) is expected
    else:
        found = connect_target(head, hosts)
        assert (found.host, found.port) == expected
        assert (found.method, found.scheme, found.path) == ("CONNECT", "https", "")


# --- plain ----------------------------------------------------------------------------------------

PLAINS = [
    ("GET", "http://a.example/", ["a.example"], ("a.example", 80, "/", "")),
    ("GET", "http://a.example", ["a.example:80"], ("a.example", 80, "/", "")),
    ("GET", "HTTP://A.EXAMPLE:80/p?q?r", ["a.example"], ("a.example", 80, "/p", "q?r")),
    ("GET", "http://a.example?q", ["a.example"], ("a.example", 80, "/", "q")),
    ("GET", "http://a.example:8080/", ["a.example:8080"], ("a.example", 8080, "/", "")),
    ("GET", "http://a.example:8080/", ["a.example"], R.AUTHORITY_MISMATCH),
    ("GET", "http://a.example/", ["b.example"], R.AUTHORITY_MISMATCH),
    ("GET", "http://a.example/", [], R.HOST_MISSING),
    ("GET", "http://a.example/", [""], R.HOST_MISSING),
    ("GET", "http://a.example/", ["a.example", "a.example"], R.REQUEST_MALFORMED),
    ("GET", "http://a.example/", ["a.example, b.example"], R.HOST_MALFORMED),
    ("GET", "http://a.example/#f", ["a.example"], R.PATH_MALFORMED),
    ("GET", "http://u:p@a.example/", ["a.example"], R.URL_CREDENTIALS),
    ("GET", "http:///path", ["a.example"], R.HOST_MISSING),
    ("GET", "http:a.example/", ["a.example"], R.REQUEST_MALFORMED),
    ("GET", "/path", ["a.example"], R.REQUEST_MALFORMED),
    ("GET", "*", ["a.example"], R.REQUEST_MALFORMED),
    ("GET", "https://a.example/", ["a.example"], R.PROTOCOL_NOT_SUPPORTED),
    ("GET", "ftp://a.example/", ["a.example"], R.SCHEME_UNSUPPORTED),
    ("GET", "ws://a.example/", ["a.example"], R.SCHEME_UNSUPPORTED),
    ("get", "http://a.example/", ["a.example"], R.METHOD_MALFORMED),
    ("TRACE", "http://a.example/", ["a.example"], R.METHOD_MALFORMED),
    ("CONNECT", "http://a.example/", ["a.example"], R.METHOD_MALFORMED),
    ("X!", "http://a.example/", ["a.example"], R.METHOD_MALFORMED),
    ("A" * 21, "http://a.example/", ["a.example"], R.METHOD_MALFORMED),
]


@pytest.mark.parametrize(("method", "target", "hosts", "expected"), PLAINS)
def test_a_plain_request_is_absolute_and_its_host_agrees(method, target, hosts, expected):
    head = RequestHead(method, target)
    if isinstance(expected, Reason):
        assert reason_of(plain_target, head, hosts) is expected
    else:
        found = plain_target(head, hosts)
        assert (found.host, found.port, found.path, found.query) == expected
        assert found.scheme == "http"


# --- in a tunnel ----------------------------------------------------------------------------------

TUNNELLED = [
    ("/", ["a.example:8443"], ("/", "")),
    ("/p?q", ["A.EXAMPLE.:8443"], ("/p", "q")),
    ("//b.example/p", ["a.example:8443"], ("//b.example/p", "")),  # a path all the same
    ("/", ["a.example"], R.AUTHORITY_MISMATCH),  # 443 is not the tunnel's port
    ("/", ["b.example:8443"], R.AUTHORITY_MISMATCH),
    ("/", [], R.HOST_MISSING),
    ("/", ["a.example:8443", "b.example:8443"], R.REQUEST_MALFORMED),
    ("https://a.example:8443/", ["a.example:8443"], R.AUTHORITY_MISMATCH),
    ("http://b.example/", ["a.example:8443"], R.AUTHORITY_MISMATCH),
    ("*", ["a.example:8443"], R.REQUEST_MALFORMED),
    ("/#f", ["a.example:8443"], R.PATH_MALFORMED),
]


@pytest.mark.parametrize(("target", "hosts", "expected"), TUNNELLED)
def test_a_request_in_a_tunnel_names_the_tunnels_host(target, hosts, expected):
    arguments = (RequestHead("GET", target), hosts, HOST, 8443)
    if isinstance(expected, Reason):
        assert reason_of(tunnelled_target, *arguments) is expected
    else:
        found = tunnelled_target(*arguments)
        assert (found.host, found.port, found.path, found.query) == (HOST, 8443, *expected)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40), st.text())
def test_no_target_and_no_host_break_the_canonicaliser(target, host):
    head = RequestHead("GET", target)
    for make in (connect_target, plain_target, lambda *a: tunnelled_target(*a, HOST, 443)):
        try:
            found = make(head, [host])
        except TargetRefused as refused:
            assert refused.reason in Reason
        else:
            assert 1 <= found.port <= 65535
            assert found.host == found.host.lower()


# --- the rest -------------------------------------------------------------------------------------

HOST_HEADERS = [
    ("https", "a.example", 443, "a.example"),
    ("https", "a.example", 80, "a.example:80"),
    ("http", "a.example", 80, "a.example"),
    ("http", "a.example", 443, "a.example:443"),
    ("https", "2001:db8::1", 443, "[2001:db8::1]"),
    ("https", "2001:db8::1", 8443, "[2001:db8::1]:8443"),
]


@pytest.mark.parametrize(("scheme", "host", "port", "expected"), HOST_HEADERS)
def test_the_host_header_leaves_the_default_port_out(scheme, host, port, expected):
    target = Target("GET", scheme, CanonicalHost(host), port, "/", "")
    assert target.host_header == expected


def test_a_connection_header_names_what_ends_here():
    assert nominated(["X-Drop, close", "keep-alive,  Y"]) == {"x-drop", "y"}
    assert nominated([", ,"]) == frozenset()


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "Authorization", "cookie"]
)
def test_a_connection_header_may_not_take_away_what_framing_needs(name):
    assert reason_of(nominated, ["x, " + name]) is R.REQUEST_MALFORMED
