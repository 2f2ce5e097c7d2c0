"""What the HTTP layers need of their connection's guard."""

from collections.abc import Mapping
from typing import Protocol

from mitmproxy import http
from mitmproxy.connection import Connection, Server

from palyra_egress.proxy.bounds.silence import Waits
from palyra_egress.proxy.guard.turn import Turn
from palyra_egress.proxy.http.denial import Answer
from palyra_egress.proxy.websocket.websocket_layer import SocketCarrier
from palyra_egress.reasons import Reason


class Carrier(Protocol):
    """What the guard needs of the HTTP layer."""

    def is_backed_up(self, source: Connection) -> bool:
        """Whether nothing more should be read of this side now."""
        ...


class FloodKeeper(Protocol):
    """Who is told that one side sends without end."""

    def flooded(self, *, by_worker: bool) -> None:
        """One side sends without end what is no message: audit it and reset both sides."""
        ...


class HttpGuard(SocketCarrier, FloodKeeper, Protocol):
    """The guard as the layers see it. `stream_id` is always the worker's number."""

    is_multiplexed: bool

    @property
    def head_ms(self) -> int:
        """How long the head of a request may take, from its first byte to its last."""
        ...

    def carried_by(self, carrier: "Carrier") -> None:
        """The layer that carries this connection's requests from now on."""
        ...

    def is_carried_by(self, carrier: "Carrier") -> bool:
        """Whether this layer still carries this connection's requests."""
        ...

    def now_monotonic_ms(self) -> int: ...

    def takes_leave(self) -> bool:
        """Whether the worker is to be told, once, that its idle connection ends."""
        ...

    def begin(self, turn: Turn) -> None:
        """A checked head is about to be asked about."""
        ...

    def refuse_head(self, reason: Reason) -> Answer:
        """Audit a refusal before there is a request, and give its answer."""
        ...

    def answer_for(self, stream_id: int, reason: Reason | None) -> Answer | None:
        """The answer that was prepared for a request, or the generic one for a failure (`reason`);
        None when nothing may be said any more."""
        ...

    def ends_connection(self, stream_id: int) -> bool: ...

    def leaving(self, stream_id: int, request: http.Request, server: object) -> http.Request:
        """What is written to `server` for this head. Raises unless the head is, to the letter, the
        one that was granted, and the server one that may see it."""
        ...

    def left_whole(self, stream_id: int) -> None:
        """The whole request of a stream was written to its server."""
        ...

    def reset_servers(self) -> None:
        """Nothing more is sent to any server behind this connection, not even what waits."""
        ...

    def may_discard(self, stream_id: int, count: int) -> bool:
        """Count body bytes that go nowhere, since their request was answered before its end; False
        once their worker has spent what it may send."""
        ...

    def has_open(self, carrier: "Carrier") -> bool:
        """Whether an exchange that this layer carries goes on."""
        ...

    def take_trailers(self, stream_id: int, trailers: http.Headers) -> bool: ...

    def wants_trailers(self, stream_id: int) -> bool: ...

    def admit_interim(self, stream_id: int, response: http.Response) -> bool: ...

    def may_open_further(self, *, waits: bool) -> bool:
        """Whether one more connection may be opened beside those that are there; True takes its
        place. Who `waits` is woken when there is one."""
        ...

    def hand_places_on(self) -> None:
        """Whoever waited has asked again: what was not taken is for others."""
        ...

    def opens(self, stream_id: int, server: Server, *, is_further: bool) -> None: ...

    def may_share(self, stream_id: int, server: Connection) -> bool: ...

    def forget_upstream(self, server: Connection) -> None: ...

    def speaks_only_http2(self, server: Connection) -> bool: ...

    def unsent_bytes(self, connection: Connection) -> int: ...

    def untaken_bytes(self, connection: Connection) -> int: ...

    def take_broken(self) -> list[Turn]: ...

    def keep_turns(self, stream_ids: set[int]) -> None: ...

    def overdue(self, waits: Mapping[int, Waits]) -> None:
        """Break off what takes too long. `waits` is what of each stream one side has to take."""
        ...
