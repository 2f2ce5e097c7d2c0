"""One WebSocket behind a granted exchange: its offer, its two directions, and whether it is quiet.

It is made with the grant and open from the accepted 101 on. A connection whose socket is open
carries nothing else any more.
"""

from dataclasses import dataclass, field
from typing import Final

from palyra_egress.proxy.websocket.websocket_frames import FrameStream, Scanners, no_scanner
from palyra_egress.proxy.websocket.websocket_handshake import WebSocketOffer

FRAMES_A_SECOND: Final = 2_048
FRAMES_AT_ONCE: Final = 4_096


@dataclass(slots=True)
class FrameRoom:
    """How many frames of one direction there is room for: so many at once, and then so many a
    second. The smallest frame costs as much time as a large one, and all connections share it."""

    frames: float = FRAMES_AT_ONCE
    filled_at_monotonic_ms: int | None = None

    def at(self, now_monotonic_ms: int) -> int:
        before, self.filled_at_monotonic_ms = self.filled_at_monotonic_ms, now_monotonic_ms
        if before is not None:
            grown = self.frames + (now_monotonic_ms - before) * FRAMES_A_SECOND / 1000
            self.frames = min(float(FRAMES_AT_ONCE), grown)
        return int(self.frames)


@dataclass(slots=True)
class WebSocket:
    """`was_active` since somebody last looked; a direction is over once its Close frame came."""

    offer: WebSocketOffer
    new_scanner: Scanners = no_scanner
    is_open: bool = False
    was_active: bool = False
    outward: FrameStream = field(init=False)
    inward: FrameStream = field(init=False)
    _outward_room: FrameRoom = field(default_factory=FrameRoom)
    _inward_room: FrameRoom = field(default_factory=FrameRoom)

    def __post_init__(self) -> None:
        self.outward = FrameStream(from_worker=True, new_scanner=self.new_scanner)
        self.inward = FrameStream(from_worker=False)

    def take(self, data: bytes, now_monotonic_ms: int, *, from_worker: bool) -> bytes:
        """What goes on of one side's bytes. Raises as `FrameStream.take` does."""
        stream = self.outward if from_worker else self.inward
        room = self._outward_room if from_worker else self._inward_room
        before = stream.frames
        out = stream.take(data, room.at(now_monotonic_ms))
        room.frames -= stream.frames - before
        return out

    @property
    def is_closing(self) -> bool:
        """One side has said that it is over."""
        return self.outward.is_closed or self.inward.is_closed

    @property
    def is_over(self) -> bool:
        return self.outward.is_closed and self.inward.is_closed

    @property
    def frames(self) -> tuple[int, int]:
        """How many frames came from the worker and from the server."""
        return self.outward.frames, self.inward.frames
