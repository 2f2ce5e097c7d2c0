"""Looks for watched values in the head of a request, and takes them out of what is written down.

Input: the pattern sets, and a canonical request or the header fields as they came. Output: a
`Finding` or None. Headers that end at the proxy are not looked at: they do not leave. `redacted`
gives the request as audit entries and evidence may have it. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from palyra_egress.credentials.patterns import Finding, PatternSet
from palyra_egress.credentials.text_scan import TextScanner
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost, EgressRequest

ENDS_HERE: Final = ("proxy-", "palyra-", "x-palyra-")
"""Header names that are between a worker and this proxy: nobody else may read or forge them."""
REDACTED_HOST: Final = CanonicalHost("redacted.invalid")
REDACTED_PATH: Final = "/redacted"


@dataclass(frozen=True, slots=True)
class Leak:
    """Why something may not leave: what was found where (`target`, `headers`, `body`), or that it
    cannot be looked through."""

    reason: Reason
    place: str
    finding: Finding | None = None


_BETWEEN: Final = b"\x01"  # stands in no secret, so nothing is found across two parts


def find_in(sets: Sequence[PatternSet], text: bytes) -> Finding | None:
    """What is found in a whole text."""
    return TextScanner(sets).feed(text, last=True) if sets else None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def find_in_target(sets: Sequence[PatternSet], request: EgressRequest) -> Finding | None:
    """What is found in host, path and query."""
    parts = (request.host, f"{request.path}?{request.query}")
    return find_in(sets, _BETWEEN.join(_encoded(part) for part in parts))


def find_in_headers(
    sets: Sequence[PatternSet], fields: Iterable[tuple[bytes, bytes]]
) -> Finding | None:
    """What is found in the names and values of the header fields that may leave."""
    lines = [
        name + b":" + value
        for name, value in fields
        if not name.lower().decode("latin-1").startswith(ENDS_HERE)
    ]
    return find_in(sets, _BETWEEN.join(lines))


def redacted(sets: Sequence[PatternSet], request: EgressRequest) -> EgressRequest:
    """The request without whatever part of its target holds a watched value."""
    if find_in_target(sets, request) is None:
        return request
    host = REDACTED_HOST if find_in(sets, _encoded(request.host)) else request.host
    path = REDACTED_PATH if request.path else ""
    return replace(request, host=host, path=path, query="")
