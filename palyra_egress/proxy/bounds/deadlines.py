"""How long a client, a server, a tunnel or a stream may take for what, in seconds. Flags set
`answer_s`, `body_s`, `silence_s` and `exchange_s`, the others are constants of the product; tests
shorten them."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Deadlines:
    """`handshake_s` for TLS at a listener of ours; `target_s` from a new connection to its whole
    SOCKS request; `hello_s` from the allowed tunnel to a whole ClientHello or request head;
    `idle_s` without a byte either way in a tunnel that is passed on, `half_open_s` once one side
    has ended; `tunnel_s` at all. `last_answer_s` is for reading the answer that ends a connection;
    `answer_s` is from a whole request written to its server until the head of its final response,
    longer than the usual long poll.
    `head_s` from the first byte of a request's head to its last; `body_s` without a byte of a
    request's body that its server would take; `silence_s` without a byte either way of an exchange,
    and until a connection that carries nothing is closed; `exchange_s` from a request's grant to
    the end of its response.
    In HTTP/2 `upstream_s` from a stream's grant until its head leaves, `stall_s` without a byte
    taken of what waits for one side of a stream."""

    handshake_s: float = 10.0
    target_s: float = 10.0
    hello_s: float = 10.0
    idle_s: float = 600.0
    half_open_s: float = 60.0
    last_answer_s: float = 2.0
    answer_s: float = 120.0
    head_s: float = 30.0
    body_s: float = 60.0
    silence_s: float = 600.0
    exchange_s: float = 12 * 3600.0
    upstream_s: float = 30.0
    stall_s: float = 60.0
    tunnel_s: float = 12 * 3600.0


DEADLINES: Final = Deadlines()
