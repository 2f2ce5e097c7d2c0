"""Hostile request heads, and what every accepted head guarantees to the parser behind it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mitmproxy.net.http.http1 import read_request_head

from palyra_egress.proxy.http.request_head import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    RequestHead,
    check_head,
    head_end,
    leading_empty_lines,
)
from palyra_egress.reasons import Reason

GOOD = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
MALFORMED = [
    # line endings
    (b"GET / HTTP/1.1\nHost: a\n\n", "bare LF"),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", "bare LF behind a header"),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", "bare CR between the lines"),
    (b"GET / HTTP/1.1\r\nX: a\rHost: b\r\n\r\n", "bare CR inside a value"),
    (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", "CR CR LF"),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "LF before the request line"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n", "no end"),
    # request line
    (b"GET  / HTTP/1.1\r\n\r\n", "two spaces"),
    (b"GET\t/ HTTP/1.1\r\n\r\n", "a tab as separator"),
    (b" GET / HTTP/1.1\r\n\r\n", "a space first"),
    (b"GET / HTTP/1.1 \r\n\r\n", "a space last"),
    (b"GET /a b HTTP/1.1\r\n\r\n", "a space in the target"),
    (b"GET / HTTP/1.1 x\r\n\r\n", "junk behind the version"),
    (b"GET /\x00 HTTP/1.1\r\n\r\n", "NUL in the target"),
    (b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", "bytes above ASCII in the target"),
    (b"GET /\x7f HTTP/1.1\r\n\r\n", "DEL in the target"),
    (b"GET /\r\n\r\n", "HTTP/0.9"),
    (b"GET / HTTP/2.0\r\n\r\n", "HTTP/2 in words: the Host header would be forgotten"),
    (b"PRI * HTTP/2.0\r\n\r\n", "the preface of HTTP/2"),
    (b"GET / HTTP/1.2\r\n\r\n", "a version nobody knows"),
    (b"GET / http/1.1\r\n\r\n", "a version in small letters"),
    (b"GET / HTTP/1.10\r\n\r\n", "a longer version"),
    (b"G(T / HTTP/1.1\r\n\r\n", "a method that is no token"),
    (b"A" * 33 + b" / HTTP/1.1\r\n\r\n", "an endless method"),
    (b" / HTTP/1.1\r\n\r\n", "no method"),
    (b"GET  HTTP/1.1\r\n\r\n", "no target"),
    # headers
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "a space before the colon (CVE-2019-16869 shape)"),
    (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "a fold right behind the request line"),
    (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", "obs-fold"),
    (b"GET / HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n", "obs-fold with a tab"),
    (b"GET / HTTP/1.1\r\nHost\r\n\r\n", "no colon"),
    (b"GET / HTTP/1.1\r\n: a\r\n\r\n", "no name"),
    (b"GET / HTTP/1.1\r\nX\x0bY: a\r\n\r\n", "a control character in a name"),
    (b"GET / HTTP/1.1\r\nX\xe9: a\r\n\r\n", "a letter above ASCII in a name"),
    (b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n", "NUL in a value"),
    (b"GET / HTTP/1.1\r\nX: a\x0bb\r\n\r\n", "a vertical tab in a value"),
    (b"GET / HTTP/1.1\r\nX: a\x7fb\r\n\r\n", "DEL in a value"),
    (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * (MAX_HEADERS + 1) + b"\r\n", "too many headers"),
    # not a head at all
    (b"", "nothing"),
    (b"\r\n\r\n", "only empty lines"),
    (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", "TLS"),
    (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "SSH"),
]


@pytest.mark.parametrize(("head", "_why"), MALFORMED, ids=[why for _, why in MALFORMED])
def test_a_hostile_head_is_malformed(head, _why):
    assert check_head(head) is Reason.REQUEST_MALFORMED


ACCEPTED = [
    (GOOD, RequestHead("GET", "http://a.example/")),
    (b"GET / HTTP/1.0\r\n\r\n", RequestHead("GET", "/")),
    (b"OPTIONS * HTTP/1.1\r\nHost:a\r\n\r\n", RequestHead("OPTIONS", "*")),
    (b"GET / HTTP/1.1\r\nX:\r\nY: \t\xff~\r\n\r\n", RequestHead("GET", "/")),  # empty; obs-text
    (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * MAX_HEADERS + b"\r\n", RequestHead("GET", "/")),
]


@pytest.mark.parametrize(("head", "expected"), ACCEPTED)
def test_a_clean_head_is_read_as_it_stands(head, expected):
    assert check_head(head) == expected


def test_a_head_may_be_so_long_and_no_longer():
    room = MAX_HEAD_BYTES - len(b"GET / HTTP/1.1\r\nX: \r\n\r\n")
    fits = b"GET / HTTP/1.1\r\nX: " + b"a" * room + b"\r\n\r\n"
    assert check_head(fits) == RequestHead("GET", "/")
    assert check_head(fits.replace(b"X", b"XX")) is Reason.HEAD_TOO_LARGE


PIECES = st.sampled_from(
    b"GET| |/|http://a|HTTP/1.1|HTTP/1.0|\r\n|\n|\r|Host|:|a|\x00|\t|\xff|\x7f|Content-Length|5".split(
        b"|"
    )
)
HEADS = st.one_of(
    st.binary(max_size=200),
    st.lists(PIECES, max_size=30).map(b"".join),
    st.lists(PIECES, max_size=20).map(lambda p: b"GET / HTTP/1.1\r\n" + b"".join(p) + b"\r\n\r\n"),
)


@given(HEADS)
@example(GOOD)
def test_no_bytes_break_the_check_and_what_passes_is_clean(head):
    found = check_head(head)
    if isinstance(found, Reason):
        return
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    for line in lines:
        assert not set(line) & {0, 10, 13}
    version = lines[0].rpartition(b" ")[2].decode()
    again = "\r\n".join(
        [
            f"{found.method} {found.target} {version}",
            *(line.decode("latin-1") for line in lines[1:]),
        ]
    )
    assert (again + "\r\n\r\n").encode("latin-1") == head
    assert head_end(head) == len(head)


@given(HEADS)
@example(GOOD)
def test_what_passes_has_the_same_headers_for_the_parser_behind(head):
    found = check_head(head)
    if isinstance(found, Reason) or found.target.startswith("http") or found.target[:1] != "/":
        return
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    parsed = read_request_head(lines)
    assert (parsed.data.method.decode(), parsed.data.path.decode()) == (found.method, found.target)
    ours = [line.partition(b":") for line in lines[1:]]
    assert parsed.headers.fields == tuple((name, value.strip(b" \t")) for name, _, value in ours)


@given(st.binary(max_size=100), st.integers(0, 5))
def test_empty_lines_before_a_head_are_counted_in_whole_pairs(rest, count):
    found = leading_empty_lines(b"\r\n" * count + b"G" + rest)
    assert found == 2 * count


@given(st.binary(max_size=60))
def test_the_end_of_a_head_is_where_its_first_empty_line_ends(data):
    end = head_end(data)
    if end is None:
        assert b"\n\n" not in data and b"\n\r\n" not in data
    else:
        assert data[:end].endswith((b"\n\n", b"\n\r\n"))
        assert head_end(data[: end - 1]) is None
