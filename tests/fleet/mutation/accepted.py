"""Mutants that may live, by their name, each with its reason: what they change, nobody can see.

Beside them those that no test can fail on, since they do not come to an end, with why they do not.
A name that is no mutant's any more is an error, so that this list and the code stay together.
"""

_ENDED = "(lease_id, fence) == (worker.last_lease_id, worker.last_fence)"
_OPEN = "worker is None or request is None or now_unix_ms >= request.expires_at_unix_ms"
_BEAT = "beat is not None and beat.waits"
_WITHDRAWN = "isinstance(record, WorkerApprovalGrant)"
_WAITS = (
    "worker is not None and beat is not None and beat.waits and idle(worker) and "
    "(worker_id not in self.placing.offer_by_worker) and "
    "(worker.proof.attested_until_unix_ms > self.high_water_unix_ms)"
)
_DRAINS = "draft.worker(worker_id).eligibility is Eligibility.DRAINING"

ACCEPTED: dict[str, str] = {
    f"leasing._current_lease: lease is None and {_ENDED} -> {_ENDED}": (
        "a live lease is the worker's last (invariant 2), and was returned two lines before"
    ),
    "grants.create_grant: grant.worker_id or '' -> grant.worker_id": (
        "nobody's id is None, and nobody's is empty: only the type of the index asks for one"
    ),
    f"releasing._find_open: {_OPEN} -> {_OPEN.removeprefix('worker is None or ')}": (
        "nobody's request is None, too, so the next part says it: only the types ask for this one"
    ),
    f"releasing._find_open: {_OPEN} -> {_OPEN.replace('request is None or ', '')}": (
        "the index knows a release only while its worker's record has that request "
        "(`LedgerState._unindex`): only the types ask for this one"
    ),
    "liveness.reap: draft.worker(subject_id).liveness is Liveness.LIVE -> True": (
        "only the live have a deadline of beats (`LedgerState._put_worker` cancels the others'), "
        "and nothing else in a reap makes a worker stale"
    ),
    "reattesting.reattest: demand is None or demand == worker.demand -> demand == worker.demand": (
        "only types ask: of two demands, one of which is there, one holds"
    ),
    "liveness._expire: lease is not None and lease.lease_id == lease_id -> lease is not None": (
        "only a lease that is held has a deadline, and a worker holds one at a time (invariant 1): "
        "what it holds is this one"
    ),
    f"liveness._end_drain: lease is not None and {_DRAINS} -> lease is not None": (
        "only a draining worker has a deadline of drains (invariant 7), and no reap ends a drain"
    ),
    "liveness._lapse: offer is not None -> True": (
        "only an open offer has a deadline (`LedgerState._put_offer` cancels the others'), and "
        "nothing else in a reap ends one"
    ),
    "draft.Draft.wait_no_more: self._beats.get(worker_id) or self.state.beats.get(worker_id) -> "
    "self.state.beats.get(worker_id)": (
        "no command takes a beat and ends an offer by its worker's doing"
    ),
    f"draft.Draft.wait_no_more: {_BEAT} -> beat.waits": (
        "whoever has an offer has beaten: only the type of the index asks for this"
    ),
    f"draft.Draft.wait_no_more: {_BEAT} -> beat is not None": (
        "a beat that does not wait is put again as it is"
    ),
    "draft.Draft._end_offers: until < offer.expires_at_unix_ms -> "
    "until <= offer.expires_at_unix_ms": "an offer that ends with the evidence is put as it is",
    f"draft.Draft._end_offers: {_WITHDRAWN} and (not record.usable(self.now_unix_ms)) -> "
    f"{_WITHDRAWN}": (
        "an approval is put when it is new, and then no offer rests on it, or spent or withdrawn"
    ),
    "placing_index._Group._tidy: len(self.heap) > 2 * len(self.scores) + _SLACK -> "
    "len(self.heap) >= 2 * len(self.scores) + _SLACK": (
        "a heap is made anew one entry sooner: what it answers is the same, and so is its bound"
    ),
    "placing_index.PlacingIndex.open_offer: offer_id is None -> False": (
        "no offer has the id None: only the type of the index asks for this one"
    ),
    "state.LedgerState._drop_deadlines: kind is DeadlineKind.WAITING -> True": (
        "workers that are silent, drain or are quarantined do not wait, and no lease, offer or "
        "request has a worker's id"
    ),
    f"state.LedgerState._look_at: {_WAITS} -> {_WAITS.removeprefix('worker is not None and ')}": (
        "the beats of a worker that is forgotten go first: only the types ask for this one"
    ),
}
"""`module.function: text -> text` of a mutant, and why it may live."""

ENDLESS: dict[str, str] = {
    "deadlines.DeadlineHeap.drop_until: "
    "self._heap and self._heap[0][0] <= now_unix_ms -> self._heap": (
        "what is to come is put back at once and taken again; where nothing is to come, all that "
        "is taken is due or cancelled, as in the real one"
    ),
    "deadlines.DeadlineHeap.drop_until: "
    "current is not None and current > now_unix_ms -> current is not None": (
        "what is due is put back at once and taken again"
    ),
    "deadlines.DeadlineHeap.drop_until: current > now_unix_ms -> current >= now_unix_ms": (
        "likewise, where its time is this millisecond"
    ),
}
"""Likewise, of a mutant that only a limit can notice, and why it never ends."""
