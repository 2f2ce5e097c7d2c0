"""Which trailer fields may pass, towards a server and towards a worker. Pure.

A trailer is read after the decisions that a header could have changed, and some programs merge it
into the headers regardless. So a name that frames, routes, authenticates or changes how the message
is read is refused from a worker, and dropped from a server's answer; so are the names that end at
this proxy and those under which the proxy adds credentials.
Source: RFC 9110 section 6.5.1; RFC 9113 section 8.1.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from palyra_egress.credentials.injection import Injected
from palyra_egress.credentials.request_scan import ENDS_HERE
from palyra_egress.proxy.http.canonical import HOP_BY_HOP

MAX_TRAILERS: Final = 32
MAX_TRAILER_BYTES: Final = 8 * 1024

NEVER_TRAILERS: Final = HOP_BY_HOP | {
    "age", "authorization", "cache-control", "content-encoding", "content-length", "content-range",
    "content-type", "cookie", "date", "expect", "expires", "forwarded", "host", "http2-settings",
    "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "location",
    "max-forwards", "origin", "pragma", "range", "referer", "retry-after", "set-cookie",
    "transfer-encoding", "vary", "via", "warning", "www-authenticate", "x-forwarded-for",
    "x-forwarded-host", "x-forwarded-proto",
}  # fmt: skip

type Fields = Iterable[tuple[bytes, bytes]]

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def _may_pass(name: bytes, value: bytes) -> bool:
    if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        return False
    text = name.decode("ascii").lower()
    return text not in NEVER_TRAILERS and not text.startswith(ENDS_HERE)


def _is_too_much(fields: Fields) -> bool:
    sizes = [len(name) + len(value) for name, value in fields]
    return len(sizes) > MAX_TRAILERS or sum(sizes) > MAX_TRAILER_BYTES


def trailers_problem(fields: Sequence[tuple[bytes, bytes]], injected: Sequence[Injected]) -> bool:
    """Whether a worker's trailers may not leave."""
    bound = {one.binding.header for one in injected}
    return _is_too_much(fields) or not all(
        _may_pass(name, value) and name.decode("ascii").lower().replace("_", "-") not in bound
        for name, value in fields
    )


def returnable_trailers(
    fields: Sequence[tuple[bytes, bytes]],
) -> tuple[tuple[bytes, bytes], ...]:
    """What of a server's trailers the worker may see; nothing of what is too much."""
    passing = tuple((name, value) for name, value in fields if _may_pass(name, value))
    return () if _is_too_much(passing) else passing
