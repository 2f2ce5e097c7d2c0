"""What asyncio's TLS keeps in memory for each connection.

It gives every connection a buffer of 256 KiB and clears it, so all of that is resident before a
byte was read; anybody who finishes a handshake costs that much. A TLS record has at most 16 KiB
(RFC 8446, section 5.1), and a read gives at most one. `BUFFER_BYTES` holds two with their framing.
The size is an attribute of asyncio's class, so it counts for the whole process.
"""

from asyncio import sslproto
from typing import Final

BUFFER_BYTES: Final = 34 * 1024


def keep_tls_buffers_small() -> None:
    """From now on every TLS connection of this process gets a buffer of `BUFFER_BYTES`."""
    sslproto.SSLProtocol.max_size = BUFFER_BYTES
