"""The raw head of an HTTP/1 request, checked byte by byte before anything else reads it. Pure.

mitmproxy is lenient where a proxy must not be: it forwards obs-fold, bare CR and NUL in values,
takes `HTTP/2.0` as a version on HTTP/1, and buffers a head of any size. Here a head is CRLF lines
only, a token method, a printable target without spaces, version 1.0 or 1.1, header names that are
tokens directly followed by a colon, values without control characters, and at most 64 KiB.
Source: RFC 9112 sections 2 to 5; RFC 9110 section 5.5.
"""

import re
from dataclasses import dataclass
from typing import Final

from palyra_egress.reasons import Reason

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 200

_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_HEAD_END = re.compile(rb"\n\r?\n")
_REQUEST_LINE = re.compile(
    rb"(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) (?P<target>[\x21-\x7e]+) HTTP/1\.[01]"
)
_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A well-formed head: the method and the target exactly as sent."""

    method: str
    target: str


def leading_empty_lines(data: bytes) -> int:
    """How many bytes of empty lines stand before a head; they are passed over."""
    match = _EMPTY_LINES.match(data)
    return match.end() if match else 0


def head_end(data: bytes, searched: int = 0) -> int | None:
    """The offset behind the blank line that ends the head, or None while it is incomplete. The
    first `searched` bytes are known not to begin it."""
    match = _HEAD_END.search(data, searched)
    return match.end() if match else None


def check_head(head: bytes) -> RequestHead | Reason:
    """The head's method and target, or why it is refused."""
    if len(head) > MAX_HEAD_BYTES:
        return Reason.HEAD_TOO_LARGE
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if not head.endswith(b"\r\n\r\n") or len(lines) - 1 > MAX_HEADERS:
        return Reason.REQUEST_MALFORMED
    request_line = _REQUEST_LINE.fullmatch(lines[0])
    if request_line is None:
        return Reason.REQUEST_MALFORMED
    if not all(_HEADER_LINE.fullmatch(line) for line in lines[1:]):
        return Reason.REQUEST_MALFORMED
    return RequestHead(request_line["method"].decode(), request_line["target"].decode())


def host_values(head: bytes) -> list[str]:
    """The values of every Host header of a checked head."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]
    fields = (line.partition(b":") for line in lines)
    return [value.strip(b" \t").decode("latin-1") for name, _, value in fields if _is_host(name)]


def _is_host(name: bytes) -> bool:
    return name.lower() == b"host"
