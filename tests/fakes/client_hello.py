"""ClientHellos written byte by byte, so that a test sends exactly the one it means."""

from collections.abc import Sequence

SERVER_NAME, SUPPORTED_VERSIONS, ECH = 0, 43, 0xFE0D
GREASE_ECH = b"\x00\x00\x01\x00\x01\x2a\x00\x20" + b"\x11" * 32 + b"\x00\x10" + b"\x22" * 16


def vector(data: bytes, length_size: int) -> bytes:
    return len(data).to_bytes(length_size) + data


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2) + vector(body, 2)


def names(*hosts: bytes) -> bytes:
    """A server_name extension with these host names."""
    return extension(SERVER_NAME, vector(b"".join(b"\0" + vector(h, 2) for h in hosts), 2))


def versions(*offered: int) -> bytes:
    body = vector(b"".join(v.to_bytes(2) for v in offered), 1)
    return extension(SUPPORTED_VERSIONS, body)


def message(
    *extensions: bytes, legacy_version: int = 0x0303, rest: bytes = b"", bare: bool = False
) -> bytes:
    """The handshake message without its header; `bare` leaves the extensions' block out."""
    block = b"" if bare else vector(b"".join(extensions), 2)
    return (
        legacy_version.to_bytes(2)
        + b"\x07" * 32
        + vector(b"", 1)
        + vector(b"\x13\x01\xc0\x2f", 2)
        + vector(b"\x00", 1)
        + block
        + rest
    )


def record(payload: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    return bytes([kind]) + version.to_bytes(2) + vector(payload, 2)


def hello(
    host: bytes | None,
    *more: bytes,
    offered: Sequence[int] = (0x0304, 0x0303),
    **message_fields: int,
) -> bytes:
    """A whole ClientHello in one record."""
    extensions = [*([] if host is None else [names(host)]), *more]
    if offered:
        extensions.append(versions(*offered))
    inner = message(*extensions, **message_fields)  # type: ignore[arg-type]
    return record(b"\x01" + vector(inner, 3))


SERVER_HELLO = record(b"\x02" + vector(b"\x03\x03" + b"\x09" * 32 + b"\0\x13\x01\0", 3))
APPLICATION = record(b"\x55" * 64, kind=23, version=0x0303)
