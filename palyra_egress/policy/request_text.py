"""Makes a canonical `EgressRequest` out of text: for the command line, embedded tests and cases.

Input: a method and an absolute http, https, ws or wss URL, or CONNECT and `host:port`. Output: the
request, or `HostRefused` with the reason that live traffic would get. The URL is split by hand:
every general URL parser repairs something that must be refused here.
"""

import re
from typing import Final

from palyra_egress.destination.hostname import HostRefused, parse_authority
from palyra_egress.policy.schema import SCHEME_PORT
from palyra_egress.reasons import Reason
from palyra_egress.request import (
    WEBSOCKET_SCHEMES,
    EgressRequest,
    Requester,
    RequestKind,
    Scheme,
)

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://", re.ASCII)
_AUTHORITY_END: Final = re.compile(r"[/?#]")
_NOT_IN_URL: Final = re.compile(r"[\x00-\x20\x7f\\]")


def connect_from_authority(authority: str, requester: Requester) -> EgressRequest:
    """The CONNECT request for `host:port`, or for plain HTTP `http://host:port`, as the audit log
    writes it; the port must be written."""
    named = authority.removeprefix("http://")
    scheme: Scheme = "https" if named == authority else "http"
    host, port = parse_authority(named, None)
    return EgressRequest(RequestKind.CONNECT, "CONNECT", scheme, host, port, "", "", requester)


def judge_request_from_url(method: str, url: str, requester: Requester) -> EgressRequest:
    """The canonical request for one URL; raises `HostRefused` with the reason to report."""
    found = _NOT_IN_URL.search(url)
    if found is not None:
        raise HostRefused(Reason.REQUEST_MALFORMED, f"U+{ord(found[0]):04X} in the URL")
    named = _SCHEME.match(url)
    if named is None:
        raise HostRefused(Reason.SCHEME_UNSUPPORTED, "the URL has no scheme://")
    scheme_text = named[1].lower()
    is_websocket = scheme_text in WEBSOCKET_SCHEMES.values()
    if is_websocket:
        scheme_text = scheme_text.replace("ws", "http")
    if scheme_text not in SCHEME_PORT:
        raise HostRefused(Reason.SCHEME_UNSUPPORTED, f"the scheme {scheme_text} is not carried")
    scheme: Scheme = "http" if scheme_text == "http" else "https"
    rest = url[named.end() :]
    end = _AUTHORITY_END.search(rest)
    authority, tail = (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])
    host, port = parse_authority(authority, SCHEME_PORT[scheme])
    if "#" in tail:
        raise HostRefused(Reason.PATH_MALFORMED, "a fragment is never sent")
    path, _, query = tail.partition("?")
    return EgressRequest(
        RequestKind.REQUEST,
        method,
        scheme,
        host,
        port,
        path or "/",
        query,
        requester,
        is_websocket,
    )
