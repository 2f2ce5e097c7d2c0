"""The page of limits says what the code does."""

import re
from pathlib import Path

from palyra_egress.destination.resolver import LOOKUP_LIMITS
from palyra_egress.proxy.bounds.accepting import ACCEPTED_AT_ONCE
from palyra_egress.proxy.bounds.caps import CAPS
from palyra_egress.proxy.bounds.deadlines import DEADLINES
from palyra_egress.proxy.bounds.shares import LEAST_BYTES, SHARE_BYTES, SHARE_S
from palyra_egress.proxy.channels.worker_tls import MOST_HANDSHAKES
from palyra_egress.proxy.connections import STRANGERS_PART
from palyra_egress.proxy.core import (
    REFUSALS_PER_MINUTE,
    SLOWED_REFUSAL_S,
    STRANGERS_PER_MINUTE,
    STRANGERS_PER_SOURCE,
    EnforcementCore,
)
from palyra_egress.proxy.handler import IDENTITY_DEADLINE_S, LAST_BYTES_S
from palyra_egress.proxy.http.http_layer import MAX_UNPARSED_BYTES, MAX_UNSENT_BYTES
from palyra_egress.proxy.http.layers import (
    DISCARD_FOR_S,
    MAX_DISCARDED_BYTES,
    MAX_HELLO_BYTES,
    MAX_LINGERS,
)
from palyra_egress.proxy.http.pieces import MAX_PIECE_BYTES
from palyra_egress.proxy.http.request_head import MAX_HEAD_BYTES
from palyra_egress.proxy.http.upstream_pool import MAX_IDLE_UPSTREAMS, MAX_UPSTREAMS
from palyra_egress.proxy.paced import UPSTREAM_READY_DEADLINE_S
from palyra_egress.proxy.signals.live_view import MAX_VERDICTS, MAX_WORKERS
from palyra_egress.proxy.sockets.pinned_dial import DIAL_DEADLINE_S
from palyra_egress.proxy.tls.hello_gate import MAX_HELD_BYTES
from palyra_egress.proxy.tls.interception import MAX_LEAVES
from palyra_egress.proxy.tls.tls_bounds import BYTES_FOR_A_BYTE, FREE_BYTES
from palyra_egress.reasons import Reason

PAGE = Path(__file__).resolve().parents[4] / "docs" / "limits.md"
KIB, HOUR_S = 1024, 3600
NUMBERS: dict[str, list[float]] = {
    "workers' connections, in all": [CAPS.connections],
    "the same, that have not shown whose they are": [STRANGERS_PART],
    "new connections that one pass of the loop takes, of each listener": [ACCEPTED_AT_ONCE],
    "workers' connections, of one worker": [CAPS.connections_per_worker],
    "tunnels of one worker whose TLS handshake is not over": [CAPS.openings_per_worker],
    "tunnels to hosts that have no leaf yet, of one worker in a minute": [
        CAPS.new_leaves_per_minute
    ],
    "connections to a server of HTTP/1 behind the streams of one worker's connection": [
        MAX_UPSTREAMS
    ],
    "the same beyond the first of each connection, in all": [CAPS.further_upstreams],
    "the same, of one worker": [CAPS.further_upstreams_per_worker],
    "connections to servers that one HTTP/1 connection of a worker keeps idle": [
        MAX_IDLE_UPSTREAMS,
        CAPS.further_upstreams,
    ],
    "names looked up at once, in all": [CAPS.lookups.at_once],
    "names looked up at once, of one worker": [CAPS.lookups.per_asker],
    "look-ups of one worker that wait": [CAPS.lookups.waiting_per_asker],
    "a look-up, its wait included": [LOOKUP_LIMITS.deadline_s],
    "a verdict, look-up included": [
        EnforcementCore.__dataclass_fields__["judge_deadline_s"].default
    ],
    "a connection that has not shown whose it is": [IDENTITY_DEADLINE_S],
    "a request's head": [MAX_HEAD_BYTES / KIB],
    "what nothing can be made of yet, from either side": [MAX_UNPARSED_BYTES / KIB],
    "what a server makes us answer and does not read": [MAX_UNSENT_BYTES / KIB / KIB],
    "a TLS handshake at `--worker-tls`": [DEADLINES.handshake_s, MOST_HANDSHAKES],
    "a ClientHello, in an allowed tunnel": [DEADLINES.hello_s, MAX_HELLO_BYTES / KIB],
    "TLS records that carry nothing, from either side": [FREE_BYTES / KIB, BYTES_FOR_A_BYTE],
    "what a tunnel that is passed on holds until its server has answered": [MAX_HELD_BYTES / KIB],
    "the rest of an upload that was answered before its end": [
        MAX_DISCARDED_BYTES / KIB / KIB,
        DISCARD_FOR_S,
    ],
    "the same, while the worker takes more of its answer": [MAX_LINGERS * DISCARD_FOR_S],
    "dialling a server": [DIAL_DEADLINE_S],
    "a server that is not ready for a granted request": [UPSTREAM_READY_DEADLINE_S],
    "the last bytes that a worker, or the server of a complete tunnel, does not read": [
        LAST_BYTES_S
    ],
    "a server's answer, from the whole request until the head of the response": [
        DEADLINES.answer_s
    ],
    "a later request's head, from its first byte to its last": [DEADLINES.head_s],
    "a request's body of which nothing comes": [DEADLINES.body_s],
    "an answer, or a stream both ways, that stands still": [DEADLINES.silence_s],
    "what waits for a window of HTTP/2 and is not taken": [DEADLINES.stall_s],
    "a request and its answer at all": [DEADLINES.exchange_s / HOUR_S],
    "a connection that carries nothing": [DEADLINES.silence_s],
    "a tunnel that is passed on, a WebSocket": [
        DEADLINES.tunnel_s / HOUR_S,
        DEADLINES.idle_s,
        DEADLINES.half_open_s,
    ],
    "leaf certificates kept": [MAX_LEAVES],
    "refusals of one worker that are answered at once": [REFUSALS_PER_MINUTE, SLOWED_REFUSAL_S],
    "read of one side, handled at once where it speaks frames": [MAX_PIECE_BYTES / KIB],
    "read for one worker, handled in one pass of the loop": [
        SHARE_BYTES / KIB,
        SHARE_BYTES / LEAST_BYTES,
        SHARE_S * 1000,
    ],
    "strangers' refusals that are answered": [
        STRANGERS_PER_MINUTE,
        STRANGERS_PER_SOURCE,
        6,
        64,
    ],
    "workers in the live view": [MAX_WORKERS, MAX_VERDICTS],
}


def rows() -> dict[str, list[str]]:
    """Of the proxy's table; the page has another one further down, of what the fleet keeps."""
    proxys, _, _ = PAGE.read_text().partition("\n## ")
    lines = [line for line in proxys.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    return {cell[0]: cell[1:] for cell in cells}


def test_every_number_on_the_page_is_the_one_in_the_code() -> None:
    found = rows()
    assert found.keys() == NUMBERS.keys()
    for what, numbers in NUMBERS.items():
        shown = [float(number) for number in re.findall(r"\d+", found[what][0])]
        assert shown == numbers, what


def test_every_reason_on_the_page_is_one() -> None:
    named = re.findall(r"`(egress\.\w+)`", PAGE.read_text())
    assert named
    assert set(named) <= {reason.value for reason in Reason}
