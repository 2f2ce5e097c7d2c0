"""Which of a worker's first bytes leave through a tunnel that is passed on.

A server may answer a ClientHello by asking for another one (HelloRetryRequest), and many go by the
name in the second. So the second is held to the same rule as the first, and until the server has
answered nothing but the first leaves. A hello ends with its record: what stands behind it there is
read by servers and not by us. Sizes in bytes. Pure.
Source: RFC 8446 sections 4.1.2 to 4.1.4, 5.1 and D.4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from mitmproxy.proxy.layers.tls import parse_client_hello as collect_client_hello

from palyra_egress.proxy.http.layers import is_endless_hello
from palyra_egress.proxy.tls.client_hello import HelloMalformed, hello_end
from palyra_egress.reasons import Reason

MAX_HELD_BYTES: Final = 64 * 1024
CHANGE_CIPHER_SPEC: Final = b"\x14\x03\x03\x00\x01\x01"  # may stand before the second hello
HELLO_RETRY_RANDOM: Final = bytes.fromhex(
    "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
)
"""The random of a ServerHello that asks for another ClientHello."""


class _Stage(Enum):
    FIRST = auto()
    UNANSWERED = auto()
    SECOND = auto()
    OPEN = auto()


@dataclass(slots=True)
class HelloGate:
    """`check` says why a ClientHello (without its header) may not open the tunnel, or None."""

    check: Callable[[bytes], Reason | None]
    _held: bytes = b""
    _stage: _Stage = _Stage.FIRST

    @property
    def holds(self) -> bool:
        """Whether something waits for the server's answer."""
        return bool(self._held)

    @property
    def is_full(self) -> bool:
        return len(self._held) > MAX_HELD_BYTES

    def push(self, data: bytes) -> bytes | Reason:
        """What may leave now that the worker has sent this, or why the tunnel must end. The first
        time it is a whole ClientHello that was accepted, and perhaps more."""
        if self._stage is _Stage.OPEN:
            return data
        self._held += data
        if self._stage is not _Stage.FIRST:
            return self.let_go()
        try:
            end = hello_end(self._held)
        except HelloMalformed:
            return Reason.REQUEST_MALFORMED
        self._stage = _Stage.UNANSWERED
        return self._take(end)

    def answered(self, *, asks_again: bool) -> None:
        """The server has begun to answer."""
        if self._stage is _Stage.UNANSWERED:
            self._stage = _Stage.SECOND if asks_again else _Stage.OPEN

    def let_go(self) -> bytes | Reason:
        """What of the held bytes may leave by now, or why the tunnel must end."""
        match self._stage:
            case _Stage.OPEN:
                return self._take(len(self._held))
            case _Stage.SECOND:
                return self._second_hello()
            case _:
                return b""

    def _second_hello(self) -> bytes | Reason:
        before = len(CHANGE_CIPHER_SPEC) if self._held.startswith(CHANGE_CIPHER_SPEC) else 0
        hello = self._held[before:]
        if not hello or CHANGE_CIPHER_SPEC.startswith(hello):
            return b""
        try:
            found = collect_client_hello(hello)
            if found is None:
                return Reason.REQUEST_MALFORMED if is_endless_hello(hello) else b""
            hello_end(hello)
            reason = self.check(found.raw_bytes(wrap_in_record=False))
        except ValueError:
            return Reason.REQUEST_MALFORMED
        if reason is not None:
            return reason
        self._stage = _Stage.OPEN
        return self._take(len(self._held))

    def _take(self, count: int) -> bytes:
        taken, self._held = self._held[:count], self._held[count:]
        return taken
