"""Every block of the registries against `classify`: its ends, and the neighbours just outside.

What the registry calls not globally reachable must not be public here. Where we are stricter than
the registry, or where the class depends on an embedded address, the row stands in a table with its
reason. The standard library gives a second opinion on the same addresses.
"""

import ipaddress
from typing import Final

import pytest

from palyra_egress.destination.address_class import AddressClass, classify, format_address
from tests.egress.destination.iana_registry import IPV4, IPV6, Row

PUBLIC: Final = AddressClass.PUBLIC
ALL: Final = (*IPV4, *IPV6)

STRICTER: Final = {
    "192.0.0.9/32": "serves a protocol of the path, no web server",
    "192.0.0.10/32": "serves a protocol of the path, no web server",
    "2001:1::1/128": "serves a protocol of the path, no web server",
    "2001:1::2/128": "serves a protocol of the path, no web server",
    "2001:1::3/128": "serves a protocol of the path, no web server",
    "2001:3::/32": "multicast tunnelling, no web server",
    "2001:4:112::/48": "answers for private reverse zones, no web server",
    "2001:20::/28": "identifiers, not addresses",
    "2001:30::/28": "identifiers, not addresses",
}
"""Globally reachable says the registry; refused here."""

PUBLIC_HERE: Final = {
    "192.31.196.0/24": "ordinary routed space of the AS112 project",
    "192.52.193.0/24": "ordinary routed space of AMT relays",
    "192.175.48.0/24": "ordinary routed space of the AS112 project",
    "2620:4f:8000::/48": "ordinary routed space of the AS112 project",
}
"""Registered and globally reachable: public here too."""

BY_EMBEDDED: Final = {
    "::ffff:0:0/96": "an IPv4-mapped address is its IPv4 address",
    "64:ff9b::/96": "a translated address is as private as the IPv4 address in it",
}
"""Their ends carry 0.0.0.0 and 255.255.255.255, so they are not public; the middle may be."""

STDLIB_CALLS_GLOBAL: Final = {
    "192.88.99.0/24": "withdrawn anycast (RFC 7526)",
    "192.88.99.2/32": "inside the withdrawn block",
    "224.0.0.0/4": "multicast",
    "64:ff9b::/96": "not unwrapped by the standard library",
    "5f00::/16": "not known to older standard libraries",
    "3fff::/20": "not known to older standard libraries",
    "100:0:0:1::/64": "not known to older standard libraries",
    "ff00::/8": "multicast",
    "fec0::/10": "deprecated, not in its table of private blocks",
    "::/96": "deprecated IPv4-compatible",
    "192.0.0.9/32": "see STRICTER",
    "192.0.0.10/32": "see STRICTER",
    "2001:1::1/128": "see STRICTER",
    "2001:1::2/128": "see STRICTER",
    "2001:1::3/128": "see STRICTER",
    "2001:3::/32": "see STRICTER",
    "2001:4:112::/48": "see STRICTER",
    "2001:20::/28": "see STRICTER",
    "2001:30::/28": "see STRICTER",
}
"""`ipaddress` of some supported version calls an end of it global; refused here."""


def _ends(row: Row) -> tuple[int, int, int]:
    """(version, first, last)."""
    network = ipaddress.ip_network(row.block)
    return network.version, int(network[0]), int(network[-1])


def _class_of(version: int, value: int) -> AddressClass:
    return classify(format_address(version, value)).address_class


def _registered(version: int, value: int) -> list[Row]:
    rows = IPV4 if version == 4 else IPV6
    return [row for row in rows if _ends(row)[1] <= value <= _ends(row)[2]]


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.block)
def test_both_ends_of_a_block_have_the_class_that_the_registry_wants(row: Row) -> None:
    version, first, last = _ends(row)
    for value in (first, last):
        expected_public = row.block in PUBLIC_HERE
        assert (_class_of(version, value) is PUBLIC) is expected_public, row.name


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.block)
def test_the_middle_of_a_block_is_refused_too(row: Row) -> None:
    version, first, last = _ends(row)
    middle = (first + last) // 2
    if row.block in BY_EMBEDDED:
        return  # the next test looks inside them
    assert (_class_of(version, middle) is PUBLIC) is (row.block in PUBLIC_HERE)


@pytest.mark.parametrize("block", BY_EMBEDDED)
@pytest.mark.parametrize("row", IPV4, ids=lambda row: row.block)
def test_an_embedded_address_is_as_public_as_its_row(block: str, row: Row) -> None:
    _, first, last = _ends(row)
    base = int(ipaddress.ip_network(block)[0])
    for value in (first, last):
        assert (_class_of(6, base + value) is PUBLIC) is (_class_of(4, value) is PUBLIC)


def _is_given_out(version: int, value: int) -> bool:
    """IPv4 all of it; of IPv6 2000::/3 (RFC 4291), and 64::/16 (decision 0018)."""
    return version == 4 or value >> 125 == 1 or value >> 112 == 0x64


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.block)
def test_the_neighbours_just_outside_are_public_where_addresses_are_given_out(row: Row) -> None:
    version, first, last = _ends(row)
    top = (1 << (32 if version == 4 else 128)) - 1
    for value in (first - 1, last + 1):
        if not 0 <= value <= top or _registered(version, value) or _is_ours(version, value):
            continue
        expected = PUBLIC if _is_given_out(version, value) else AddressClass.RESERVED
        assert _class_of(version, value) is expected, format_address(version, value)


OURS_ALONE: Final = {
    "::/96": "deprecated IPv4-compatible addresses (RFC 4291)",
    "::ffff:0:0:0/96": "IPv4-translated addresses (RFC 7915)",
    "200::/7": "withdrawn NSAP mapping (RFC 4048)",
}
"""Blocks of our table that the special-purpose registries do not have."""


def _is_ours(version: int, value: int) -> bool:
    networks = [ipaddress.ip_network(block) for block in OURS_ALONE]
    return any(
        network.version == version and int(network[0]) <= value <= int(network[-1])
        for network in networks
    )


@pytest.mark.parametrize("block", OURS_ALONE)
def test_blocks_of_our_own_are_refused(block: str) -> None:
    network = ipaddress.ip_network(block)
    for value in (int(network[0]), int(network[-1])):
        assert _class_of(6, value) is not PUBLIC


def test_the_registry_never_says_no_where_we_say_public() -> None:
    refused = {row.block for row in ALL if row.globally_reachable != "yes"}
    assert not refused & set(PUBLIC_HERE)
    reachable = {row.block for row in ALL if row.globally_reachable == "yes"}
    assert reachable == {*STRICTER, *PUBLIC_HERE, "64:ff9b::/96"}


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.block)
def test_the_standard_library_is_never_stricter_and_laxer_only_where_it_is_listed(
    row: Row,
) -> None:
    version, first, last = _ends(row)
    for value in (first, last):
        address = ipaddress.ip_address(format_address(version, value))
        is_public = _class_of(version, value) is PUBLIC
        if is_public:
            assert address.is_global
        elif address.is_global:
            assert row.block in STDLIB_CALLS_GLOBAL


def test_every_row_of_the_tables_is_a_registered_block() -> None:
    blocks = {row.block for row in ALL}
    assert {*STRICTER, *PUBLIC_HERE, *BY_EMBEDDED} <= blocks
    assert set(STDLIB_CALLS_GLOBAL) <= blocks | set(OURS_ALONE)
    assert len(blocks) == len(ALL)
