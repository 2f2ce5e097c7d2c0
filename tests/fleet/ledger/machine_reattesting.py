"""The part of the machine that demands new evidence and new keys, and meets the demands.

What meets none is tried as well: the old key, evidence that was begun before, a next key that the
current one did not sign for.
"""

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from palyra_fleet.ledger.decision import Decision, Tombstone, TombstoneKind
from palyra_fleet.refusals import FleetReason, Refusal
from tests.fakes.ledger_world import key_of
from tests.fleet.ledger.machine_base import rarely, workers
from tests.fleet.ledger.machine_placing import PlacingMachine

withins = st.one_of(st.none(), st.integers(1, 200))


class ReattestingMachine(PlacingMachine):
    """Rules about demands."""

    def __init__(self) -> None:
        super().__init__()
        self.retired: set[str] = set()

    @rule(worker_id=workers, new_key=st.booleans(), within_ms=withins, now=rarely)
    def evidence_is_demanded(
        self, worker_id: str, new_key: bool, within_ms: int | None, now: bool
    ) -> None:
        if now:
            self.demand(worker_id, new_key, within_ms)

    def demand(self, worker_id: str, new_key: bool, within_ms: int | None) -> None:
        state = self.manager.state
        lease = state.live_lease_of(worker_id)
        outcome = self.manager.reattest(worker_id, new_key, within_ms, "alice", "why", self.now)
        if not self.do("reattest", outcome):
            return
        worker, after = state.workers[worker_id], state.live_lease_of(worker_id)
        assert worker.demand is not None
        assert worker.demand.new_key or not new_key
        assert (lease is None) == (after is None)  # it goes on, for now
        assert after is None or after.expires_at_unix_ms <= worker.demand.due_at_unix_ms
        again = self.manager.reattest(worker_id, new_key, 10**6, "bob", "why", self.now)
        assert isinstance(again, Decision)
        assert not again.records

    @rule(worker_id=workers, new_key=st.booleans(), asks=st.booleans(), goes_on=st.booleans())
    def what_is_demanded_is_shown(
        self, worker_id: str, new_key: bool, asks: bool, goes_on: bool
    ) -> None:
        """By the session itself, signed for by its key, or by a new session."""
        if asks:
            self.demand(worker_id, new_key, 50)
        worker = self.manager.state.workers.get(worker_id)
        if worker is None or worker.demand is None:
            return
        lease = self.manager.state.live_lease_of(worker_id)
        self.ids += 1
        key = key_of(f"next/{self.ids}") if worker.demand.new_key else worker.proof.public_key
        result = self.evidence(worker_id, worker.evidence_identity, key, 300)
        result = replace(result, succeeds_key_sha256=worker.proof.key_sha256)
        if not self.do("register", self.manager.register(result, self.now, goes_on)):
            return
        now = self.manager.state.workers[worker_id]
        assert now.demand is None
        if worker.demand.new_key:
            self.retired.add(worker.proof.key_sha256)
        if goes_on:
            after = self.manager.state.live_lease_of(worker_id)
            assert now.work is worker.work
            assert (lease and lease.lease_id) == (after and after.lease_id)

    @rule(worker_id=workers, goes_on=st.booleans())
    def what_was_not_demanded_is_shown(self, worker_id: str, goes_on: bool) -> None:
        worker = self.manager.state.workers.get(worker_id)
        if worker is None or worker.demand is None:
            return
        result = self.evidence(worker_id, worker.evidence_identity, worker.proof.public_key, 300)
        older = replace(result, nonce_issued_at_unix_ms=worker.demand.asked_at_unix_ms - 1)
        unknown = replace(result, nonce_issued_at_unix_ms=None)
        for wrong in (older, unknown, *([result] if worker.demand.new_key else [])):
            outcome = self.manager.register(wrong, self.now, goes_on)
            assert isinstance(outcome, Refusal)

    @rule(worker_id=workers, signed=st.booleans())
    def a_session_goes_on_with_another_key(self, worker_id: str, signed: bool) -> None:
        """Only if its own signed for that, also where nobody demands it."""
        worker = self.manager.state.workers.get(worker_id)
        if worker is None:
            return
        self.ids += 1
        current = (worker.candidate or worker.proof).key_sha256
        result = self.evidence(
            worker_id, worker.evidence_identity, key_of(f"other/{self.ids}"), 300
        )
        signer = current if signed else "0" * 64
        result = replace(result, succeeds_key_sha256=signer)
        old = self.manager.state.live_lease_of(worker_id)
        if self.do("register", self.manager.register(result, self.now, True)):
            assert signed
            assert not worker.confined
            lease = self.manager.state.live_lease_of(worker_id)
            assert (lease and lease.lease_id) == (old and old.lease_id)
            if worker.demand is not None and worker.demand.new_key:
                self.retired.add(worker.proof.key_sha256)

    @rule(worker_id=workers)
    def a_retired_key_comes_back(self, worker_id: str) -> None:
        mark = next(iter(sorted(self.retired)), None)
        if mark is None:
            return
        result = self.evidence(worker_id, f"identity-of-{worker_id}", key_of("any"), 300)
        outcome = self.manager.register(replace(result, key_sha256=mark), self.now)
        assert isinstance(outcome, Refusal)
        assert outcome.reason is FleetReason.WORKER_BANNED

    @invariant()
    def retired_keys_are_remembered(self) -> None:
        if self.command != "restore":
            marks = {Tombstone(TombstoneKind.KEY, key) for key in self.retired}
            assert marks <= self.manager.state.tombstones
