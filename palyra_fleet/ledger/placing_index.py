"""Who waits for a run, best first, and which offers are open. Kept in memory, never scanned.

Workers that wait lie in one heap for each pair of capabilities and binding level: a new best one is
found at the top, and entering and leaving cost O(log n). An entry whose worker left stays where it
is and is skipped; where more are stale than good, the heap is made anew, so that a change costs
O(log n) on average whatever changes how often. Looking changes nothing. Of offers that ended the
newest are remembered, for who asks what became of one. Pure. Times: Unix ms.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.leases.offers import Offer
from palyra_fleet.ledger.facts import Score
from palyra_fleet.wire.placement_models import OfferState

MAX_ENDED = 10_000
_SLACK = 16

type Kind = tuple[frozenset[str], BindingLevel]
"""What workers of one heap have in common."""

type _Entry = tuple[Score, str]


@dataclass(slots=True)
class _Group:
    """The workers of one kind that wait, with the score under which each lies in the heap."""

    heap: list[_Entry] = field(default_factory=list)
    scores: dict[str, Score] = field(default_factory=dict)

    def enter(self, worker_id: str, score: Score) -> None:
        self.scores[worker_id] = score
        heapq.heappush(self.heap, (score, worker_id))
        self._tidy()

    def leave(self, worker_id: str) -> None:
        del self.scores[worker_id]
        self._tidy()

    def waits(self, entry: _Entry) -> bool:
        return self.scores.get(entry[1]) == entry[0]

    def _tidy(self) -> None:
        """What is at the top waits, and no more than half of a long heap is stale."""
        if len(self.heap) > 2 * len(self.scores) + _SLACK:
            self.heap = [(score, worker_id) for worker_id, score in self.scores.items()]
            heapq.heapify(self.heap)
        while self.heap and not self.waits(self.heap[0]):
            heapq.heappop(self.heap)


@dataclass(slots=True)
class PlacingIndex:
    """Workers that wait, and offers by id, worker and run."""

    offers: dict[str, Offer] = field(default_factory=dict)
    offer_by_worker: dict[str, str] = field(default_factory=dict)
    offer_by_run: dict[str, str] = field(default_factory=dict)
    ended: dict[str, Offer] = field(default_factory=dict)
    _groups: dict[Kind, _Group] = field(default_factory=dict)
    _kinds: dict[str, Kind] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """How many workers wait."""
        return len(self._kinds)

    def waits(self, worker_id: str) -> bool:
        return worker_id in self._kinds

    def enter(self, worker_id: str, kind: Kind, score: Score) -> None:
        """The worker waits; again with the same score changes nothing."""
        known = self._kinds.get(worker_id) == kind
        if known and self._groups[kind].scores[worker_id] == score:
            return
        self.leave(worker_id)
        self._kinds[worker_id] = kind
        self._groups.setdefault(kind, _Group()).enter(worker_id, score)

    def leave(self, worker_id: str) -> None:
        """The worker waits no more."""
        kind = self._kinds.pop(worker_id, None)
        if kind is None:
            return
        group = self._groups[kind]
        group.leave(worker_id)
        if not group.scores:
            del self._groups[kind]

    def in_order(
        self, required: frozenset[str], least: BindingLevel, only: str | None = None
    ) -> Iterator[str]:
        """Who waits and has what is required, best first; `only` this worker, if one is named. The
        first costs a look at the top of each heap that fits, each further one O(log n)."""
        if only is not None:
            yield from (only,) if self.waits(only) else ()
            return
        groups = [
            group
            for (capabilities, level), group in self._groups.items()
            if level >= least and capabilities.issuperset(required)
        ]
        frontier = [(group.heap[0], number, 0) for number, group in enumerate(groups)]
        heapq.heapify(frontier)
        last = None
        while frontier:
            entry, number, at = heapq.heappop(frontier)
            group = groups[number]
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(group.heap):
                    heapq.heappush(frontier, (group.heap[child], number, child))
            if entry != last and group.waits(entry):  # who left and came back lies there twice
                last = entry
                yield entry[1]

    def open_offer(self, offer_id: str | None) -> Offer | None:
        return None if offer_id is None else self.offers.get(offer_id)

    def offer_to(self, worker_id: str) -> Offer | None:
        """The open offer of this worker."""
        return self.open_offer(self.offer_by_worker.get(worker_id))

    def offer_of(self, run_id: str) -> Offer | None:
        """The open offer of this run."""
        return self.open_offer(self.offer_by_run.get(run_id))

    def put(self, offer: Offer) -> None:
        """An offer was made, or has ended."""
        known = self.offers.pop(offer.offer_id, None)
        if known is not None:
            del self.offer_by_worker[offer.worker_id]
            del self.offer_by_run[offer.order.run_id]
        if offer.state is OfferState.OPEN:
            self.offers[offer.offer_id] = offer
            self.offer_by_worker[offer.worker_id] = offer.offer_id
            self.offer_by_run[offer.order.run_id] = offer.offer_id
        else:
            self.ended[offer.offer_id] = offer
            if len(self.ended) > MAX_ENDED:
                del self.ended[next(iter(self.ended))]

    def copy(self) -> "PlacingIndex":
        """One that may change by itself."""
        return PlacingIndex(
            dict(self.offers),
            dict(self.offer_by_worker),
            dict(self.offer_by_run),
            dict(self.ended),
            {kind: _Group(list(one.heap), dict(one.scores)) for kind, one in self._groups.items()},
            dict(self._kinds),
        )
