"""Redirected connections: the target is read from what the worker's program says to it.

The program does not know that it speaks to a proxy. A TLS connection names its server in the
ClientHello, a plain one in the Host header of its first request; a ClientHello without a name is
for the address that the connection was headed for. The name is judged, resolved by the proxy, and
only what that gave is dialled: the address that the program chose decides nothing else. What is
neither TLS nor HTTP/1.1 is refused. Sources: RFC 6066 section 3, RFC 9112 section 3.2.
"""

from typing import Any, Final

from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.tls import parse_client_hello as collect_client_hello

from palyra_egress.destination.hostname import HostRefused, canonical_host, parse_authority
from palyra_egress.proxy.doors.door_layer import DoorLayer, TunnelAskedHook
from palyra_egress.proxy.doors.redirected import Address
from palyra_egress.proxy.guard.guard_parts import AskedTunnel, DoorKeeper
from palyra_egress.proxy.http.denial import refuse
from palyra_egress.proxy.http.layers import is_endless_hello
from palyra_egress.proxy.http.request_head import (
    MAX_HEAD_BYTES,
    check_head,
    head_end,
    host_values,
    leading_empty_lines,
)
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.proxy.tls.client_hello import HelloMalformed, parse_client_hello
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost

type Commands = layer.CommandGenerator[Any]

_TLS_HANDSHAKE: Final = b"\x16\x03"
ACCESS_DENIED: Final = bytes([21, 3, 3, 0, 2, 2, 49])
"""A fatal alert (RFC 8446 section 6.2): what a TLS client can be told before any key is agreed."""


NOWHERE: Final = Address("", 0)


class NoTarget(Exception):
    """What was sent names no target; `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class TransparentLayer(DoorLayer):
    """One connection that was headed for `destination`."""

    def __init__(self, context: Context, guard: DoorKeeper, destination: Address | None) -> None:
        super().__init__(context, guard)
        self._destination = destination or NOWHERE

    def _read(self) -> Commands:
        data = self._data
        if self._destination is NOWHERE:  # somebody spoke to the listener itself
            self._guard.refuse_at_door(Reason.PROXY_TARGET)
            yield from self._refuse(b"")
        elif data.startswith(_TLS_HANDSHAKE[: len(data)]):
            yield from self._read_hello(data)
        elif data[:1].isalpha() or leading_empty_lines(data):
            yield from self._read_head(data)
        elif data != b"\r":
            self._guard.refuse_at_door(Reason.PROTOCOL_NOT_SUPPORTED)
            yield from self._refuse(b"")

    def _read_hello(self, data: bytes) -> Commands:
        try:
            found = collect_client_hello(data) if len(data) > 1 else None
            if found is None and not is_endless_hello(data):
                return
            if found is None:
                raise NoTarget(Reason.REQUEST_MALFORMED)
            host = self._server_name(found.raw_bytes(wrap_in_record=False))
        except (NoTarget, ValueError) as error:
            reason = error.reason if isinstance(error, NoTarget) else Reason.REQUEST_MALFORMED
            self._guard.refuse_at_door(reason)
            yield from self._refuse(ACCESS_DENIED)
            return
        asked = AskedTunnel(host, self._destination.port, "https")
        yield TunnelAskedHook(asked)
        if asked.is_open:
            yield from self._enter(asked)
        else:
            yield from self._refuse(ACCESS_DENIED)

    def _server_name(self, message: bytes) -> CanonicalHost:
        try:
            names = parse_client_hello(message).names
        except HelloMalformed as error:
            raise NoTarget(Reason.REQUEST_MALFORMED) from error
        if len(names) > 1:
            raise NoTarget(Reason.AUTHORITY_MISMATCH)
        if not names:
            return CanonicalHost(self._destination.ip)
        try:
            return canonical_host(names[0].decode("ascii"))
        except UnicodeDecodeError as error:
            raise NoTarget(Reason.HOST_MALFORMED) from error
        except HostRefused as refused:
            raise NoTarget(refused.reason) from refused

    def _read_head(self, data: bytes) -> Commands:
        head = data[leading_empty_lines(data) :]
        end = head_end(head)
        if end is None and len(data) <= MAX_HEAD_BYTES:
            return
        try:
            host = self._host(head[: end or len(head)])
        except NoTarget as error:
            judgement = self._guard.refuse_at_door(error.reason)
            yield from self._refuse(_answer(judgement))
            return
        asked = AskedTunnel(host, self._destination.port, "http")
        yield TunnelAskedHook(asked)
        if asked.is_open:
            self._data = head
            yield from self._enter(asked)
        elif asked.judgement is not None:
            yield from self._refuse(_answer(asked.judgement))
        else:
            yield commands.CloseConnection(self.context.client)

    def _host(self, head: bytes) -> CanonicalHost:
        """The host that the first request names, for the port that the connection was headed for.
        The head is judged in full where it goes on; here it only has to be one."""
        checked = check_head(head)
        if isinstance(checked, Reason):
            raise NoTarget(checked)
        if checked.method == "CONNECT":
            raise NoTarget(Reason.PROTOCOL_NOT_SUPPORTED)
        hosts = host_values(head)
        if len(hosts) != 1:
            raise NoTarget(Reason.REQUEST_MALFORMED if hosts else Reason.HOST_MISSING)
        try:
            host, port = parse_authority(hosts[0], 80)
        except HostRefused as refused:
            raise NoTarget(refused.reason) from refused
        if port != self._destination.port:
            raise NoTarget(Reason.AUTHORITY_MISMATCH)
        return host


def _answer(refused: Judgement) -> bytes:
    return refuse(refused.reason, refused.decision_id, close=True).to_bytes()
