"""What the machine that plays the ledger stands on: store, time, ids, and how a command is done.

Every decision is committed to the store and applied; what only the machine remembers (fences, ended
leases, the caps of each lease) is noted on the way. Numbers in comments are those of specification
20, section 1.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from palyra_fleet.attestation.result import AttestationResult
from palyra_fleet.leases.records import WorkerLease
from palyra_fleet.ledger.decision import Decision
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.store.protocol import FleetStore
from tests.fakes.approval_rules import RULES
from tests.fakes.ledger_world import attested, ulid
from tests.fakes.memory_fleet_store import Disk, MemoryFleetStore
from tests.fleet.ledger.transitions import COMMANDS, leased_wrongly

POLICY = WorkerFleetPolicy(
    heartbeat_timeout_ms=200,
    lease_max_ms=150,
    attestation_max_ms=400,
    binding_max_age_ms=300,
    lease_binding_max_age_ms=100,
    max_leases=2,
    storm_quarantines_per_minute=1_000,
    release_request_ms=120,
    offer_ms=40,
)
WORKERS = tuple(ulid(n) for n in (1, 2, 3))
RUNS = ("run-1", "run-2", "run-3")
workers = st.sampled_from(WORKERS)
runs = st.sampled_from(RUNS)
some = st.integers(0, 10)
persons = st.sampled_from(["alice", "bob"])
rarely = st.integers(0, 5).map(lambda n: n == 5)


PLAYED: set[str] = set()
"""The commands that some run of the machine played."""


class MachineBase(RuleBasedStateMachine):
    """The ledger on a memory store, without rules."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.disk = Disk()
        self.store = self.make_store()
        self.now = 1_000
        self.ids = 10_000
        self.seq = 0
        self.command = "nothing"
        self.before: dict[str, WorkerRecord] = {}
        self.fences: list[int] = []
        self.seen_ended: set[str] = set()
        self.all_leases: dict[str, WorkerLease] = {}
        self.grant_ends: dict[str, int] = {}
        self.asked_at: dict[str, int] = {}
        self.rules = RULES
        self.two_persons = False
        self.asked_by: dict[str, str] = {}
        self.asked_on: dict[str, WorkerRecord] = {}
        self.events = self.durable_at = 0
        self.last: tuple[str, Callable[[], Outcome]] | None = None

    def make_store(self) -> FleetStore:
        return MemoryFleetStore(self.disk)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def load(self) -> None:
        snapshot = self.run(self.store.open(self.now))
        self.manager = WorkerFleetManager(replace(POLICY, two_person_release=self.two_persons))
        self.manager.state.load(
            snapshot.records,
            snapshot.highest_fence,
            snapshot.high_water_unix_ms,
            self.manager.heartbeat_timeout_ms(snapshot.records),
        )

    def do(self, command: str, outcome: Outcome) -> bool:
        assert command in COMMANDS
        PLAYED.add(command)
        self.command = command
        self.before = dict(self.manager.state.workers)
        if not isinstance(outcome, Decision):
            return False
        assert outcome.at_unix_ms >= self.manager.state.high_water_unix_ms
        alone = {event.worker_id for event in outcome.events} == {None}  # of the fleet itself
        of_an_offer = bool(outcome.offers)
        assert bool(outcome.events) == bool(outcome.records) or alone or of_an_offer  # 9
        assert leased_wrongly(command, outcome, self.manager.state) == []
        if outcome.durable:
            self.run(self.store.commit(outcome))
            self.durable_at = outcome.at_unix_ms
        self.manager.apply(outcome)
        self.events += len(outcome.events)
        for record in outcome.records:
            if isinstance(record, WorkerLease):
                self.note(record, outcome.at_unix_ms)
        return True

    def note(self, lease: WorkerLease, now: int) -> None:
        if self.command in {"grant_lease", "renew_lease"} and lease.status.live:
            self.asked_at[lease.lease_id] = now
            proof = self.before[lease.worker_id].proof
            known_until = proof.known_until_unix_ms
            assert known_until is None or lease.expires_at_unix_ms <= known_until  # 5
            if self.command == "grant_lease":
                word = self.manager.state.policy_words[proof.binding_proxy_id]
                assert proof.binding_policy_digest == word.policy_digest
                assert now < proof.bound_at_unix_ms + POLICY.lease_binding_max_age_ms
        if lease.lease_id not in self.all_leases:
            self.fences.append(lease.fence)
        assert lease.lease_id not in self.seen_ended  # 11
        if not lease.status.live:
            self.seen_ended.add(lease.lease_id)
        self.all_leases[lease.lease_id] = lease

    def next_id(self) -> str:
        self.ids += 1
        return ulid(self.ids)

    def session(self, worker_id: str) -> int:
        worker = self.manager.state.workers.get(worker_id)
        return 1 if worker is None else worker.session_epoch

    def evidence(self, worker_id: str, identity: str, key: bytes, ms: int) -> AttestationResult:
        now = self.manager.effective_now(self.now)
        self.ids += 1
        known_until = None if ms % 2 else now + self.ids % 400  # a certificate that ends, or none
        return replace(
            attested(worker_id, until_unix_ms=now + ms, now_unix_ms=now),
            known_until_unix_ms=known_until,
            binding_policy_digest=f"policy-{1 + self.ids % 2}",
            evidence_identity=identity,
            public_key=key,
            key_sha256=hashlib.sha256(key).hexdigest(),
        )

    def register_with(
        self, worker: WorkerRecord, new_key: bytes | None, ms: int, continues: bool = False
    ) -> bool:
        key = new_key or worker.proof.public_key
        result = self.evidence(worker.worker_id, worker.evidence_identity, key, ms)
        return self.do("register", self.manager.register(result, self.now, continues))

    def live(self, which: int) -> WorkerLease:
        live = list(self.manager.state.leases.values())
        return live[which % len(live)]
