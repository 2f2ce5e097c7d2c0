"""Mirror of destination/hostname.py: one spelling for every host, and no way around it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.destination.hostname import (
    HostRefused,
    canonical_host,
    is_canonical_host,
    parse_authority,
    sni_problem,
    split_host_port,
)
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost

ACCEPTED = [
    ("api.example.com", "api.example.com"),
    ("API.Example.COM", "api.example.com"),
    ("api.example.com.", "api.example.com"),
    ("localhost", "localhost"),
    ("_srv._tcp.example.com", "_srv._tcp.example.com"),
    ("r3---sn-a.example.com", "r3---sn-a.example.com"),  # hyphens in places 3 and 4, not an A-label
    ("api．example．com", "api.example.com"),  # fullwidth full stops
    ("api。example。com", "api.example.com"),  # ideographic full stops
    ("ｅｘａｍｐｌｅ.com", "example.com"),  # fullwidth letters
    ("exam\u00adple.com", "example.com"),  # soft hyphen, ignored by UTS 46
    ("bücher.example", "xn--bcher-kva.example"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("faß.example", "xn--fa-hia.example"),  # non-transitional: not fass
    ("\u0430llowed.com", "xn--llowed-2nf.com"),  # a Cyrillic letter is another name
    ("127.0.0.1", "127.0.0.1"),
    ("127.0.0.1.", "127.0.0.1"),
    ("1e3", "1e3"),  # no number to any resolver
    ("a" * 63 + ".example", "a" * 63 + ".example"),
]

REFUSED = [
    ("", Reason.HOST_MISSING),
    (".", Reason.HOST_MALFORMED),
    ("..", Reason.HOST_MALFORMED),
    ("a..b", Reason.HOST_MALFORMED),
    (".example.com", Reason.HOST_MALFORMED),
    ("example.com..", Reason.HOST_MALFORMED),
    ("-a.example", Reason.HOST_MALFORMED),
    ("a-.example", Reason.HOST_MALFORMED),
    ("a" * 64 + ".example", Reason.HOST_MALFORMED),
    (".".join(["a" * 60] * 5), Reason.HOST_MALFORMED),
    ("a" * 5000, Reason.HOST_MALFORMED),
    ("exa mple.com", Reason.HOST_MALFORMED),
    ("example.com\x00.evil", Reason.HOST_MALFORMED),
    ("example.com\r\nHost: evil", Reason.HOST_MALFORMED),
    ("example%2ecom", Reason.HOST_MALFORMED),
    ("fe80::1%eth0", Reason.HOST_MALFORMED),
    ("::1", Reason.HOST_MALFORMED),  # IPv6 only in brackets, and only in an authority
    ("[::1]", Reason.HOST_MALFORMED),
    ("example.com\\evil", Reason.HOST_MALFORMED),
    ("example.com/evil", Reason.HOST_MALFORMED),
    ("example.com#evil", Reason.HOST_MALFORMED),
    ("user@example.com", Reason.URL_CREDENTIALS),
    ("xn--a", Reason.HOST_MALFORMED),  # no valid Punycode
    ("xn--b888888888888888888888888888ea.a", Reason.HOST_MALFORMED),  # Punycode of a huge number
    ("xn--fa-.example", Reason.HOST_MALFORMED),
    ("allo\u200dwed.com", Reason.HOST_MALFORMED),  # zero-width joiner out of context
    ("\U0001f510.example.com", Reason.HOST_MALFORMED),  # emoji are not IDNA 2008
    ("\ud800.example", Reason.HOST_MALFORMED),  # a lone surrogate
    # every spelling below reaches an address through the system resolver
    ("2130706433", Reason.NUMERIC_HOST),
    ("127.1", Reason.NUMERIC_HOST),
    ("127.0.1", Reason.NUMERIC_HOST),
    ("0x7f.1", Reason.NUMERIC_HOST),
    ("0x7f000001", Reason.NUMERIC_HOST),
    ("0X7F.0.0.0x1", Reason.NUMERIC_HOST),
    ("0177.0.0.1", Reason.NUMERIC_HOST),
    ("127.000.0.1", Reason.NUMERIC_HOST),
    ("127.0.0.01", Reason.NUMERIC_HOST),
    ("256.0.0.1", Reason.NUMERIC_HOST),
    ("1.2.3.4.5", Reason.NUMERIC_HOST),
    ("1.2.3.0x100", Reason.NUMERIC_HOST),
    ("0x", Reason.NUMERIC_HOST),
    ("0", Reason.NUMERIC_HOST),
    ("example.1", Reason.NUMERIC_HOST),
    ("127。0。0。1", Reason.NUMERIC_HOST),
    ("１２７.0.0.1", Reason.NUMERIC_HOST),
    ("①②⑦.1", Reason.NUMERIC_HOST),
    ("example.²", Reason.NUMERIC_HOST),
]


@pytest.mark.parametrize(("text", "canonical"), ACCEPTED)
def test_a_host_has_one_spelling(text: str, canonical: str) -> None:
    assert canonical_host(text) == canonical
    assert is_canonical_host(canonical)


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_a_text_that_is_no_host_is_refused_with_its_reason(text: str, reason: Reason) -> None:
    with pytest.raises(HostRefused) as refused:
        canonical_host(text)
    assert refused.value.reason is reason
    assert not is_canonical_host(text) or ":" in text


def test_arabic_digits_are_no_address() -> None:
    with pytest.raises(HostRefused):
        canonical_host("\u0661\u0662\u0667.0.0.1")


@given(st.text(max_size=80))
def test_canonicalising_twice_changes_nothing(text: str) -> None:
    try:
        once = canonical_host(text)
    except HostRefused:
        return
    assert canonical_host(once) == once
    assert once.isascii() and once == once.lower() and not once.endswith(".")


@given(st.from_regex(r"\A[0-9xXa-fA-F.]{1,24}\Z"))
def test_a_name_of_digits_is_a_canonical_address_or_refused(text: str) -> None:
    try:
        host = canonical_host(text)
    except HostRefused:
        return
    last = host.rpartition(".")[2]
    if last.isdigit():
        octets = host.split(".")
        assert len(octets) == 4
        assert all(octet == str(int(octet)) and int(octet) < 256 for octet in octets)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.com:443", "example.com", 443),
        ("EXAMPLE.com.:8443", "example.com", 8443),
        ("[2001:DB8::1337]:1337", "2001:db8::1337", 1337),
        ("[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1),
        ("[0:0::1]:65535", "::1", 65535),
    ],
)
def test_an_authority_is_host_and_port(text: str, host: str, port: int) -> None:
    assert parse_authority(text, None) == (host, port)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("example.com", Reason.PORT_MISSING),
        ("example.com:", Reason.PORT_MISSING),
        ("[::1]", Reason.PORT_MISSING),
        ("[::1]:", Reason.PORT_MISSING),
        (":443", Reason.HOST_MISSING),
        ("", Reason.HOST_MISSING),
        ("example.com:0", Reason.REQUEST_MALFORMED),
        ("example.com:0443", Reason.REQUEST_MALFORMED),
        ("example.com:+443", Reason.REQUEST_MALFORMED),
        ("example.com:-1", Reason.REQUEST_MALFORMED),
        ("example.com: 443", Reason.REQUEST_MALFORMED),
        ("example.com:443\n", Reason.REQUEST_MALFORMED),
        ("example.com:65536", Reason.REQUEST_MALFORMED),
        ("example.com:\u0664\u0664\u0663", Reason.REQUEST_MALFORMED),  # int() would read 443
        ("example.com:https", Reason.REQUEST_MALFORMED),
        ("example.com:443:80", Reason.HOST_MALFORMED),
        ("::1", Reason.HOST_MALFORMED),
        ("::1:443", Reason.HOST_MALFORMED),
        ("[::1", Reason.HOST_MALFORMED),
        ("[::1]evil.com:443", Reason.HOST_MALFORMED),
        ("[[::1]]:443", Reason.HOST_MALFORMED),
        ("[fe80::1%25eth0]:443", Reason.HOST_MALFORMED),
        ("[v1.fe80::a]:443", Reason.HOST_MALFORMED),
        ("[example.com]:443", Reason.HOST_MALFORMED),
        ("[127.0.0.1]:443", Reason.HOST_MALFORMED),
        ("user:secret@example.com:443", Reason.URL_CREDENTIALS),
        ("example.com:443@evil.com:443", Reason.URL_CREDENTIALS),
        ("127.1:443", Reason.NUMERIC_HOST),
    ],
)
def test_an_ambiguous_authority_is_refused(text: str, reason: Reason) -> None:
    with pytest.raises(HostRefused) as refused:
        parse_authority(text, None)
    assert refused.value.reason is reason


def test_the_default_port_is_used_only_where_no_port_is_written() -> None:
    assert parse_authority("example.com", 443) == ("example.com", 443)
    assert parse_authority("example.com:8443", 443) == ("example.com", 8443)
    assert split_host_port("example.com") == ("example.com", None)
    with pytest.raises(HostRefused):
        parse_authority("example.com:", 443)


@given(st.text(max_size=60))
def test_an_authority_that_is_accepted_reads_the_same_when_written_canonically(text: str) -> None:
    try:
        host, port = parse_authority(text, 443)
    except HostRefused:
        return
    written = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert parse_authority(written, None) == (host, port)
    assert is_canonical_host(host)


SNIS = [
    ("a.example", "a.example", None),
    ("a.example", "A.EXAMPLE.", None),
    ("a.example", None, Reason.SNI_MISSING),
    ("a.example", "", Reason.AUTHORITY_MISMATCH),
    ("a.example", "b.example", Reason.AUTHORITY_MISMATCH),
    ("a.example", "a.example:443", Reason.AUTHORITY_MISMATCH),
    ("a.example", "127.1", Reason.AUTHORITY_MISMATCH),
    ("192.0.2.1", None, None),  # RFC 6066: a literal is never sent
    ("192.0.2.1", "192.0.2.1", Reason.AUTHORITY_MISMATCH),
    ("192.0.2.1", "a.example", Reason.AUTHORITY_MISMATCH),
    ("2001:db8::1", None, None),
    ("2001:db8::1", "2001:db8::1", Reason.AUTHORITY_MISMATCH),
]


@pytest.mark.parametrize(("host", "sni", "expected"), SNIS)
def test_the_client_hello_names_the_tunnels_host(
    host: str, sni: str | None, expected: Reason | None
) -> None:
    assert sni_problem(sni, CanonicalHost(host)) is expected
