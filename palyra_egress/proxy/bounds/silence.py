"""Whether an exchange has been silent for too long, and who is to be told. Pure.

An exchange is looked at every few seconds. Whatever has moved since the last look, either way, ends
its silence. Who is held up by the other side is not silent: his time begins when he may go on. A
worker that owes the rest of a body has a shorter patience than a stream that may talk both ways.
Times are milliseconds of one monotonic clock, sizes bytes.
Invariant: what drips without being part of a message (chunk extensions, trailers, records of TLS
that carry nothing) is silence.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.reasons import Reason


class Progress(NamedTuple):
    """How far an exchange has come. `promises_end`: the request says how it ends, and so is no
    stream that talks both ways; `awaits_answer`: all of it was written, and it was not answered,
    which has a deadline of its own."""

    request_bytes: int
    response_bytes: int
    has_whole_request: bool
    has_answer: bool
    promises_end: bool
    awaits_answer: bool


class Waits(NamedTuple):
    """What waits here for one side to take it; for a server also what of other streams has the
    windows in which its worker would send. `own` is what of it, here and in the kernel, belongs
    to this exchange alone, `in_windows` what waits for windows of HTTP/2. `pings` is how often both
    sides have shown in HTTP/2 that they are there."""

    for_worker: int = 0
    for_server: int = 0
    own: int = 0
    in_windows: int = 0
    pings: int = 0


NOTHING_WAITS: Final = Waits()


@dataclass(slots=True)
class Silence:
    """The silence of one exchange, from its beginning (`since_ms`) on."""

    since_ms: int
    _seen: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
    _held_up_ms: int = 0
    _taken: int | None = None
    _stalled_ms: int = 0

    def look(
        self, progress: Progress, waits: Waits, deadlines: Deadlines, now_ms: int
    ) -> Reason | None:
        """Why the exchange must end now, or None."""
        owes_body = progress.promises_end and not (
            progress.has_whole_request or progress.has_answer
        )
        life = 0 if owes_body else waits.pings
        seen = (*map(int, progress[:4]), waits.own, life)
        if seen != self._seen:
            self._seen, self.since_ms = seen, now_ms
        if waits.for_server or waits.for_worker:
            self._held_up_ms = now_ms
        if self._stalls(progress, waits, now_ms) >= deadlines.stall_s * 1000:
            return Reason.DEADLINE
        patience_s, reason, since_ms = deadlines.silence_s, Reason.DEADLINE, self.since_ms
        if waits.for_server:
            reason = Reason.UPSTREAM_TIMEOUT
        elif not waits.for_worker:
            since_ms = max(since_ms, self._held_up_ms)
            if progress.awaits_answer:
                return None
            if owes_body:
                patience_s, reason = deadlines.body_s, Reason.REQUEST_TIMEOUT
            elif progress.has_whole_request:
                reason = Reason.UPSTREAM_TIMEOUT
        return reason if now_ms - since_ms >= patience_s * 1000 else None

    def _stalls(self, progress: Progress, waits: Waits, now_ms: int) -> float:
        """For how long nothing was taken of what waits for a window; -1 where nothing waits."""
        taken = progress.request_bytes + progress.response_bytes - waits.in_windows
        if not waits.in_windows or taken != self._taken:
            self._taken, self._stalled_ms = taken, now_ms
        return now_ms - self._stalled_ms if waits.in_windows else -1
