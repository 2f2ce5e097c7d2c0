"""The one canonicaliser of host names and authorities.

Input: text as a stranger wrote it. Output: a `CanonicalHost` (lower-case A-labels without trailing
dot, or a canonical IP literal), or `HostRefused` with the reason. Nothing else in the program makes
a `CanonicalHost` out of a stranger's text, so comparisons are comparisons of single spellings.

Invariants: canonicalising twice changes nothing; a last label that is numeric (or starts with 0x)
is refused unless the whole is a canonical IPv4 literal written in ASCII; IPv6 is accepted only in
brackets and only by `split_host_port` and `parse_authority`. Lengths are in characters.
Sources: RFC 1035 (lengths), RFC 3986 section 3.2, RFC 5890-5892, UTS #46 (non-transitional, STD3);
underscores are accepted in ASCII names because DNS has them. `2130706433`, `127.1`, `0x7f.1` and
`0177.0.0.1` reach 127.0.0.1 through the system resolver, hence the numeric rule.
"""

import re
from typing import Final

import idna

from palyra_egress.destination.address_class import (
    format_ipv6,
    parse_address,
    parse_ipv4,
    parse_ipv6,
)
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost

MAX_NAME: Final = 253
_MAX_TEXT: Final = 1024  # IDNA work on longer text would be a gift to an attacker
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_NEVER_IN_HOST: Final = re.compile(r"[\x00-\x20\x7f\\%/?#\[\]<>^|@:\"]")

_NOT_IDNA: Final = (UnicodeError, IndexError, OverflowError)
"""What the idna package raises for text it cannot map; the last for punycode of huge numbers."""


class HostRefused(ValueError):
    """The text names no host we accept. `reason` is a stable code, `detail` is for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def _malformed(detail: str) -> HostRefused:
    return HostRefused(Reason.HOST_MALFORMED, detail)


def ends_in_number(name: str) -> bool:
    """True if a resolver may read the whole name as a number: the last label is numeric or 0x."""
    last = name.rpartition(".")[2]
    return last.isdigit() or last.startswith("0x")


def _check_a_labels(name: str) -> None:
    """Every `xn--` label must be the one A-label of a valid U-label."""
    for label in name.split("."):
        if not label.startswith("xn--"):
            continue
        try:
            again = idna.alabel(idna.ulabel(label)).decode("ascii")
        except _NOT_IDNA as error:
            raise _malformed("an xn-- label is not valid IDNA 2008") from error
        if again != label:
            raise _malformed("an xn-- label is not in its canonical form")


def _canonical_ascii(name: str) -> CanonicalHost:
    """`name` is lower-case ASCII without its trailing dot."""
    if _NAME.fullmatch(name) is None:
        if not name or ".." in name or name[0] == "." or name[-1] == ".":
            raise _malformed("the name has an empty label")
        raise _malformed("a label has characters, hyphens or a length that names may not have")
    if len(name) > MAX_NAME:
        raise _malformed(f"the name is longer than {MAX_NAME} characters")
    if ends_in_number(name) and parse_ipv4(name) is None:
        raise HostRefused(
            Reason.NUMERIC_HOST, "a numeric spelling that is not a canonical IPv4 address"
        )
    if "xn--" in name:
        _check_a_labels(name)
    return CanonicalHost(name)


def _canonical_unicode(text: str) -> CanonicalHost:
    try:
        mapped = idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except _NOT_IDNA as error:
        # the mapping may already show what a resolver would read as an address
        if _maps_to_number(text):
            raise HostRefused(Reason.NUMERIC_HOST, "a number in unusual characters") from error
        raise _malformed("the name is not valid IDNA 2008") from error
    name = mapped.removesuffix(".")
    if ends_in_number(name):
        raise HostRefused(Reason.NUMERIC_HOST, "a number in unusual characters")
    return _canonical_ascii(name)


def _maps_to_number(text: str) -> bool:
    try:
        mapped = idna.uts46_remap(text, std3_rules=False)
    except _NOT_IDNA:
        return False
    return ends_in_number(mapped.removesuffix("."))


def canonical_host(text: str) -> CanonicalHost:
    """The one spelling of a DNS name or IPv4 literal; raises `HostRefused`."""
    if not text:
        raise HostRefused(Reason.HOST_MISSING, "no host is named")
    if len(text) > _MAX_TEXT:
        raise _malformed("the name is too long")
    if "@" in text:
        raise HostRefused(Reason.URL_CREDENTIALS, "the host carries user information")
    found = _NEVER_IN_HOST.search(text)
    if found is not None:
        raise _malformed(f"the character U+{ord(found[0]):04X} may not stand in a host name")
    if text.isascii():
        return _canonical_ascii(text.removesuffix(".").lower())
    return _canonical_unicode(text)


def is_canonical_host(host: str) -> bool:
    """True if `host` is already in its one spelling (bare canonical IPv6 included)."""
    if ":" in host:
        value = parse_ipv6(host)
        return value is not None and format_ipv6(value) == host
    try:
        return canonical_host(host) == host
    except HostRefused:
        return False


def parse_port(text: str) -> int:
    """A decimal port 1 to 65535 without sign, space or leading zero; raises `HostRefused`."""
    if _PORT.fullmatch(text) is None or int(text) > 65535:
        raise HostRefused(Reason.REQUEST_MALFORMED, "the port is not a number from 1 to 65535")
    return int(text)


def _split_brackets(text: str) -> tuple[CanonicalHost, str]:
    inside, closing, rest = text[1:].partition("]")
    value = parse_ipv6(inside)
    if not closing or value is None:
        raise _malformed("brackets hold something that is not an IPv6 address")
    return CanonicalHost(format_ipv6(value)), rest


def split_host_port(text: str) -> tuple[CanonicalHost, int | None]:
    """`host`, `host:port`, `[ipv6]` or `[ipv6]:port`; the port is None where none is written."""
    if "@" in text:
        raise HostRefused(Reason.URL_CREDENTIALS, "the authority carries user information")
    if len(text) > _MAX_TEXT:
        raise _malformed("the authority is too long")
    if text.startswith("["):
        host, rest = _split_brackets(text)
        if rest and not rest.startswith(":"):
            raise _malformed("text after the closing bracket")
        colon, port_text = rest[:1], rest[1:]
    else:
        name, colon, port_text = text.partition(":")
        if ":" in port_text:
            raise _malformed("more than one colon without brackets")
        host = canonical_host(name)
    if not colon:
        return host, None
    if not port_text:
        raise HostRefused(Reason.PORT_MISSING, "a colon without a port")
    return host, parse_port(port_text)


def parse_authority(text: str, default_port: int | None) -> tuple[CanonicalHost, int]:
    """Host and port; without a written port the default, and PORT_MISSING if there is none."""
    host, port = split_host_port(text)
    if port is not None:
        return host, port
    if default_port is None:
        raise HostRefused(Reason.PORT_MISSING, "the port must be written")
    return host, default_port


def sni_problem(sni: str | None, host: CanonicalHost) -> Reason | None:
    """Whether a ClientHello with this SNI opens the tunnel to `host`. An address is never named in
    one (RFC 6066 section 3), so where the host is an address there must be none."""
    if parse_address(host) is not None:
        return None if sni is None else Reason.AUTHORITY_MISMATCH
    if sni is None:
        return Reason.SNI_MISSING
    try:
        named = canonical_host(sni)
    except HostRefused:
        return Reason.AUTHORITY_MISMATCH
    return None if named == host else Reason.AUTHORITY_MISMATCH
