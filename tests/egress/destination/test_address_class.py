"""Mirror of destination/address_class.py: every special range, and the addresses just outside."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.destination.address_class import (
    NEVER_LIFTED,
    AddressClass,
    AddressRange,
    classify,
    format_ipv6,
    is_covered,
    parse_ipv4,
    parse_ipv6,
    parse_range,
    refuse_private_range,
)

C = AddressClass

CLASSES = [
    ("0.0.0.0", C.UNSPECIFIED),
    ("0.0.0.1", C.RESERVED),
    ("0.255.255.255", C.RESERVED),
    ("1.0.0.0", C.PUBLIC),
    ("9.255.255.255", C.PUBLIC),
    ("10.0.0.0", C.PRIVATE),
    ("10.255.255.255", C.PRIVATE),
    ("11.0.0.0", C.PUBLIC),
    ("100.63.255.255", C.PUBLIC),  # just outside the CGNAT range
    ("100.64.0.0", C.SHARED),
    ("100.100.100.199", C.SHARED),
    ("100.100.100.200", C.METADATA),  # Alibaba Cloud, inside the CGNAT range
    ("100.100.100.201", C.SHARED),
    ("100.127.255.255", C.SHARED),
    ("100.128.0.0", C.PUBLIC),  # just outside the CGNAT range
    ("126.255.255.255", C.PUBLIC),
    ("127.0.0.0", C.LOOPBACK),
    ("127.255.255.255", C.LOOPBACK),
    ("128.0.0.0", C.PUBLIC),
    ("168.63.129.15", C.PUBLIC),
    ("168.63.129.16", C.METADATA),  # Azure: a public number, a platform service
    ("168.63.129.17", C.PUBLIC),
    ("169.253.255.255", C.PUBLIC),
    ("169.254.0.0", C.LINK_LOCAL),
    ("169.254.169.253", C.METADATA),
    ("169.254.169.254", C.METADATA),
    ("169.254.169.255", C.LINK_LOCAL),
    ("169.254.170.2", C.METADATA),
    ("169.254.255.255", C.LINK_LOCAL),
    ("169.255.0.0", C.PUBLIC),
    ("172.15.255.255", C.PUBLIC),
    ("172.16.0.0", C.PRIVATE),
    ("172.31.255.255", C.PRIVATE),
    ("172.32.0.0", C.PUBLIC),
    ("191.255.255.255", C.PUBLIC),
    ("192.0.0.0", C.PROTOCOL),
    ("192.0.0.192", C.METADATA),  # Oracle Cloud
    ("192.0.0.255", C.PROTOCOL),
    ("192.0.1.0", C.PUBLIC),
    ("192.0.2.0", C.DOCUMENTATION),
    ("192.0.3.0", C.PUBLIC),
    ("192.88.98.255", C.PUBLIC),
    ("192.88.99.1", C.RESERVED),
    ("192.167.255.255", C.PUBLIC),
    ("192.168.0.0", C.PRIVATE),
    ("192.168.255.255", C.PRIVATE),
    ("192.169.0.0", C.PUBLIC),
    ("198.17.255.255", C.PUBLIC),
    ("198.18.0.0", C.BENCHMARK),
    ("198.19.255.255", C.BENCHMARK),
    ("198.20.0.0", C.PUBLIC),
    ("198.51.99.255", C.PUBLIC),
    ("198.51.100.255", C.DOCUMENTATION),
    ("203.0.113.0", C.DOCUMENTATION),
    ("203.0.114.0", C.PUBLIC),
    ("223.255.255.255", C.PUBLIC),
    ("224.0.0.0", C.MULTICAST),
    ("239.255.255.255", C.MULTICAST),
    ("240.0.0.0", C.RESERVED),
    ("255.255.255.254", C.RESERVED),
    ("255.255.255.255", C.BROADCAST),
    ("::", C.UNSPECIFIED),
    ("::1", C.LOOPBACK),
    ("::2", C.RESERVED),  # IPv4-compatible 0.0.0.2
    ("100::1", C.RESERVED),
    ("2001:4860:4860::8888", C.PUBLIC),
    ("2001:db8::1", C.DOCUMENTATION),
    ("2001:db9::1", C.PUBLIC),
    ("2001:2::1", C.BENCHMARK),
    ("2001:1ff::1", C.PROTOCOL),
    ("2001:200::1", C.PUBLIC),
    ("3fff::1", C.DOCUMENTATION),
    ("3fff:1000::1", C.PUBLIC),
    ("5f00::1", C.RESERVED),
    ("fbff:ffff::1", C.RESERVED),  # never given out, as all that follows outside 2000::/3
    ("1::1", C.RESERVED),
    ("400::1", C.RESERVED),
    ("1fff:ffff::1", C.RESERVED),
    ("2000::1", C.PUBLIC),
    ("3fff:ffff::1", C.PUBLIC),
    ("4000::1", C.RESERVED),
    ("c000::1", C.RESERVED),
    ("fe00::1", C.RESERVED),
    ("63:ffff::1", C.RESERVED),
    ("64:ff9c::1", C.PUBLIC),  # beside the NAT64 prefix: decision 0018
    ("65::1", C.RESERVED),
    ("fc00::1", C.PRIVATE),
    ("fd00:ec2::254", C.METADATA),
    ("fd00:ec2::255", C.PRIVATE),
    ("fd20:ce::254", C.METADATA),
    ("fe80::1", C.LINK_LOCAL),
    ("febf::1", C.LINK_LOCAL),
    ("fec0::1", C.PRIVATE),
    ("ff02::1", C.MULTICAST),
]

EMBEDDED = [
    ("::ffff:8.8.8.8", C.PUBLIC),  # mapped is the IPv4 address itself
    ("::ffff:127.0.0.1", C.LOOPBACK),
    ("::ffff:a9fe:a9fe", C.METADATA),
    ("::127.0.0.1", C.LOOPBACK),
    ("::8.8.8.8", C.TRANSITION),
    ("::ffff:0:10.0.0.1", C.PRIVATE),
    ("::ffff:0:8.8.8.8", C.TRANSITION),
    ("64:ff9b::a00:1", C.PRIVATE),  # is_global says True
    ("64:ff9b::a9fe:a9fe", C.METADATA),
    ("64:ff9b::ffff:ffff", C.BROADCAST),
    ("64:ff9b::808:808", C.PUBLIC),  # IANA calls it global, and so is what it stands for
    ("64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", C.PUBLIC),
    ("64:ff9b:1::10.0.0.1", C.PRIVATE),
    ("64:ff9b:1::8.8.8.8", C.TRANSITION),
    ("64:ff9b:1:a9fe:a9:fe00::", C.METADATA),  # the /48 layout of RFC 6052
    ("64:ff9b:1:0:a9:fea9:fe00:0", C.METADATA),  # the /64 layout
    ("2002:7f00:1::", C.LOOPBACK),
    ("2002:a9fe:a9fe::1", C.METADATA),
    ("2002:808:808::1", C.TRANSITION),
    ("2001:0:7f00:1:0:0:f7f7:f7f7", C.LOOPBACK),  # Teredo server
    ("2001:0:808:808:0:0:5601:5601", C.METADATA),  # Teredo client, bits inverted
    ("2001:0:808:808:0:0:f7f7:f7f7", C.TRANSITION),
    ("2606:4700::5efe:a9fe:a9fe", C.METADATA),  # ISATAP
    ("2606:4700::200:5efe:a00:1", C.PRIVATE),  # ISATAP with the universal bit
    ("2606:4700::5efe:808:808", C.PUBLIC),
    ("fe80::5efe:808:808", C.LINK_LOCAL),
]

UNPARSABLE = [
    "",
    "localhost",
    "127.1",
    "127.0.0.01",
    "0x7f.0.0.1",
    "1.2.3.4.5",
    "1.2.3.256",
    "\u0661.2.3.4",
    "1.2.3.4 ",
    "::1%eth0",
    "[::1]",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "::12345",
    "::g",
    "::1.2.3",
    "::1.2.3.04",
    "1.2.3.4::",
    "10.0.0.1:443",
]


@pytest.mark.parametrize(("address", "expected"), CLASSES + EMBEDDED)
def test_an_address_has_its_class(address: str, expected: AddressClass) -> None:
    assert classify(address).address_class is expected


@pytest.mark.parametrize("text", UNPARSABLE)
def test_a_text_that_is_no_address_is_never_public(text: str) -> None:
    found = classify(text)
    assert found.address_class is C.UNPARSABLE
    assert not is_covered(found, [_range("0.0.0.0/0"), _range("::/0")])


@given(st.ip_addresses(v=4))
def test_every_ipv4_address_is_read_as_the_standard_library_reads_it(
    address: ipaddress.IPv4Address,
) -> None:
    assert parse_ipv4(str(address)) == int(address)
    assert classify(str(address)).text == str(address)


@given(st.ip_addresses(v=6))
def test_every_ipv6_address_is_read_and_written_as_the_standard_library_does(
    address: ipaddress.IPv6Address,
) -> None:
    assert parse_ipv6(str(address)) == int(address)
    assert parse_ipv6(address.exploded) == int(address)
    assert format_ipv6(int(address)) == str(address)


@given(st.text(alphabet="0123456789abcdefg:.%", max_size=24))
def test_nothing_is_an_address_that_the_standard_library_refuses(text: str) -> None:
    if classify(text).address_class is not C.UNPARSABLE:
        assert "%" not in text
        ipaddress.ip_address(text)


@given(st.ip_addresses(v=4))
def test_what_the_standard_library_calls_private_is_never_public_here(
    address: ipaddress.IPv4Address,
) -> None:
    if address.is_private or address.is_multicast or address.is_reserved:
        assert classify(str(address)).address_class is not C.PUBLIC


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:", "::", "64:ff9b::", "::ffff:0:"]))
def test_an_embedded_address_is_never_milder_than_bare(
    address: ipaddress.IPv4Address, prefix: str
) -> None:
    bare = classify(str(address)).address_class
    wrapped = classify(prefix + str(address)).address_class
    order = list(AddressClass)
    assert order.index(wrapped) >= order.index(bare) or int(address) < 2


def _range(text: str) -> AddressRange:
    found = parse_range(text)
    assert found is not None
    return found


def test_a_private_range_lifts_exactly_its_own_addresses() -> None:
    allowed = [parse_range("10.20.0.0/16")]
    ranges = [found for found in allowed if found is not None]
    assert is_covered(classify("10.20.0.0"), ranges)
    assert is_covered(classify("10.20.255.255"), ranges)
    assert not is_covered(classify("10.19.255.255"), ranges)
    assert not is_covered(classify("10.21.0.0"), ranges)
    assert is_covered(classify("::ffff:10.20.0.1"), ranges)
    assert not is_covered(classify("64:ff9b:1::10.20.0.1"), ranges)
    assert is_covered(classify("8.8.8.8"), ranges)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "224.0.0.1", "0.0.0.0", "255.255.255.255", "::"],
)
def test_no_range_lifts_the_floor(address: str) -> None:
    everything = [r for r in map(parse_range, ["0.0.0.0/0", "::/0"]) if r is not None]
    assert classify(address).address_class in NEVER_LIFTED
    assert not is_covered(classify(address), everything)


@pytest.mark.parametrize("text", ["10.20.0.0/16", "127.0.0.1", "fd00::/8", "100.64.0.0/10"])
def test_a_special_purpose_range_may_stand_under_private(text: str) -> None:
    assert refuse_private_range(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0",  # everything
        "8.8.8.0/24",  # public
        "10.0.0.0/7",  # half public
        "10.20.0.1/16",  # host bits
        "10.0.0.0/08",
        "10.0.0.0/33",
        "169.254.169.254/32",
        "168.63.129.16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "not-an-ip/24",
    ],
)
def test_a_range_that_no_rule_may_lift_is_refused_under_private(text: str) -> None:
    assert refuse_private_range(text) is not None


def test_a_mapped_range_is_the_ipv4_range() -> None:
    assert parse_range("::ffff:10.0.0.0/120") == parse_range("10.0.0.0/24")
