"""Puts bound credentials onto a request at the last moment, and takes their echo out of answers.

The request that hooks, addons and flow files see never holds a secret: the worker's own values for
bound headers are dropped at the grant, and the real ones are put onto a copy that goes straight to
the upstream's connection. That connection must be verified TLS to the judged host.
"""

from collections.abc import Sequence
from itertools import chain

from mitmproxy import http
from mitmproxy.connection import Server

from palyra_egress.credentials.echo import EchoFilter
from palyra_egress.credentials.injection import Injected
from palyra_egress.proxy.http.canonical import Target

_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})


def drop_bound(headers: http.Headers, injected: Sequence[Injected]) -> None:
    """Remove what the worker sent under a bound header's name, also with `_` for `-`, which many
    servers take for the same name."""
    bound = {one.binding.header for one in injected}
    for name in {name for name in headers if name.lower().replace("_", "-") in bound}:
        del headers[name]


def is_verified(server: object, target: Target) -> bool:
    """Whether this is an established connection whose TLS was verified for the judged host. The
    guard lets no handshake begin that would not verify."""
    return (
        isinstance(server, Server)
        and target.scheme == "https"
        and server.tls_established
        and server.address == (target.host, target.port)
        and server.sni == target.host
    )


def with_injected(request: http.Request, injected: Sequence[Injected]) -> http.Request:
    """A copy of a granted request with its credentials."""
    leaves = request.copy()
    for one in injected:
        leaves.headers[one.binding.header.title()] = one.value.reveal()
    return leaves


def redact_echo(response: http.Response, injected: Sequence[Injected]) -> None:
    """Take the injected secrets out of a response's head, in whatever spelling they come."""
    echo, fields = EchoFilter(injected), response.headers.fields
    if not echo.holds(b"\1".join([response.data.reason, *chain.from_iterable(fields)])):
        return
    response.data.reason = echo.redacted(response.data.reason)
    response.headers.fields = tuple(
        (name, value if name.lower() in _FRAMING else echo.redacted(value))
        for name, value in fields
        if not echo.holds(name)
    )
