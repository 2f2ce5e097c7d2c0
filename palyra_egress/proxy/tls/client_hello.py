"""What a TLS ClientHello says about where it goes, read strictly, and whether it fits its tunnel.

Input: the handshake message without its header (RFC 8446 section 4.1.2), the CONNECT it came
through, and how the deciding rule carries that tunnel. Output: None, or the reason why the tunnel
must not go on. Where the proxy answers the handshake itself an encrypted ClientHello (RFC 9849, or
GREASE that looks like one) hides nothing, because nobody behind the proxy will ever see it; where
the tunnel is passed on it could hide the true server, and GREASE cannot be told from it. Pure.
"""

from dataclasses import dataclass
from typing import Final

from palyra_egress.destination.hostname import sni_problem
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest
from palyra_egress.verdict import Carriage, TlsMode

SERVER_NAME: Final = 0
SUPPORTED_VERSIONS: Final = 43
HIDING: Final = frozenset({0xFE0D, 0xFFCE, *range(0xFE08, 0xFE0D)})
"""encrypted_client_hello, its drafts, and encrypted_server_name before them."""
TLS_1_2: Final = 0x0303
TLS_1_3: Final = 0x0304


class HelloMalformed(ValueError):
    """The message is no ClientHello that every server would read in the same way."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`names` are the server names as they stand there, in all server_name extensions together;
    `has_modern_tls` says that TLS 1.2 or newer is offered."""

    names: tuple[bytes, ...]
    hides_name: bool
    has_modern_tls: bool


class _Bytes:
    """Takes from the front; too little there is malformed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise HelloMalformed
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, length_size: int) -> "_Bytes":
        return _Bytes(self.take(self.number(length_size)))


def parse_client_hello(message: bytes) -> ClientHello:
    """Read a ClientHello. Raises HelloMalformed."""
    hello = _Bytes(message)
    version = hello.number(2)
    hello.take(32)  # random
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    extensions = _Bytes(b"") if hello.is_empty else hello.vector(2)
    if not hello.is_empty:
        raise HelloMalformed
    names: list[bytes] = []
    seen: set[int] = set()
    versions: list[int] = [version]
    while not extensions.is_empty:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind == SERVER_NAME:
            names += _names(body)
        elif kind in seen:  # RFC 8446 section 4.2: each extension once
            raise HelloMalformed
        elif kind == SUPPORTED_VERSIONS:
            versions = _versions(body)
        seen.add(kind)
    is_modern = any(TLS_1_2 <= offered <= TLS_1_3 for offered in versions)
    return ClientHello(tuple(names), not HIDING.isdisjoint(seen), is_modern)


def hello_end(data: bytes) -> int:
    """Where the records of a whole ClientHello end that `data` begins with. Raises HelloMalformed
    where its last record holds more than its end: servers read on there."""
    at, message = 0, b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4]):
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5])
        if end > len(data) or end == at + 5:
            raise HelloMalformed
        message += data[at + 5 : end]
        at = end
    if len(message) > 4 + int.from_bytes(message[1:4]):
        raise HelloMalformed
    return at


def _names(body: _Bytes) -> list[bytes]:
    """The host names of one server_name extension (RFC 6066 section 3)."""
    entries = body.vector(2)
    if not body.is_empty or entries.is_empty:
        raise HelloMalformed
    names = []
    while not entries.is_empty:
        if entries.number(1) != 0:
            raise HelloMalformed
        names.append(entries.take(entries.number(2)))
    return names


def _versions(body: _Bytes) -> list[int]:
    offered = body.vector(1)
    if not body.is_empty:
        raise HelloMalformed
    found = []
    while not offered.is_empty:
        found.append(offered.number(2))
    return found


def hello_problem(message: bytes, request: EgressRequest, carriage: Carriage) -> Reason | None:
    """Why this ClientHello must not open the tunnel of `request`, or None."""
    try:
        hello = parse_client_hello(message)
    except HelloMalformed:
        return Reason.REQUEST_MALFORMED
    if len(hello.names) > 1:  # two names, or the same twice: which one counts is anybody's guess
        return Reason.AUTHORITY_MISMATCH
    if not hello.has_modern_tls:
        return Reason.PROTOCOL_NOT_SUPPORTED
    if hello.hides_name and carriage.mode is TlsMode.TUNNEL and not carriage.ech:
        return Reason.ECH_NOT_ALLOWED
    name: str | None = None
    if hello.names:
        try:
            name = hello.names[0].decode("ascii")
        except UnicodeDecodeError:
            return Reason.AUTHORITY_MISMATCH
    reason = sni_problem(name, request.host)
    return None if reason is Reason.SNI_MISSING and carriage.missing_sni else reason
