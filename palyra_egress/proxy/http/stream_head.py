"""The head of an HTTP/2 request, checked field by field before anything else reads it. Pure.

Exactly the four pseudo-header fields of an ordinary request, each once and first; scheme https,
since HTTP/2 is spoken inside inspected TLS only; method and path as in HTTP/1; lower-case names
that are tokens, values without control characters or space around them, and none of the fields that
belong to one HTTP/1 connection. Extended CONNECT has a fifth pseudo-header and is refused with it.
A length must be one number, and zero where the head ends the stream: towards an HTTP/1 server a
length without a body would take the next request for it.
Sources: RFC 9113 sections 8.2 and 8.3, RFC 8441, RFC 9110 section 5.5.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from palyra_egress.proxy.http.request_head import MAX_HEAD_BYTES, MAX_HEADERS, RequestHead
from palyra_egress.reasons import Reason

PSEUDO_HEADERS: Final = (b":method", b":scheme", b":path", b":authority")
CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)

type Field = tuple[bytes, bytes]

_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE: Final = re.compile(
    rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class StreamHead:
    """A well-formed head: method and target as in HTTP/1, `authority` as sent, the other fields."""

    head: RequestHead
    authority: str
    fields: tuple[Field, ...]


def check_stream_head(fields: Sequence[Field], *, ends: bool) -> StreamHead | Reason:
    """The head of a stream, or why it is refused. `ends` says that no body follows."""
    if sum(len(name) + len(value) + 4 for name, value in fields) > MAX_HEAD_BYTES:
        return Reason.HEAD_TOO_LARGE
    if len(fields) > MAX_HEADERS + len(PSEUDO_HEADERS):
        return Reason.REQUEST_MALFORMED
    pseudo, rest = fields[: len(PSEUDO_HEADERS)], tuple(fields[len(PSEUDO_HEADERS) :])
    named = dict(pseudo)
    if {name for name, _ in fields if name.startswith(b":")} == set(PSEUDO_HEADERS[:3]):
        return Reason.HOST_MISSING
    if set(named) != set(PSEUDO_HEADERS) or named[b":scheme"] != b"https":
        return Reason.REQUEST_MALFORMED
    if not all(_is_regular(name, value) for name, value in rest) or not _lengths_agree(rest, ends):
        return Reason.REQUEST_MALFORMED
    method, path, authority = named[b":method"], named[b":path"], named[b":authority"]
    if _METHOD.fullmatch(method) is None:
        return Reason.METHOD_MALFORMED
    if _TARGET.fullmatch(path) is None or _TARGET.fullmatch(authority) is None:
        return Reason.REQUEST_MALFORMED
    head = RequestHead(method.decode("ascii"), path.decode("ascii"))
    return StreamHead(head, authority.decode("ascii"), rest)


def _is_regular(name: bytes, value: bytes) -> bool:
    if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        return False
    return name not in CONNECTION_FIELDS and (name != b"te" or value == b"trailers")


def _lengths_agree(fields: Sequence[Field], ends: bool) -> bool:
    lengths = [value for name, value in fields if name == b"content-length"]
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(length) for length in lengths):
        return False
    return not ends or lengths in ([], [b"0"])
