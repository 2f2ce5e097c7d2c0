"""One direction of a WebSocket: frames in, checked, looked through, and written anew. Pure.

Reading is strict (wsproto): masked from workers and only from them, no reserved bit, no unknown
opcode, control frames whole and at most 125 bytes, lengths in their shortest form, fragments in
order, text in UTF-8, close codes that may be sent. Writing is our own, so nothing hides in masks,
empty fragments or odd lengths: data goes on as it comes, as fragments of the same message, at most
`FRAGMENT_BYTES` each. Where values are watched for, every message is looked through as one,
whatever its fragments, and so are all messages of a direction one after the other (of control
frames likewise): what was begun in one is not completed in the next. Sizes in bytes. Source: RFC
6455 section 5.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, cast

from wsproto.frame_protocol import (
    CloseReason,
    Frame,
    FrameProtocol,
    Opcode,
    ParseFailed,
    XorMaskerSimple,
)

from palyra_egress.credentials.patterns import Finding
from palyra_egress.credentials.stream_scan import Passage, Stop, StreamScanner

FRAGMENT_BYTES: Final = 1 << 16
_SHORT, _TWO_BYTES, _EIGHT_BYTES = 125, 126, 127

type Scanners = Callable[[], StreamScanner | None]


class BrokenFrames(Exception):
    """What was sent is no WebSocket's: nothing more is read of that side."""


class TooManyFrames(Exception):
    """More frames at once than there is room for: each costs the proxy time, however small."""


class FoundLeaving(Exception):
    """Something that may not leave stands in a message; `stop` is what was found."""

    def __init__(self, stop: Finding | Stop) -> None:
        super().__init__("found leaving")
        self.stop = stop


def no_scanner() -> StreamScanner | None:
    """Where nothing is watched for."""
    return None


def write_frame(opcode: Opcode, payload: bytes, *, fin: bool = True, masked: bool = False) -> bytes:
    """One frame, its length in the shortest form, masked with a fresh key where that is wanted."""
    size, mask_bit = len(payload), 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | opcode])
    if size <= _SHORT:
        head += bytes([mask_bit | size])
    elif size < 1 << 16:
        head += bytes([mask_bit | _TWO_BYTES]) + struct.pack("!H", size)
    else:
        head += bytes([mask_bit | _EIGHT_BYTES]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(XorMaskerSimple(key).process(bytearray(payload)))


@dataclass(slots=True)
class FrameStream:
    """One direction. `from_worker` says which; `new_scanner` is asked for each message. `frames`
    and `messages` count what came; `is_closed` once a Close frame has come, after which nothing
    goes on."""

    from_worker: bool
    new_scanner: Scanners = no_scanner
    frames: int = 0
    messages: int = 0
    is_closed: bool = False
    _reader: FrameProtocol = field(init=False)
    _next: Opcode | None = None
    _scanner: StreamScanner | None = None
    _across: dict[bool, StreamScanner | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._reader = FrameProtocol(client=not self.from_worker, extensions=[])

    def take(self, data: bytes, most: int) -> bytes:
        """What goes on of these bytes, of which at most so many frames are looked at. Raises
        BrokenFrames, TooManyFrames, FoundLeaving."""
        if self.is_closed:
            return b""
        try:
            self._reader.receive_bytes(data)
            frames = self._frames(self.frames + most)
            return b"".join(part for frame in frames for part in self._pass_on(frame))
        except ParseFailed as error:
            raise BrokenFrames(str(error)) from error

    def _frames(self, most: int) -> Iterator[Frame]:
        for frame in self._reader.received_frames():
            self.frames += frame.frame_finished
            if self.frames > most:
                raise TooManyFrames
            yield frame

    def _pass_on(self, frame: Frame) -> Iterator[bytes]:
        match frame.opcode:
            case Opcode.PING | Opcode.PONG:
                payload = bytes(frame.payload)  # type: ignore[arg-type]
                yield self._control(frame.opcode, payload)
            case Opcode.CLOSE:
                self.is_closed = True
                yield self._control(Opcode.CLOSE, _close_payload(frame))
            case _:
                yield from self._data(frame)

    def _control(self, opcode: Opcode, payload: bytes) -> bytes:
        self._look_across(payload, is_control=True)
        if payload and (scanner := self.new_scanner()) is not None:
            _let(scanner.push(payload))
            _let(scanner.finish())
        return write_frame(opcode, payload, masked=self.from_worker)

    def _data(self, frame: Frame) -> Iterator[bytes]:
        payload = frame.payload
        data = payload.encode() if isinstance(payload, str) else bytes(payload)  # type: ignore[arg-type]
        if self._next is None:
            self._next = frame.opcode
            self._scanner = self.new_scanner()
        self._look_across(data, is_control=False)
        is_last = bool(frame.message_finished)
        if self._scanner is not None:
            data = _let(self._scanner.push(data))
            data += _let(self._scanner.finish()) if is_last else b""
        yield from self._fragments(data, is_last=is_last)
        if is_last:
            self._next = self._scanner = None
            self.messages += 1

    def _look_across(self, payload: bytes, *, is_control: bool) -> None:
        """Look for what several messages hold together. What completes it does not go on."""
        if is_control not in self._across:
            self._across[is_control] = self.new_scanner()
        if (scanner := self._across[is_control]) is not None:
            _let(scanner.push(payload))

    def _fragments(self, data: bytes, *, is_last: bool) -> Iterator[bytes]:
        """The fragments that go on now; none where there is nothing to say yet."""
        for at in range(0, len(data) or is_last, FRAGMENT_BYTES):
            fin = is_last and at + FRAGMENT_BYTES >= len(data)
            opcode, self._next = self._next or Opcode.CONTINUATION, Opcode.CONTINUATION
            piece = data[at : at + FRAGMENT_BYTES]
            yield write_frame(opcode, piece, fin=fin, masked=self.from_worker)


def _let(passage: Passage) -> bytes:
    if passage.stop is not None:
        raise FoundLeaving(passage.stop)
    return passage.data


def _close_payload(frame: Frame) -> bytes:
    """The code and reason of a Close frame as they came; nothing where it has none."""
    code, reason = cast(tuple[int, str], frame.payload)
    if code == CloseReason.NO_STATUS_RCVD:
        return b""
    return struct.pack("!H", int(code)) + reason.encode()
