"""Other tools' host patterns in our spelling.

Input: the name, address or CIDR without its wildcard, and the prefix that says what the wildcard
means here (`""` that name, `"*."` below it, `"."` both). Output: our pattern's text. Names are
canonicalised, so that a full-width or upper-case spelling names the same host as before.
Raises `PatternRefused` where we have no such pattern.
"""

from typing import Final

from palyra_egress.destination.hostname import HostRefused, canonical_host
from palyra_egress.destination.hostpattern import PatternRefused, parse_pattern

EXACT: Final = ""
BELOW: Final = "*."
NAME_AND_BELOW: Final = "."
_EXPECTED: Final = "a name, *.name, .name, an IP address or a CIDR"


def our_pattern(bare: str, prefix: str = EXACT) -> str:
    """The pattern for `bare` under `prefix`; raises `PatternRefused`."""
    if not prefix and (":" in bare or "/" in bare):
        return parse_pattern(bare).text
    try:
        name = canonical_host(bare)
    except HostRefused as error:
        raise PatternRefused(error.detail, _EXPECTED) from error
    return parse_pattern(f"{prefix}{name}").text


def widest_suffix(text: str) -> str:
    """A pattern for all that a glob with `*` inside can match; raises `PatternRefused`.

    `api-*.example.com` lies below `example.com` whatever the wildcard stands for.
    """
    fixed = text.rpartition("*")[2].partition(".")[2]
    return our_pattern(fixed, BELOW)


def split_port(text: str) -> tuple[str, int | None]:
    """`host:port`, `[ipv6]:port` or a host alone; a suffix that is no port stays with the host."""
    head, colon, tail = text.rpartition(":")
    is_port = tail.isascii() and tail.isdigit() and tail[:1] != "0" and len(tail) <= 5
    if not colon or not is_port or int(tail) > 65535:
        return text.removeprefix("[").removesuffix("]"), None
    if head.startswith("[") and head.endswith("]"):
        return head[1:-1], int(tail)
    return (text, None) if ":" in head else (head, int(tail))
