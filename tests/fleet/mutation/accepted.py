"""Mutants that may live, by their name, each with its reason: what they change, nobody can see.

Beside them those that no test can fail on, since they do not come to an end, with why they do not.
A name that is no mutant's any more is an error, so that this list and the code stay together.
"""

_ENDED = "(lease_id, fence) == (worker.last_lease_id, worker.last_fence)"
_OPEN = "worker is None or request is None or now_unix_ms >= request.expires_at_unix_ms"
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
    "liveness._expire: lease is not None and lease.lease_id == lease_id -> lease is not None": (
        "only a lease that is held has a deadline, and a worker holds one at a time (invariant 1): "
        "what it holds is this one"
    ),
    f"liveness._end_drain: lease is not None and {_DRAINS} -> lease is not None": (
        "only a draining worker has a deadline of drains (invariant 7), and no reap ends a drain"
    ),
    "placing_index._Group._tidy: len(self.heap) > 2 * len(self.scores) + _SLACK -> "
    "len(self.heap) >= 2 * len(self.scores) + _SLACK": (
        "a heap is made anew one entry sooner: what it answers is the same, and so is its bound"
    ),
    "placing_index.PlacingIndex.open_offer: offer_id is None -> False": (
        "no offer has the id None: only the type of the index asks for this one"
    ),
    "state.LedgerState._drop_deadlines: kind is DeadlineKind.GRANT -> True": (
        "no grant is held under the id of a worker, a lease or a request: nothing is forgotten"
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
}
"""Likewise, of a mutant that only a limit can notice, and why it never ends."""
