"""What costs most to open: how many handshakes, leaves and servers' connections there may be. Pure.

A tunnel is opening from its CONNECT until its TLS handshake is over: one worker has so many places.
A host that no leaf was made for takes a signature: one worker has so many a minute. A connection of
a worker may have one connection to a server, and more, where that one speaks HTTP/1 or there are
several, only while everybody together has not taken the places for more. A place that is free again
goes to who has waited longest.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from palyra_egress.proxy.bounds.caps import CAPS, Caps
from palyra_egress.proxy.bounds.rates import RequestRates
from palyra_egress.request import CanonicalHost, EgressRequest, RequestKind
from palyra_egress.verdict import TlsMode, Verdict


def no_leaf(_host: CanonicalHost) -> bool:
    """Nothing is known of leaves: each is counted as a new one."""
    return False


@dataclass(slots=True)
class Openings:
    """The places that are taken."""

    caps: Caps = CAPS
    has_leaf: Callable[[CanonicalHost], bool] = no_leaf
    _opening: Counter[str] = field(default_factory=Counter)
    _leaves: RequestRates = field(default_factory=RequestRates)
    _further: Counter[str] = field(default_factory=Counter)
    _waiting: dict[Callable[[], None], str] = field(default_factory=dict)

    def begin(self, worker_id: str) -> bool:
        """Whether this worker may open one more tunnel now; True takes the place."""
        if self._opening[worker_id] >= self.caps.openings_per_worker:
            return False
        self._opening[worker_id] += 1
        return True

    def end(self, worker_id: str) -> None:
        """Give a tunnel's place back."""
        self._opening[worker_id] -= 1
        if self._opening[worker_id] <= 0:
            del self._opening[worker_id]

    def may_mint(self, verdict: Verdict, request: EgressRequest, now_monotonic_ms: int) -> bool:
        """Whether a tunnel that is allowed may have the leaf that it needs."""
        is_inspected = verdict.carriage.mode is TlsMode.INSPECT and request.scheme == "https"
        if request.kind is not RequestKind.CONNECT or not is_inspected:
            return True
        if self.has_leaf(request.host):
            return True
        worker_id, most = request.requester.worker_id, self.caps.new_leaves_per_minute
        return self._leaves.take(worker_id, most, now_monotonic_ms)

    def begin_further(self, worker_id: str, tell: Callable[[], None] | None = None) -> bool:
        """Whether this worker may have one more of the further servers' connections; True takes
        the place. Where there is none, `tell` is called once, when its turn has come and a place
        was taken for it."""
        if self._has_further(worker_id):
            self._further[worker_id] += 1
            return True
        if tell is not None:
            self._waiting.setdefault(tell, worker_id)
        return False

    def end_further(self, worker_id: str) -> None:
        """Give the place of a server's connection back: to who waits longest of those that may
        have one more, if anybody does."""
        self._further[worker_id] -= 1
        if self._further[worker_id] <= 0:
            del self._further[worker_id]
        for tell, waiting in self._waiting.items():
            if self._has_further(waiting):
                del self._waiting[tell]
                self._further[waiting] += 1
                tell()
                return

    def _has_further(self, worker_id: str) -> bool:
        return (
            self._further.total() < self.caps.further_upstreams
            and self._further[worker_id] < self.caps.further_upstreams_per_worker
        )

    def wait_no_more(self, tell: Callable[[], None]) -> None:
        """Nobody is to be told any more."""
        self._waiting.pop(tell, None)

    @property
    def taken(self) -> tuple[int, int]:
        """Tunnels that are opening, of everybody, and further servers' connections."""
        return self._opening.total(), self._further.total()
