"""One message in the words of another HTTP version, at the last step before it is written. Pure.

Towards HTTP/1 every body is framed by us: with its length where it has one, in chunks where it has
none, so that no body can be read as a second request. Towards HTTP/2 no field of an HTTP/1
connection passes. Messages are copied, never changed: what was judged stays as it was.
Sources: RFC 9112 section 6, RFC 9113 section 8.2 and 8.3.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from mitmproxy import http

_HTTP1_ONLY: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"host"}
)
_WITH_CONTENT: Final = frozenset({"POST", "PUT", "PATCH"})

type Fields = list[tuple[bytes, bytes]]


def _lower(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    return [
        (name.lower(), value.strip(b" \t"))
        for name, value in fields
        if name.lower() not in _HTTP1_ONLY
    ]


def as_http1_request(request: http.Request, *, has_body: bool) -> http.Request:
    """The request as it is written to an HTTP/1.1 server."""
    if not request.is_http2:
        return request
    made = request.copy()
    headers = made.headers
    made.data.http_version, made.data.authority = b"HTTP/1.1", b""
    host = headers.pop("host")
    headers.fields = ((b"Host", host.encode()), *headers.fields)
    cookies = headers.get_all("cookie")
    if len(cookies) > 1:  # RFC 9113 section 8.2.3
        headers["cookie"] = "; ".join(cookies)
    headers.pop("transfer-encoding", None)
    if has_body and "content-length" not in headers:
        headers["Transfer-Encoding"] = "chunked"
    elif not has_body and made.method in _WITH_CONTENT:
        headers["Content-Length"] = "0"
    return made


def http2_request_fields(request: http.Request, *, wants_trailers: bool) -> Fields:
    """The fields of a request as they are written to an HTTP/2 server."""
    data = request.data
    fields = [
        (b":method", data.method),
        (b":scheme", data.scheme),
        (b":authority", request.headers["host"].encode()),
        (b":path", data.path),
        *_lower(data.headers.fields),
    ]
    return [*fields, (b"te", b"trailers")] if wants_trailers else fields


def http2_response_fields(response: http.Response) -> Fields:
    """The fields of a response as they are written to an HTTP/2 worker."""
    data = response.data
    return [(b":status", b"%d" % data.status_code), *_lower(data.headers.fields)]


def as_http1_response(request: http.Request, response: http.Response) -> http.Response:
    """A response of an HTTP/2 server as it is written to an HTTP/1 worker; a body without a length
    goes in chunks, or, where the worker speaks HTTP/1.0, ends with the connection."""
    if not response.is_http2:
        return response
    made = response.copy()
    made.data.http_version = b"HTTP/1.1"
    made.data.reason = _phrase(response.status_code)
    for name in ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"):
        made.headers.pop(name, None)
    has_body = (
        request.method != "HEAD"
        and response.status_code >= 200
        and response.status_code not in (204, 304)
    )
    if has_body and "content-length" not in made.headers and request.is_http11:
        made.headers["Transfer-Encoding"] = "chunked"
    return made


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
