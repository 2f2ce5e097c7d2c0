"""Frames of HTTP/2 that carry nothing, and what tests of hostile workers and servers share."""

import struct
from typing import Final

from tests.egress.proxy.http.h2_world import Http2World
from tests.fakes.h2_peer import frame

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
MANY = 5_000
FLOODS: Final = {
    "pings": frame(PING, 0, 0, b"12345678"),
    "pings that nobody asked for answered": frame(PING, 1, 0, b"12345678"),
    "settings": frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)),
    "empty settings": frame(SETTINGS, 0, 0),
    "priorities": frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 1)),
    "window updates": frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
    "frames of an unknown type": frame(0xEE, 0, 0, b"x"),
}


async def still_serves(world: Http2World) -> None:
    async with world.worker() as other:
        assert (await other.get()).status == 200
