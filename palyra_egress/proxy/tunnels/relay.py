"""The bytes of one tunnel that is passed on: counted, held to their budgets, and still TLS.

What is inside is not seen. What can be checked is cheap and is checked: every byte each way belongs
to a TLS record, and the server's first words are a ServerHello of TLS 1.2 or newer, or an alert. So
a server that speaks anything else gets no channel; two that agree to dress as TLS cannot be told
from TLS. Sizes in bytes. Pure: it moves nothing itself.
Source: RFC 8446 sections 4 and 5.1, RFC 5246 section 6.2.
"""

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Final

from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.proxy.tls.client_hello import TLS_1_2
from palyra_egress.proxy.tls.hello_gate import HELLO_RETRY_RANDOM, HelloGate
from palyra_egress.reasons import Reason

ALERT: Final = 21
HANDSHAKE: Final = 22
RECORD_TYPES: Final = frozenset({20, ALERT, HANDSHAKE, 23})  # change_cipher_spec, application_data
MAX_RECORD_BYTES: Final = (1 << 14) + 2048
SERVER_HELLO: Final = 2
HEAD_BYTES: Final = 5
_HELLO_START: Final = 6  # message type, three bytes of length, version
_START_BYTES: Final = HEAD_BYTES + _HELLO_START + len(HELLO_RETRY_RANDOM)


class TlsRecords:
    """One direction, followed from record head to record head."""

    __slots__ = ("_left", "_partial")

    def __init__(self) -> None:
        self._left = 0
        self._partial = b""

    def accept(self, data: bytes) -> bool:
        """Whether the direction, with these bytes, still is a sequence of TLS records."""
        at, size = self._left, len(data)
        while at < size:
            wanted = HEAD_BYTES - len(self._partial)
            head = self._partial + data[at : at + wanted]
            if not _may_begin_a_record(head):
                return False
            if len(head) < HEAD_BYTES:
                self._partial, self._left = head, 0
                return True
            self._partial = b""
            at += wanted + int.from_bytes(head[3:])
        self._left = at - size
        return True


def _may_begin_a_record(head: bytes) -> bool:
    if head[0] not in RECORD_TYPES or (len(head) > 1 and head[1] != 3):
        return False
    return len(head) < HEAD_BYTES or 0 < int.from_bytes(head[3:]) <= MAX_RECORD_BYTES


def _starts_a_session(start: bytes) -> bool | None:
    """Whether a server's first bytes are a ServerHello or an alert; None where more must come."""
    if start[0] != HANDSHAKE:
        return start[0] == ALERT
    size, message = int.from_bytes(start[3:HEAD_BYTES]), start[HEAD_BYTES:]
    if len(start) >= HEAD_BYTES and size < _START_BYTES - HEAD_BYTES:
        return False
    if message and message[0] != SERVER_HELLO:
        return False
    if len(start) < _START_BYTES:
        return None
    return int.from_bytes(message[4:_HELLO_START]) >= TLS_1_2


def _asks_again(start: bytes) -> bool:
    """Whether a server that has started a session wants another ClientHello."""
    return start[HEAD_BYTES + _HELLO_START : _START_BYTES] == HELLO_RETRY_RANDOM


@dataclass(slots=True)
class Relay:
    """One tunnel from its CONNECT to its end. `hello` is what the worker sent first, once that was
    accepted; `check` says why another ClientHello would not be; `spend` counts bytes against the
    hours that hold and says whether they have room."""

    judgement: Judgement
    started_monotonic_ms: int
    spend: Callable[[Judgement, Direction, int], bool]
    check: InitVar[Callable[[bytes], Reason | None]]
    hello: bytes = b""
    request_bytes: int = 0
    response_bytes: int = 0
    _outward: TlsRecords = field(default_factory=TlsRecords)
    _inward: TlsRecords = field(default_factory=TlsRecords)
    _start: bytes = b""
    _started: bool = False
    gate: HelloGate = field(init=False)

    def __post_init__(self, check: Callable[[bytes], Reason | None]) -> None:
        self.gate = HelloGate(check)

    def send(self, data: bytes) -> bytes | Reason:
        """Count what the worker sends; what may be passed on now, or why nothing more may."""
        self.request_bytes += len(data)
        limit = self.judgement.limits.max_request_bytes
        if limit is not None and self.request_bytes > limit:
            return Reason.REQUEST_TOO_LARGE
        if not self._outward.accept(data):
            return Reason.NON_HTTP_IN_TUNNEL
        if not self.spend(self.judgement, Direction.OUT, len(data)):
            return Reason.BUDGET_SPENT
        return self.gate.push(data)

    def receive(self, data: bytes) -> bytes | Reason:
        """Count what the server sends; what may be passed on now, or why nothing more may."""
        self.response_bytes += len(data)
        limit = self.judgement.limits.max_response_bytes
        if limit is not None and self.response_bytes > limit:
            return Reason.RESPONSE_TOO_LARGE
        if not self._inward.accept(data):
            return Reason.UPSTREAM_PROTOCOL
        if not self.spend(self.judgement, Direction.IN, len(data)):
            return Reason.BUDGET_SPENT
        if self._started:
            return data
        self._start += data
        is_start = _starts_a_session(self._start)
        if not is_start:
            return b"" if is_start is None else Reason.UPSTREAM_PROTOCOL
        self._started = True
        self.gate.answered(asks_again=_asks_again(self._start))
        return self._start
