"""What kind of address this is, and whether a policy may ever reach it.

Input: one IPv4 or IPv6 address as text. Output: its canonical text, its class, and the *parts* it
was judged by: the address itself and every IPv4 address embedded in it (mapped, compatible,
translated, NAT64, 6to4, Teredo, ISATAP). The strictest class of all parts is the class of the
whole. Text that is not one address is `UNPARSABLE`, never public.

Invariants: only `PUBLIC` needs no permission; METADATA, MULTICAST, UNSPECIFIED, BROADCAST, RESERVED
and UNPARSABLE cannot be lifted by any rule. `ipaddress` is not used: it accepts and calls global
what we must refuse (`64:ff9b::a00:1`, `224.0.0.1`, `::127.0.0.1`).
Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries and the IPv6 address space registry
as of 2026-11-23; RFC 4291, 5214, 4380, 6052, 7915, 8215; the clouds' own documents for the platform
addresses. Registry rows that IANA calls globally reachable but that serve protocols rather than
web servers (192.0.0.9, 2001:1::1, ORCHID and such) stay refused. IPv6 that nobody was given
(outside `2000::/3`, and in no registry) is reserved.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple


class AddressClass(StrEnum):
    """The kinds of address, the mildest first: this order is the strictness."""

    PUBLIC = "public"
    PROTOCOL = "protocol"
    TRANSITION = "transition"
    SHARED = "shared"
    BENCHMARK = "benchmark"
    DOCUMENTATION = "documentation"
    PRIVATE = "private"
    LINK_LOCAL = "link_local"
    LOOPBACK = "loopback"
    RESERVED = "reserved"
    BROADCAST = "broadcast"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    UNPARSABLE = "unparsable"
    METADATA = "metadata"


_C = AddressClass
_STRICTNESS: Final = {address_class: rank for rank, address_class in enumerate(AddressClass)}
NEVER_LIFTED: Final = frozenset(
    {_C.RESERVED, _C.BROADCAST, _C.MULTICAST, _C.UNSPECIFIED, _C.UNPARSABLE, _C.METADATA}
)
"""Classes that no `private` range of any rule can allow."""


class AddressPart(NamedTuple):
    """One address inside an answer: IP version 4 or 6, its integer value, its own class."""

    version: int
    value: int
    address_class: AddressClass


class ClassifiedAddress(NamedTuple):
    """`text` is canonical (or the input, if unparsable); `parts` is empty only if unparsable."""

    text: str
    address_class: AddressClass
    parts: tuple[AddressPart, ...]


class AddressRange(NamedTuple):
    """Addresses `low` to `high`, both included, of one IP version."""

    version: int
    low: int
    high: int

    def holds(self, version: int, value: int) -> bool:
        return self.version == version and self.low <= value <= self.high


_IPV4_TABLE: Final = (
    ("0.0.0.0/32", _C.UNSPECIFIED),
    ("0.0.0.0/8", _C.RESERVED),  # RFC 791 "this network"; Linux delivers it to the host itself
    ("10.0.0.0/8", _C.PRIVATE),  # RFC 1918
    ("100.64.0.0/10", _C.SHARED),  # RFC 6598, carrier-grade NAT
    ("127.0.0.0/8", _C.LOOPBACK),  # RFC 1122
    ("169.254.0.0/16", _C.LINK_LOCAL),  # RFC 3927
    ("172.16.0.0/12", _C.PRIVATE),  # RFC 1918
    ("192.0.0.0/24", _C.PROTOCOL),  # RFC 6890
    ("192.0.2.0/24", _C.DOCUMENTATION),  # RFC 5737
    ("192.88.99.0/24", _C.RESERVED),  # RFC 7526, the withdrawn 6to4 relay anycast
    ("192.168.0.0/16", _C.PRIVATE),  # RFC 1918
    ("198.18.0.0/15", _C.BENCHMARK),  # RFC 2544
    ("198.51.100.0/24", _C.DOCUMENTATION),  # RFC 5737
    ("203.0.113.0/24", _C.DOCUMENTATION),  # RFC 5737
    ("224.0.0.0/4", _C.MULTICAST),  # RFC 5771
    ("240.0.0.0/4", _C.RESERVED),  # RFC 1112
    ("255.255.255.255/32", _C.BROADCAST),  # RFC 919
    # platform addresses: instance metadata, credentials, and the cloud's own agents
    ("169.254.169.254/32", _C.METADATA),  # AWS, Azure, Google, OpenStack and most others
    ("169.254.169.253/32", _C.METADATA),  # AWS resolver
    ("169.254.169.250/31", _C.METADATA),  # AWS licence activation
    ("169.254.169.123/32", _C.METADATA),  # AWS time
    ("169.254.170.2/32", _C.METADATA),  # AWS container task credentials
    ("169.254.170.23/32", _C.METADATA),  # AWS pod identity
    ("169.254.0.23/32", _C.METADATA),  # Tencent Cloud
    ("169.254.42.42/32", _C.METADATA),  # Scaleway
    ("168.63.129.16/32", _C.METADATA),  # Azure WireServer: a public number, a platform service
    ("100.100.100.200/32", _C.METADATA),  # Alibaba Cloud
    ("192.0.0.192/32", _C.METADATA),  # Oracle Cloud
)

_IPV6_TABLE: Final = (
    ("::/128", _C.UNSPECIFIED),  # RFC 4291
    ("::1/128", _C.LOOPBACK),  # RFC 4291
    ("::/96", _C.TRANSITION),  # RFC 4291, IPv4-compatible, deprecated
    ("::ffff:0:0:0/96", _C.TRANSITION),  # RFC 7915, IPv4-translated
    ("64:ff9b:1::/48", _C.TRANSITION),  # RFC 8215, local-use NAT64
    ("100::/64", _C.RESERVED),  # RFC 6666, discard
    ("100:0:0:1::/64", _C.RESERVED),  # RFC 9780, dummy prefix
    ("200::/7", _C.RESERVED),  # RFC 4048, withdrawn; overlay networks live here
    ("2001::/23", _C.PROTOCOL),  # RFC 2928
    ("2001::/32", _C.TRANSITION),  # RFC 4380, Teredo
    ("2001:2::/48", _C.BENCHMARK),  # RFC 5180
    ("2001:db8::/32", _C.DOCUMENTATION),  # RFC 3849
    ("2002::/16", _C.TRANSITION),  # RFC 3056, 6to4
    ("3fff::/20", _C.DOCUMENTATION),  # RFC 9637
    ("5f00::/16", _C.RESERVED),  # RFC 9602, segment routing
    ("fc00::/7", _C.PRIVATE),  # RFC 4193
    ("fe80::/10", _C.LINK_LOCAL),  # RFC 4291
    ("fec0::/10", _C.PRIVATE),  # RFC 3879, site-local, deprecated
    ("ff00::/8", _C.MULTICAST),  # RFC 4291
    ("fd00:ec2::254/128", _C.METADATA),  # AWS metadata
    ("fd00:ec2::253/128", _C.METADATA),  # AWS resolver
    ("fd00:ec2::123/128", _C.METADATA),  # AWS time
    ("fd00:ec2::23/128", _C.METADATA),  # AWS pod identity
    ("fd20:ce::254/128", _C.METADATA),  # Google Cloud
    ("fd00:c1::a9fe:a9fe/128", _C.METADATA),  # Oracle Cloud
    ("fd00:42::42/128", _C.METADATA),  # Scaleway
    ("fe80::a9fe:a9fe/128", _C.METADATA),  # OpenStack
)

_IPV4_GLOBAL: Final = ("0.0.0.0/0",)
_IPV6_GLOBAL: Final = (
    "2000::/3",  # RFC 4291: what IANA gives out as global unicast, all of it
    "64::/16",  # around the NAT64 prefix of RFC 6052, which is global; see decision 0018
)
"""Where an address that no row names is public. Elsewhere it is reserved: nobody was given it."""


def parse_ipv4(text: str) -> int | None:
    """Four decimal octets without leading zeros, ASCII digits only; anything else is None."""
    octets = text.split(".")
    if len(octets) != 4 or not text.isascii():
        return None
    value = 0
    for octet in octets:
        if not octet.isdigit() or len(octet) > 3 or (octet[0] == "0" and len(octet) > 1):
            return None
        number = int(octet)
        if number > 255:
            return None
        value = value << 8 | number
    return value


def format_ipv4(value: int) -> str:
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def _hextets(text: str) -> list[int] | None:
    """The groups of one side of `::`; an empty side is an empty list."""
    if not text:
        return []
    groups: list[int] = []
    for group in text.split(":"):
        if not 1 <= len(group) <= 4 or not all(c in "0123456789abcdefABCDEF" for c in group):
            return None
        groups.append(int(group, 16))
    return groups


def parse_ipv6(text: str) -> int | None:
    """An RFC 4291 spelling without brackets or zone; anything else is None."""
    if len(text) > 45 or not text.isascii() or ":" not in text:
        return None
    if "." in text:
        head, _, tail = text.rpartition(":")
        ipv4 = parse_ipv4(tail)
        if ipv4 is None:
            return None
        text = f"{head}:{ipv4 >> 16:x}:{ipv4 & 0xFFFF:x}"
    left_text, gap, right_text = text.partition("::")
    left, right = _hextets(left_text), _hextets(right_text)
    if left is None or right is None:
        return None
    missing = 8 - len(left) - len(right)
    if (missing < 1) if gap else (missing != 0):
        return None
    value = 0
    for group in (*left, *[0] * missing, *right):
        value = value << 16 | group
    return value


def format_ipv6(value: int) -> str:
    """RFC 5952: lower case, the longest run of zeros shortened, mapped addresses dotted."""
    if value >> 32 == 0xFFFF:
        return f"::ffff:{format_ipv4(value & 0xFFFFFFFF)}"
    groups = [value >> shift & 0xFFFF for shift in range(112, -1, -16)]
    best_start, best_length, run = 0, 1, 0
    for position, group in enumerate(groups):
        run = run + 1 if group == 0 else 0
        if run > best_length:
            best_start, best_length = position - run + 1, run
    texts = [f"{group:x}" for group in groups]
    if best_length < 2:
        return ":".join(texts)
    return f"{':'.join(texts[:best_start])}::{':'.join(texts[best_start + best_length :])}"


def parse_address(text: str) -> tuple[int, int] | None:
    """(version, value) of an address without brackets, or None."""
    if ":" in text:
        value = parse_ipv6(text)
        return None if value is None else (6, value)
    value = parse_ipv4(text)
    return None if value is None else (4, value)


def format_address(version: int, value: int) -> str:
    return format_ipv4(value) if version == 4 else format_ipv6(value)


def parse_range(text: str) -> AddressRange | None:
    """An address or a CIDR without host bits; mapped CIDRs become IPv4. Otherwise None."""
    base, slash, length_text = text.partition("/")
    address = parse_address(base)
    if address is None:
        return None
    version, value = address
    bits = 32 if version == 4 else 128
    if slash and not (length_text.isascii() and length_text.isdigit() and len(length_text) <= 3):
        return None
    length = int(length_text) if slash else bits
    if length > bits or (slash and length_text != str(length)):
        return None
    host_mask = (1 << (bits - length)) - 1
    if value & host_mask:
        return None
    if version == 6 and length >= 96 and value >> 32 == 0xFFFF:
        return AddressRange(4, value & 0xFFFFFFFF, value & 0xFFFFFFFF | host_mask)
    return AddressRange(version, value, value | host_mask)


def _strictest(classes: Iterable[AddressClass]) -> AddressClass:
    return max(classes, key=_STRICTNESS.__getitem__)


def _row(text: str) -> AddressRange:
    parsed = parse_range(text)
    if parsed is None:
        raise ValueError(f"bad row {text}")
    return parsed


class _RangeTable:
    """A table flattened to disjoint ranges: start points and the class from there on."""

    def __init__(self, rows: Sequence[tuple[str, AddressClass]], given_out: Sequence[str]) -> None:
        self.rows = [(_row(text), address_class) for text, address_class in rows]
        self._given_out = [_row(text) for text in given_out]
        ranges = [*(row for row, _ in self.rows), *self._given_out]
        points = {0} | {row.low for row in ranges} | {row.high + 1 for row in ranges}
        self._starts = sorted(points)
        self._classes = [self._class_at(start) for start in self._starts]

    def _class_at(self, value: int) -> AddressClass:
        named = [c for row, c in self.rows if row.low <= value <= row.high]
        if named:
            return _strictest(named)
        is_given_out = any(row.low <= value <= row.high for row in self._given_out)
        return _C.PUBLIC if is_given_out else _C.RESERVED

    def find(self, value: int) -> AddressClass:
        return self._classes[bisect_right(self._starts, value) - 1]


_IPV4: Final = _RangeTable(_IPV4_TABLE, _IPV4_GLOBAL)
_IPV6: Final = _RangeTable(_IPV6_TABLE, _IPV6_GLOBAL)
_LOW32: Final = 0xFFFFFFFF


def _embedded_ipv4(value: int) -> tuple[int, ...]:
    """Every IPv4 address that this IPv6 address carries by a published scheme."""
    top96, low = value >> 32, value & _LOW32
    if top96 in (0, 0xFFFF0000):  # compatible, translated
        return () if value <= 1 else (low,)
    if top96 == 0x64FF9B << 64:  # NAT64, RFC 6052
        return (low,)
    if value >> 80 == 0x64FF9B0001:  # NAT64 for local use: any layout that names a platform address
        middle = (value >> 64 & 0xFFFF, value >> 64 & 0xFF, value & ((1 << 56) - 1))
        layouts = (
            middle[0] << 16 | middle[2] >> 40,
            middle[1] << 24 | middle[2] >> 32,
            middle[2] >> 24,
        )
        return (low, *(x for x in layouts if _IPV4.find(x) is _C.METADATA))
    if value >> 112 == 0x2002:  # 6to4
        return (value >> 80 & _LOW32,)
    if value >> 96 == 0x20010000:  # Teredo: the server, and the client with its bits inverted
        return (value >> 64 & _LOW32, low ^ _LOW32)
    if (value >> 32 & _LOW32) & ~0x03000000 == 0x00005EFE:  # ISATAP, RFC 5214
        return (low,)
    return ()


@lru_cache(maxsize=8192)
def classify(address: str) -> ClassifiedAddress:
    """The class of one address; text that is not an address is UNPARSABLE, never public."""
    parsed = parse_address(address)
    if parsed is None:
        return ClassifiedAddress(address, _C.UNPARSABLE, ())
    version, value = parsed
    if version == 4:
        found = _IPV4.find(value)
        return ClassifiedAddress(address, found, (AddressPart(4, value, found),))
    text = format_ipv6(value)
    if value >> 32 == 0xFFFF:
        inner = value & _LOW32
        found = _IPV4.find(inner)
        return ClassifiedAddress(text, found, (AddressPart(4, inner, found),))
    parts = [AddressPart(6, value, _IPV6.find(value))]
    parts += [AddressPart(4, inner, _IPV4.find(inner)) for inner in _embedded_ipv4(value)]
    return ClassifiedAddress(text, _strictest(part.address_class for part in parts), tuple(parts))


def is_covered(address: ClassifiedAddress, private: Sequence[AddressRange]) -> bool:
    """True if every part is public or both liftable and inside one of the `private` ranges."""
    if not address.parts:
        return False
    for version, value, part_class in address.parts:
        if part_class is _C.PUBLIC:
            continue
        if part_class in NEVER_LIFTED:
            return False
        if not any(allowed.holds(version, value) for allowed in private):
            return False
    return True


def refuse_private_range(text: str) -> str | None:
    """Why this text may not stand under a rule's `private:`, or None if it may."""
    allowed = parse_range(text)
    if allowed is None:
        return "not an address range without host bits"
    table = _IPV4 if allowed.version == 4 else _IPV6
    rows = table.rows
    if not any(row.low <= allowed.low and allowed.high <= row.high for row, _ in rows):
        found = table.find(allowed.low)
        if found in NEVER_LIFTED and found is table.find(allowed.high):
            return f"of the class {found}, which no rule can allow"
        return "not inside one special-purpose range: public addresses need no permission"
    holders = [c for row, c in rows if row.low <= allowed.low and allowed.high <= row.high]
    if any(address_class in NEVER_LIFTED for address_class in holders):
        return f"of the class {_strictest(holders)}, which no rule can allow"
    return None
