"""One side's HTTP/2 connection: mitmproxy's buffering one, with bounds and honest flow control.

mitmproxy opens every window as far as it goes and hands credit back as soon as bytes arrive, so
what one side does not take piles up here. This connection's windows are small; `Credited` keeps the
credit of what arrived until `ReleaseCredit` says that it has gone on. What a peer sends without use
spends a `FrameBudget`. A GOAWAY without an error lets open streams go on (h2 itself would end them
all); the table that a peer asks our header encoder to keep is bounded.
Sources: RFC 9113 sections 5.2, 6.8 and 10.5, RFC 7541 section 4.2.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._http2 import Http2Connection, StreamState
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

from palyra_egress.proxy.http.frame_budget import (
    DATA_EARNS,
    FRAME_COST,
    MALFORMED_COST,
    RESET_COST,
    SETTINGS_COST,
    STREAM_EARNS,
    FrameBudget,
)

MAX_STREAMS: Final = 100
MAX_FRAME_BYTES: Final = 16 * 1024
_LENGTH_BYTES: Final = 3
MAX_ENCODER_TABLE_BYTES: Final = 16 * 1024
STREAM_WINDOW: Final = 512 * 1024
CONNECTION_WINDOW: Final = 2 * 1024 * 1024

type Commands = layer.CommandGenerator[Any]
type Clock = Callable[[], int]


class BoundedH2Connection(BufferedH2Connection):
    """`goes_away` once the peer takes no new streams; `last_stream_id` is the last one it takes.
    `pings` counts the frames that only say that it is there; `unfinished_since_ms` is since when a
    head, or another frame that is no body's, is not complete."""

    def __init__(self, *, client_side: bool, clock: Clock, validates: bool) -> None:
        super().__init__(
            h2.config.H2Configuration(
                client_side=client_side,
                header_encoding=False,
                validate_outbound_headers=False,
                validate_inbound_headers=validates,
                normalize_inbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        settings = self.local_settings
        settings.initial_window_size = STREAM_WINDOW
        settings.max_frame_size = self.max_inbound_frame_size = MAX_FRAME_BYTES
        settings.max_concurrent_streams = MAX_STREAMS
        if client_side:
            settings.enable_push = 0
        settings.acknowledge()
        self._clock = clock
        self._budget = FrameBudget(clock())
        self.goes_away = False
        self.last_stream_id = 0
        self.pings = 0
        self.unfinished_since_ms: int | None = None
        self._took_frame = False

    def initiate_connection(self) -> None:
        h2.connection.H2Connection.initiate_connection(self)
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    # --- what comes in --------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[h2.events.Event]:
        self._took_frame = False
        events: list[h2.events.Event] = super().receive_data(data)
        self._refuse_overlong_frame()
        self._look_for_unfinished()
        self.encoder.header_table_size = min(
            self.encoder.header_table_size, MAX_ENCODER_TABLE_BYTES
        )
        return events

    def _refuse_overlong_frame(self) -> None:
        """The library looks at a frame's length only when it has it all, up to 16 MiB."""
        begun = self.incoming_buffer._data[:_LENGTH_BYTES]
        if len(begun) == _LENGTH_BYTES and int.from_bytes(begun) > MAX_FRAME_BYTES:
            raise h2.exceptions.FrameTooLargeError("a frame of more than its size")

    def _look_for_unfinished(self) -> None:
        """Note since when the frame, or the head in several, that is read now is not complete. What
        is missing of a body's frame has the patience of its body."""
        begun = self.incoming_buffer._data
        is_of_body = begun[_LENGTH_BYTES : _LENGTH_BYTES + 1] == bytes([DataFrame.type])
        if not (self.incoming_buffer._headers_buffer or (begun and not is_of_body)):
            self.unfinished_since_ms = None
        elif self._took_frame or self.unfinished_since_ms is None:
            self.unfinished_since_ms = self._clock()

    def _receive_frame(self, frame: Frame) -> list[h2.events.Event]:
        """Every frame passes here, before anything is done with it; a head, once it is whole."""
        self._took_frame = True
        self.pings += isinstance(frame, PingFrame)
        if not self._budget.spend(_cost(frame), self._clock()):
            raise h2.exceptions.DenialOfServiceError("too many frames that carry nothing")
        if isinstance(frame, DataFrame) and frame.data:
            self._budget.earn(FRAME_COST)
        if isinstance(frame, GoAwayFrame) and not frame.error_code:
            self.goes_away, self.last_stream_id = True, frame.last_stream_id
            return []
        events: list[h2.events.Event] = super()._receive_frame(frame)
        return events

    # --- what goes out --------------------------------------------------------------------------

    def send_data(
        self,
        stream_id: int,
        data: bytes | memoryview,
        end_stream: bool = False,
        pad_length: Any = None,
    ) -> None:
        self._budget.earn(DATA_EARNS)
        super().send_data(stream_id, bytes(data), end_stream, pad_length)

    def answered(self) -> None:
        """A stream of the peer's was answered, or one of ours ended."""
        self._budget.earn(STREAM_EARNS)

    def refused_head(self) -> bool:
        """A head of the peer's was malformed; whether it may still send such ones."""
        return self._budget.spend(MALFORMED_COST, self._clock())

    def reset_stream(self, stream_id: int, error_code: int = 0) -> None:
        self.stream_trailers.pop(stream_id, None)
        super().reset_stream(stream_id, error_code)

    def waiting_bytes(self, stream_id: int) -> int:
        """How much of a stream waits here for its window."""
        buffered = self.stream_buffers.get(stream_id)
        return sum(len(chunk.data) for chunk in buffered) if buffered else 0

    def all_waiting_bytes(self) -> int:
        return sum(self.waiting_bytes(stream_id) for stream_id in list(self.stream_buffers))


def _cost(frame: Frame) -> int:
    match frame:
        case HeadersFrame():
            return 0
        case DataFrame():
            return 0 if frame.data or "END_STREAM" in frame.flags else FRAME_COST
        case RstStreamFrame():
            return RESET_COST
        case SettingsFrame():
            return SETTINGS_COST
        case _:
            return FRAME_COST


@dataclass
class HeadOverdue(HttpEvent):
    """Told to the worker's side: the head that it reads has taken too long. `stream_id` is not
    used."""


@dataclass
class Farewell(HttpEvent):
    """Told to the worker's side: the connection, which carries nothing, ends. `stream_id` is not
    used."""


@dataclass
class ReleaseCredit(HttpEvent):
    """Told to one side: what came in on these streams (its own numbers) has gone on. `stream_id` is
    not used."""

    streams: tuple[int, ...] = ()


@dataclass
class _Held:
    """The credit that one side has not got back yet, by its own stream numbers."""

    bytes_of: dict[int, int] = field(default_factory=lambda: defaultdict(int))


class CreditedHttp2(Http2Connection):
    """mitmproxy's HTTP/2 side with held credit, and with the end of a flood told apart."""

    h2_conn: BoundedH2Connection

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._held = _Held()

    @property
    def held_streams(self) -> list[int]:
        """The streams whose credit waits, by their own numbers."""
        return list(self._held.bytes_of)

    def withheld_bytes(self, stream_id: int) -> int:
        """What must go on, of whichever streams, before the peer may send on this one; 0 where it
        may."""
        if self.is_closed(stream_id) or self.h2_conn.remote_flow_control_window(stream_id) > 0:
            return 0
        return sum(self._held.bytes_of.values())

    def release(self, event: ReleaseCredit) -> Commands:
        """Hand credit back."""
        for stream_id in event.streams:
            self.h2_conn.acknowledge_received_data(self._held.bytes_of.pop(stream_id, 0), stream_id)
        if data := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, data)

    def handle_h2_event(self, event: Any) -> layer.CommandGenerator[bool]:
        if not isinstance(event, h2.events.DataReceived):
            return (yield from super().handle_h2_event(event))
        stream_id = event.stream_id
        if self.streams.get(stream_id) is StreamState.EXPECTING_HEADERS:
            yield from self.protocol_error("data before headers")
            return True
        self._held.bytes_of[stream_id] += event.flow_controlled_length
        if self.streams.get(stream_id) is StreamState.HEADERS_RECEIVED and event.data:
            yield ReceiveHttp(self.ReceiveData(stream_id, event.data))
        return False
