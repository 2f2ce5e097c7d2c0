"""Frames of a WebSocket, one direction at a time: what is broken, what goes on, what is found."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from palyra_egress.credentials.patterns import PatternSet, Watched
from palyra_egress.credentials.stream_scan import StreamScanner
from palyra_egress.proxy.websocket.websocket import FRAMES_A_SECOND, FRAMES_AT_ONCE, FrameRoom
from palyra_egress.proxy.websocket.websocket_frames import (
    FRAGMENT_BYTES,
    BrokenFrames,
    FoundLeaving,
    FrameStream,
    TooManyFrames,
    write_frame,
)
from palyra_egress.reasons import Reason

KEY = b"\x01\x02\x03\x04"


def masked(first: int, payload: bytes = b"", length: bytes | None = None) -> bytes:
    """A worker's frame whose first byte and length are what the test says."""
    size = bytes([0x80 | len(payload)]) if length is None else length
    body = bytes(byte ^ KEY[i % 4] for i, byte in enumerate(payload))
    return bytes([first]) + size + KEY + body


class RoomyStream(FrameStream):
    """With room for all the frames that these tests send."""

    def take(self, data: bytes, most: int = 1 << 20) -> bytes:
        return super().take(data, most)


def from_worker(**more) -> RoomyStream:
    return RoomyStream(from_worker=True, **more)


def read_by_server(data: bytes) -> list[tuple[Opcode, bytes, bool]]:
    """What a server makes of what went on."""
    reader = FrameProtocol(client=False, extensions=[])
    reader.receive_bytes(data)
    found = []
    for frame in reader.received_frames():
        payload = frame.payload
        raw = payload.encode() if isinstance(payload, str) else payload
        found.append((frame.opcode, raw, frame.message_finished))
    return found


def whole(frames: list[tuple[Opcode, bytes, bool]]) -> bytes:
    return b"".join(payload for _, payload, _ in frames)


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("not masked", b"\x81\x02hi"),
        ("RSV1, which only an extension gives a meaning", masked(0xC1, b"hi")),
        ("RSV2", masked(0xA1, b"hi")),
        ("RSV3", masked(0x91, b"hi")),
        ("opcode 3", masked(0x83, b"hi")),
        ("opcode 7", masked(0x87)),
        ("opcode 11", masked(0x8B)),
        ("opcode 15", masked(0x8F)),
        ("a ping in fragments", masked(0x09, b"hi")),
        ("a close in fragments", masked(0x08)),
        ("a ping of 126 bytes", masked(0x89, b"p" * 126, b"\xfe\x00\x7e")),
        ("a continuation of nothing", masked(0x80, b"hi")),
        ("a message inside a message", masked(0x01, b"a") + masked(0x81, b"b")),
        ("a binary message inside a text message", masked(0x01, b"a") + masked(0x82, b"b")),
        ("text that is no UTF-8", masked(0x81, b"\xff\xfe")),
        ("text cut inside a character", masked(0x81, "é".encode()[:1])),
        (
            "text cut inside a character of its last fragment",
            masked(1, b"a") + masked(0x80, b"\xc3"),
        ),
        ("a surrogate", masked(0x81, b"\xed\xa0\x80")),
        ("125 in two bytes", masked(0x82, b"x" * 125, b"\xfe\x00\x7d")),
        ("0 in two bytes", masked(0x82, b"", b"\xfe\x00\x00")),
        ("65535 in eight bytes", masked(0x82, b"", b"\xff" + struct.pack("!Q", 65535))),
        ("a negative length", masked(0x82, b"", b"\xff" + struct.pack("!Q", 1 << 63))),
        ("a close with half a code", masked(0x88, b"\x03")),
        ("close code 0", masked(0x88, struct.pack("!H", 0))),
        ("close code 999", masked(0x88, struct.pack("!H", 999))),
        ("close code 1005, which is never sent", masked(0x88, struct.pack("!H", 1005))),
        ("close code 1006", masked(0x88, struct.pack("!H", 1006))),
        ("close code 1015", masked(0x88, struct.pack("!H", 1015))),
        ("close code 2000, which is reserved", masked(0x88, struct.pack("!H", 2000))),
        ("close code 5000", masked(0x88, struct.pack("!H", 5000))),
        ("a close reason that is no UTF-8", masked(0x88, struct.pack("!H", 1000) + b"\xff")),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n"),
    ],
)
def test_what_is_no_websocket_of_a_worker_is_broken(what, data):
    with pytest.raises(BrokenFrames):
        from_worker().take(data)
    stream = from_worker()
    with pytest.raises(BrokenFrames):
        for byte in data:
            stream.take(bytes([byte]))


def test_a_server_may_not_mask():
    with pytest.raises(BrokenFrames):
        RoomyStream(from_worker=False).take(masked(0x81, b"hi"))
    assert RoomyStream(from_worker=False).take(b"\x81\x02hi") == b"\x81\x02hi"


def test_nothing_goes_on_behind_a_close():
    stream = from_worker()
    close = masked(0x88, struct.pack("!H", 1000) + b"bye")
    assert len(read_by_server(stream.take(close + masked(0x81, b"hi")))) == 1
    assert stream.is_closed
    assert stream.take(masked(0x81, b"hi")) == b""


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (masked(0x81, b"hello"), [(Opcode.TEXT, b"hello", True)]),
        (masked(0x82, b"\xff\x00"), [(Opcode.BINARY, b"\xff\x00", True)]),
        (masked(0x81), [(Opcode.TEXT, b"", True)]),
        (masked(0x89, b"p"), [(Opcode.PING, b"p", True)]),
        (masked(0x8A), [(Opcode.PONG, b"", True)]),
        (masked(0x88), [(Opcode.CLOSE, None, True)]),
    ],
)
def test_what_is_well_formed_goes_on(sent, arrives):
    got = read_by_server_raw(from_worker().take(sent))
    assert got == arrives


def read_by_server_raw(data: bytes) -> list[tuple[Opcode, bytes | None, bool]]:
    return [
        (opcode, None if opcode is Opcode.CLOSE else payload, fin)
        for opcode, payload, fin in read_by_server(data)
    ]


def test_a_control_frame_inside_a_message_goes_on_between_its_fragments():
    stream = from_worker()
    out = stream.take(masked(0x01, b"a") + masked(0x89, b"p") + masked(0x80, b"b"))
    assert read_by_server(out) == [
        (Opcode.TEXT, b"a", False),
        (Opcode.PING, b"p", True),
        (Opcode.TEXT, b"b", True),
    ]
    assert (stream.frames, stream.messages) == (3, 1)


def test_a_message_goes_on_before_it_is_complete():
    stream = from_worker()
    frame = masked(0x82, b"x" * 100)
    assert whole(read_by_server(stream.take(frame[:50]))) == b"x" * 44
    assert whole(read_by_server_after(stream.take(frame[50:]))) == b"x" * 56


def read_by_server_after(data: bytes) -> list[tuple[Opcode, bytes, bool]]:
    """Fragments that go on a binary message which began before."""
    return read_by_server(write_frame(Opcode.BINARY, b"", fin=False, masked=True) + data)


def test_a_large_frame_is_cut_into_fragments():
    payload = b"y" * (2 * FRAGMENT_BYTES + 1)
    sent = write_frame(Opcode.BINARY, payload, masked=True)
    frames = read_by_server(from_worker().take(sent))
    assert [len(payload) for _, payload, _ in frames] == [FRAGMENT_BYTES, FRAGMENT_BYTES, 1]
    assert [fin for _, _, fin in frames] == [False, False, True]


def test_the_masks_that_leave_are_not_the_workers():
    sent = masked(0x81, b"hello")
    assert KEY not in from_worker().take(sent)


def test_empty_fragments_carry_nothing_on():
    stream = from_worker()
    out = stream.take(masked(0x01) + masked(0x00) * 50 + masked(0x80, b"end"))
    assert read_by_server(out) == [(Opcode.TEXT, b"end", True)]
    assert stream.frames == 52


SECRET = b"s3cr3t-of-the-vault-000000"
SETS = (PatternSet([Watched(SECRET, Reason.CREDENTIAL_LEAK, "vault:test")]),)


def scanning() -> RoomyStream:
    return from_worker(new_scanner=lambda: StreamScanner(SETS))


@pytest.mark.parametrize(
    "sent",
    [
        masked(0x81, b"x " + SECRET + b" y"),
        masked(0x82, SECRET),
        masked(0x81, SECRET.hex().encode()),
        masked(0x01, SECRET[:9]) + masked(0x80, SECRET[9:]),
        masked(0x01, SECRET[:9]) + masked(0x89, b"between") + masked(0x80, SECRET[9:]),
        b"".join(masked(0x00 if i else 0x01, bytes([b])) for i, b in enumerate(SECRET))
        + masked(0x80),
        masked(0x81, SECRET[:9]) + masked(0x81, SECRET[9:]),
        masked(0x89, SECRET[:9]) + masked(0x81, b"between") + masked(0x8A, SECRET[9:]),
        masked(0x89, SECRET),
        masked(0x8A, SECRET),
        masked(0x88, struct.pack("!H", 1000) + SECRET),
    ],
)
def test_a_secret_is_found_however_its_message_is_cut(sent):
    with pytest.raises(FoundLeaving):
        scanning().take(sent)
    stream, out = scanning(), b""
    with pytest.raises(FoundLeaving):
        for byte in sent:
            out += stream.take(bytes([byte]))
    assert SECRET not in whole(read_by_server(out))


def test_what_holds_no_secret_arrives_whole_under_the_scanner():
    text = "nothing to see here, é and 𝄞, " * 100
    sent = write_frame(Opcode.TEXT, text.encode(), masked=True)
    stream, out = scanning(), b""
    for at in range(0, len(sent), 7):
        out += stream.take(sent[at : at + 7])
    assert whole(read_by_server(out)) == text.encode()


@settings(max_examples=60)
@given(
    messages=st.lists(
        st.tuples(st.booleans(), st.lists(st.text(max_size=40), min_size=1, max_size=5)),
        max_size=6,
    ),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    scans=st.booleans(),
)
def test_messages_arrive_in_order_unchanged_and_complete(messages, cuts, scans):
    sent = b""
    for is_text, parts in messages:
        opcode = Opcode.TEXT if is_text else Opcode.BINARY
        for i, part in enumerate(parts):
            fin = i == len(parts) - 1
            kind = Opcode.CONTINUATION if i else opcode
            sent += write_frame(kind, part.encode(), fin=fin, masked=True)
    stream, out, at, turn = (scanning() if scans else from_worker()), b"", 0, 0
    while at < len(sent):
        size = cuts[turn % len(cuts)]
        out += stream.take(sent[at : at + size])
        at, turn = at + size, turn + 1
    got: list[tuple[bool, bytes]] = []
    held = b""
    for opcode, payload, fin in read_by_server(out):
        held += payload
        if fin:
            got.append((opcode is Opcode.TEXT, held))
            held = b""
    assert held == b""
    assert got == [(is_text, "".join(parts).encode()) for is_text, parts in messages]
    assert stream.messages == len(messages)


def test_only_so_many_frames_are_looked_at():
    stream = FrameStream(from_worker=True)
    assert len(read_by_server(stream.take(masked(0x89) * 3, 3))) == 3
    with pytest.raises(TooManyFrames):
        stream.take(masked(0x89) * 3, 2)


def test_room_for_frames_grows_with_time_up_to_a_burst():
    room = FrameRoom()
    assert room.at(1_000) == FRAMES_AT_ONCE
    room.frames -= FRAMES_AT_ONCE
    assert room.at(1_000) == 0
    assert room.at(1_500) == FRAMES_A_SECOND // 2
    assert room.at(1_000_000) == FRAMES_AT_ONCE
