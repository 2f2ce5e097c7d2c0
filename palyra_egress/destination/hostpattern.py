"""Which hosts a rule names, and an index that finds them at a cost independent of their number.

Patterns: `api.example.com` that name; `*.example.com` any depth below it, not the name itself;
`.example.com` both; an IP literal; a CIDR. Nothing else: no middle globs, no `*` alone, no port, no
scheme, no path. Names are written as lower- or upper-case ASCII (A-labels), so that what a reviewer
reads is what is compared.

Input: pattern text from a policy file. Output: `HostPattern`, or `PatternRefused` with what was
expected and, where one is near, the spelling that was probably meant. `HostIndex` gives what
was stored for a host, the most specific pattern first: the name itself, then longer suffixes before
shorter; for addresses longer prefixes first. Its cost grows with labels and prefix lengths only.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from palyra_egress.destination.address_class import (
    AddressRange,
    format_address,
    parse_address,
    parse_range,
)
from palyra_egress.destination.hostname import HostRefused, canonical_host
from palyra_egress.destination.public_suffix import is_registry_suffix, is_shared_suffix

WIDE_IPV4_BITS: Final = 8
WIDE_IPV6_BITS: Final = 20


class PatternKind(StrEnum):
    NAME = "name"
    BELOW = "below"
    NAME_AND_BELOW = "name_and_below"
    ADDRESSES = "addresses"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """`name` is the canonical name without the wildcard; `addresses` is set for IP patterns."""

    kind: PatternKind
    text: str
    name: str = ""
    addresses: AddressRange | None = None

    @property
    def prefix_length(self) -> int:
        """Bits of the network part; only for IP patterns."""
        if self.addresses is None:
            return 0
        bits = 32 if self.addresses.version == 4 else 128
        return bits - (self.addresses.high - self.addresses.low).bit_length()

    @property
    def is_wide(self) -> bool:
        """True if the pattern opens a whole registry suffix or a very large network."""
        if self.addresses is not None:
            floor = WIDE_IPV4_BITS if self.addresses.version == 4 else WIDE_IPV6_BITS
            return self.prefix_length < floor
        return self.kind is not PatternKind.NAME and is_registry_suffix(self.name)

    @property
    def is_shared(self) -> bool:
        """True for a wildcard over names that anybody can get, from a registry or a provider."""
        return (
            self.addresses is None
            and self.kind is not PatternKind.NAME
            and (is_shared_suffix(self.name))
        )

    @property
    def is_single_label(self) -> bool:
        """True for a bare name such as `mirror`, which search domains may complete anyhow."""
        return self.kind is PatternKind.NAME and "." not in self.name and self.name != "localhost"


class PatternRefused(ValueError):
    """The text is no host pattern."""

    def __init__(self, detail: str, expected: str, suggestion: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.expected = expected
        self.suggestion = suggestion


_EXPECTED: Final = "a name, *.name, .name, an IP address or a CIDR"


def _suggest_from_url(text: str) -> str | None:
    """The host inside something that looks like a URL, an authority or a padded name."""
    rest = text.strip().partition("://")[2] or text.strip()
    rest = rest.partition("/")[0].rpartition("@")[2].partition(":")[0]
    wildcard = "*." if rest.startswith("*.") else ""
    try:
        return wildcard + canonical_host(rest.removeprefix("*."))
    except HostRefused:
        return None


def _parse_addresses(text: str) -> HostPattern | None:
    base, slash, length = text.partition("/")
    address = parse_address(base)
    if address is None:
        if slash and length.isdigit():
            raise PatternRefused(f"{base!r} is not an IP address", "a CIDR such as 192.0.2.0/24")
        return None
    addresses = parse_range(text)
    if addresses is None:
        bits = 32 if address[0] == 4 else 128
        suggestion = None
        if length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits:
            low = address[1] >> (bits - int(length)) << (bits - int(length))
            suggestion = f"{format_address(address[0], low)}/{int(length)}"
        raise PatternRefused("the CIDR has host bits or a bad length", "a network", suggestion)
    return HostPattern(PatternKind.ADDRESSES, text, addresses=addresses)


def _refuse_shape(text: str) -> None:
    """Spellings that are common mistakes and deserve their own words."""
    if not text:
        raise PatternRefused("the pattern is empty", _EXPECTED)
    if text in {"*", "*.", ".", ".*", "*.*"}:
        raise PatternRefused("the pattern matches everything or nothing", _EXPECTED)
    if "://" in text:
        raise PatternRefused(
            "a pattern has no scheme", "the host alone; use `schemes:`", _suggest_from_url(text)
        )
    if text.strip() != text:
        raise PatternRefused("spaces around the pattern", _EXPECTED, _suggest_from_url(text))
    if text.startswith("["):
        raise PatternRefused("brackets", "an IPv6 address without brackets", text.strip("[]"))
    if "/" in text:
        raise PatternRefused(
            "a pattern has no path", "the host alone; use `paths:`", _suggest_from_url(text)
        )
    if ":" in text:
        raise PatternRefused(
            "a pattern has no port", "the host alone; use `ports:`", _suggest_from_url(text)
        )


def parse_pattern(text: str) -> HostPattern:
    """The pattern that `text` spells; raises `PatternRefused`."""
    addresses = _parse_addresses(text)
    if addresses is not None:
        return addresses
    _refuse_shape(text)
    kind, prefix = PatternKind.NAME, ""
    if text.startswith("*."):
        kind, prefix = PatternKind.BELOW, "*."
    elif text.startswith("."):
        kind, prefix = PatternKind.NAME_AND_BELOW, "."
    bare = text.removeprefix(prefix)
    if "*" in bare or "?" in bare:
        rest = _suggest_from_url(bare.lstrip("*."))
        suggestion = f"*.{rest}" if rest is not None and "." in rest else None
        raise PatternRefused("a wildcard may only stand as the first label", _EXPECTED, suggestion)
    try:
        name = canonical_host(bare)
    except HostRefused as error:
        raise PatternRefused(error.detail, _EXPECTED) from error
    if name != bare.lower():
        raise PatternRefused(
            "the name is not in its canonical form", "the name as it is compared", prefix + name
        )
    if prefix and parse_address(name) is not None:
        raise PatternRefused("an address has no subdomains", _EXPECTED, name)
    return HostPattern(kind, text, name=name)


@dataclass(slots=True)
class _Suffix[T]:
    """What is stored for `*.name` and for `.name`."""

    below: T | None = None
    with_name: T | None = None

    def slot(self, kind: PatternKind, fresh: T) -> T:
        if kind is PatternKind.BELOW:
            self.below = fresh if self.below is None else self.below
            return self.below
        self.with_name = fresh if self.with_name is None else self.with_name
        return self.with_name


class HostIndex[T]:
    """What is stored under patterns, found by canonical host in time independent of their number.

    Build with `slot`, which returns the one object kept for an equal pattern; then only read.
    """

    def __init__(self) -> None:
        self._names: dict[str, T] = {}
        self._suffixes: dict[str, _Suffix[T]] = {}
        self._networks: dict[tuple[int, int], dict[int, T]] = {}
        self._shifts: dict[int, tuple[int, ...]] = {4: (), 6: ()}
        self.is_empty = True

    def slot(self, pattern: HostPattern, fresh: T) -> T:
        """The object stored for this pattern; `fresh` is stored and returned if there is none."""
        self.is_empty = False
        if pattern.kind is PatternKind.NAME:
            return self._names.setdefault(pattern.name, fresh)
        if pattern.addresses is None:
            return self._suffixes.setdefault(pattern.name, _Suffix()).slot(pattern.kind, fresh)
        version, low, high = pattern.addresses
        shift = (high - low).bit_length()
        if (version, shift) not in self._networks:
            self._networks[version, shift] = {}
            self._shifts[version] = tuple(sorted((*self._shifts[version], shift)))
        return self._networks[version, shift].setdefault(low >> shift, fresh)

    def find_name(self, host: str) -> list[T]:
        """Everything stored for a DNS name, most specific first."""
        suffixes = self._suffixes
        found = self._names.get(host)
        results = [] if found is None else [found]
        if not suffixes:
            return results
        if (own := suffixes.get(host)) is not None and own.with_name is not None:
            results.append(own.with_name)
        dot = host.find(".")
        while dot >= 0:
            suffix = suffixes.get(host[dot + 1 :])
            if suffix is not None:
                if suffix.below is not None:
                    results.append(suffix.below)
                if suffix.with_name is not None:
                    results.append(suffix.with_name)
            dot = host.find(".", dot + 1)
        return results

    def find_address(self, version: int, value: int) -> list[T]:
        """Everything stored for an address, longest prefix first."""
        found = (
            self._networks[version, shift].get(value >> shift) for shift in self._shifts[version]
        )
        return [stored for stored in found if stored is not None]
