"""What a connection's guard works with: its handler's face, what all guards share, what it keeps.

`Refused` is how a guard ends its connection. `Tunnel` and `Pinned` are what was granted: whoever
holds one may do exactly what it says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mitmproxy.connection import Connection as NetworkConnection
from mitmproxy.connection import Server

from palyra_egress.proxy.bounds.deadlines import DEADLINES, Deadlines
from palyra_egress.proxy.connections import LiveConnection
from palyra_egress.proxy.core import EnforcementCore
from palyra_egress.proxy.guard.receipt import ReceiptIssuer
from palyra_egress.proxy.http.trace_headers import TraceHeaders
from palyra_egress.proxy.identity import ProxyCredentials
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.proxy.tls.interception import InterceptionAuthority
from palyra_egress.proxy.tunnels.relay import Relay
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost, EgressRequest, Scheme


class Refused(Exception):
    """This connection must end: `reason` says why. The handler resets it, and writes the audit
    entry unless one was written already (`audited`)."""

    def __init__(self, reason: Reason, *, audited: bool = False) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.audited = audited


class Connection(LiveConnection, Protocol):
    """What the guard needs of its handler."""

    @property
    def severed_for(self) -> Reason | None:
        """Why it was reset, if it was."""
        ...

    def abort(self, reason: Reason) -> None:
        """Reset both sides at once."""
        ...

    def progressed(self) -> None: ...

    def open_upstreams(self) -> list[Server]: ...

    def unsent_bytes(self, connection: NetworkConnection) -> int:
        """How much that was written to one side still waits in memory."""
        ...

    def untaken_bytes(self, connection: NetworkConnection) -> int:
        """How much that was written to one side it has not taken: in memory or in the kernel."""
        ...

    def reset_upstreams(self) -> None:
        """Reset every server behind this connection; the worker's side stays."""
        ...

    def wake_layer(self) -> None:
        """The HTTP layer is to look at what was broken off."""
        ...

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back after a while, unless the connection has ended by then."""
        ...


class TunnelKeeper(Protocol):
    """What the layer that reads a tunnel's ClientHello needs of the guard."""

    def pass_on(self, hello: bytes) -> None: ...

    def refuse_tunnel(self, reason: Reason) -> None: ...


@dataclass(slots=True)
class ShownCredentials:
    """What a SOCKS client showed, and why it may not speak; None once it may."""

    credentials: ProxyCredentials | None
    refusal: Reason | None = Reason.INTERNAL


@dataclass(slots=True)
class AskedTunnel:
    """A tunnel that is asked for without HTTP, and what was decided about it. `scheme` where it is
    known already what will be spoken."""

    host: CanonicalHost
    port: int
    scheme: Scheme | None = None
    judgement: Judgement | None = None

    @property
    def is_open(self) -> bool:
        return self.judgement is not None and self.judgement.allowed


class DoorKeeper(Protocol):
    """What the layers that find out a target need of the guard."""

    def expect_target(self) -> None: ...

    def refuse_at_door(self, reason: Reason) -> Judgement: ...


@dataclass(frozen=True, slots=True)
class GuardParts:
    """What every guard of a proxy shares."""

    core: EnforcementCore
    authority: InterceptionAuthority
    receipts: ReceiptIssuer
    deadlines: Deadlines = DEADLINES
    trace_headers: TraceHeaders = TraceHeaders.PASS


@dataclass(slots=True)
class Tunnel:
    """An allowed CONNECT: its request, and what was granted, renewed whenever it is judged again.

    `has_hello` once its ClientHello was accepted. `relay` is there while it is passed on and not
    over; `is_taken` once somebody carries it.
    """

    request: EgressRequest
    judgement: Judgement
    has_hello: bool = False
    relay: Relay | None = None
    is_taken: bool = False


@dataclass(frozen=True, slots=True)
class Pinned:
    """Where one upstream connection may go: judged addresses and the judged port."""

    addresses: tuple[str, ...]
    port: int
