"""WorkerFleetManager: the ledger's commands in one place, pure and synchronous.

Every command takes `now_unix_ms` and answers a `Decision` or a `Refusal`; deciding changes nothing,
`apply` does, after the store made the decision durable. Ids, digests and verified attestations come
in as arguments: no clock, no I/O, no randomness. A `now` behind the high-water mark counts as the
mark, so a clock that moves back lengthens and revives nothing. Source: specification 20, section 1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from palyra_fleet.attestation.result import AttestationResult
from palyra_fleet.leases.approval_rules import ApprovalRules, RunAsked
from palyra_fleet.leases.artifacts import NOTHING_CARRIED, CarriedArtifacts
from palyra_fleet.leases.offers import PlacementOrder
from palyra_fleet.leases.records import LeaseOrder, WorkerApprovalGrant
from palyra_fleet.ledger import (
    admission,
    auto_approval,
    binding,
    eligibility,
    grants,
    labelling,
    leasing,
    liveness,
    lost_time,
    placing,
    reattesting,
    releasing,
)
from palyra_fleet.ledger.decision import Decision, EventReason, Record
from palyra_fleet.ledger.facts import (
    Eligibility,
    WorkerLifecycleState,
    WorkerRecord,
    lifecycle_state,
)
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import Refusal

type Outcome = Decision | Refusal


@dataclass(slots=True)
class WorkerFleetManager:
    """The pure state machine."""

    policy: WorkerFleetPolicy
    state: LedgerState = field(default_factory=LedgerState)

    def effective_now(self, now_unix_ms: int) -> int:
        return max(now_unix_ms, self.state.high_water_unix_ms)

    def heartbeat_timeout_ms(self, records: Iterable[Record]) -> int:
        """What the workers among these records get to beat again after a start."""
        workers = sum(isinstance(record, WorkerRecord) for record in records)
        return self.policy.heartbeat_timeout_of(workers)

    def apply(self, decision: Decision) -> None:
        self.state.apply(decision)

    def lifecycle(self, worker_id: str, now_unix_ms: int) -> WorkerLifecycleState:
        now = self.effective_now(now_unix_ms)
        return lifecycle_state(self.state.workers[worker_id], now)

    def reload(self, records: tuple[Record, ...], highest_fence: int, now_unix_ms: int) -> None:
        """Begin again from what is durable; heartbeats and the time stay as they are."""
        fresh, old = LedgerState(), self.state
        now = self.effective_now(now_unix_ms)
        fresh.load(records, highest_fence, now, self.heartbeat_timeout_ms(records))
        fresh.keep_memory(old)
        self.state = fresh

    def end_what_time_bounds(self, behind_ms: int, now_unix_ms: int) -> Decision:
        """The clock went back while nobody looked: no end can be trusted, so all have come."""
        return lost_time.end_what_time_bounds(
            self.state, behind_ms, self.effective_now(now_unix_ms)
        )

    def register(
        self, result: AttestationResult, now_unix_ms: int, continues: bool = False
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return admission.register(self.state, self.policy, result, continues, now)

    def heartbeat(
        self,
        worker_id: str,
        session_epoch: int,
        seq: int,
        now_unix_ms: int,
        waits: bool = False,
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return liveness.heartbeat(
            self.state, self.policy, worker_id, session_epoch, seq, now, waits
        )

    def reap(self, now_unix_ms: int) -> Decision:
        return liveness.reap(self.state, self.effective_now(now_unix_ms))

    def hear_policy(self, proxy_id: str, policy_digest: str, now_unix_ms: int) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return binding.hear_policy(self.state, proxy_id, policy_digest, now)

    def create_grant(self, grant: WorkerApprovalGrant, actor: str, now_unix_ms: int) -> Outcome:
        return grants.create_grant(self.state, grant, actor, self.effective_now(now_unix_ms))

    def approve_by_rule(
        self,
        rules: ApprovalRules,
        worker_id: str,
        session_epoch: int,
        asked: RunAsked,
        grant_id: str,
        now_unix_ms: int,
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return auto_approval.approve_by_rule(
            self.state, self.policy, rules, worker_id, session_epoch, asked, grant_id, now
        )

    def rules_changed(self, rules: ApprovalRules, now_unix_ms: int) -> Outcome:
        return auto_approval.rules_changed(self.state, rules, self.effective_now(now_unix_ms))

    def withdraw_grant(
        self, grant: WorkerApprovalGrant, actor: str, why: str, now_unix_ms: int
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return grants.withdraw_grant(self.state, grant, actor, why, now)

    def grant_lease(
        self,
        worker_id: str,
        session_epoch: int,
        grant_id: str | None,
        order: LeaseOrder,
        lease_id: str,
        egress_secret_sha256: str,
        now_unix_ms: int,
    ) -> Outcome:
        return leasing.grant_lease(
            self.state,
            self.policy,
            worker_id,
            session_epoch,
            grant_id,
            order,
            lease_id,
            egress_secret_sha256,
            self.effective_now(now_unix_ms),
        )

    def place(
        self,
        order: PlacementOrder,
        grant_id: str | None,
        offer_id: str,
        actor: str,
        now_unix_ms: int,
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return placing.place(self.state, self.policy, order, grant_id, offer_id, actor, now)

    def decline(
        self, worker_id: str, session_epoch: int, offer_id: str, why: str, now_unix_ms: int
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return placing.decline(self.state, worker_id, session_epoch, offer_id, why, now)

    def start_lease(
        self, worker_id: str, session_epoch: int, lease_id: str, fence: int, now_unix_ms: int
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return leasing.start_lease(self.state, worker_id, session_epoch, lease_id, fence, now)

    def renew_lease(
        self,
        worker_id: str,
        session_epoch: int,
        lease_id: str,
        fence: int,
        ttl_ms: int | None,
        now_unix_ms: int,
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return leasing.renew_lease(
            self.state, self.policy, worker_id, session_epoch, lease_id, fence, ttl_ms, now
        )

    def complete_lease(
        self,
        worker_id: str,
        session_epoch: int,
        lease_id: str,
        fence: int,
        cleanup_verified: bool,
        now_unix_ms: int,
        carried: CarriedArtifacts = NOTHING_CARRIED,
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return leasing.complete_lease(
            self.state, worker_id, session_epoch, lease_id, fence, cleanup_verified, now, carried
        )

    def revoke_lease(self, lease_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return leasing.revoke_lease(self.state, lease_id, actor, why, now)

    def quarantine(
        self,
        worker_id: str,
        actor: str,
        why: str,
        now_unix_ms: int,
        reason: EventReason = EventReason.QUARANTINED_BY_OPERATOR,
        evidence_sha256: str | None = None,
        decision_id: str | None = None,
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return admission.quarantine(
            self.state, worker_id, actor, reason, why, evidence_sha256, decision_id, now
        )

    def release(self, worker_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return releasing.release(self.state, self.policy, worker_id, actor, why, now)

    def request_release(
        self, worker_id: str, release_id: str, actor: str, why: str, now_unix_ms: int
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return releasing.request_release(
            self.state, self.policy, worker_id, release_id, actor, why, now
        )

    def approve_release(self, release_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return releasing.approve_release(self.state, release_id, actor, why, now)

    def withdraw_release(self, release_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return releasing.withdraw_release(self.state, release_id, actor, why, now)

    def void_release(self, worker_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return releasing.void_release(self.state, worker_id, actor, why, now)

    def reverify(self, worker_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return admission.reverify(self.state, worker_id, actor, why, now)

    def reattest(
        self,
        worker_id: str,
        new_key: bool,
        within_ms: int | None,
        actor: str,
        why: str,
        now_unix_ms: int,
    ) -> Outcome:
        """`within_ms` is a length of time from now."""
        now = self.effective_now(now_unix_ms)
        return reattesting.reattest(
            self.state, self.policy, worker_id, new_key, within_ms, actor, why, now
        )

    def ban(self, worker_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        return admission.ban(self.state, worker_id, actor, why, self.effective_now(now_unix_ms))

    def evict(self, worker_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        return admission.evict(self.state, worker_id, actor, why, self.effective_now(now_unix_ms))

    def label(
        self,
        worker_id: str,
        labels: Mapping[str, str],
        remove: Iterable[str],
        actor: str,
        why: str,
        now_unix_ms: int,
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return labelling.label(self.state, worker_id, labels, remove, actor, why, now)

    def cordon(self, worker_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        return self._eligibility(worker_id, Eligibility.CORDONED, None, actor, why, now_unix_ms)

    def uncordon(self, worker_id: str, actor: str, why: str, now_unix_ms: int) -> Outcome:
        return self._eligibility(worker_id, Eligibility.ELIGIBLE, None, actor, why, now_unix_ms)

    def drain(
        self, worker_id: str, actor: str, why: str, deadline_ms: int, now_unix_ms: int
    ) -> Outcome:
        """`deadline_ms` is a length of time from now."""
        deadline = self.effective_now(now_unix_ms) + deadline_ms
        return self._eligibility(worker_id, Eligibility.DRAINING, deadline, actor, why, now_unix_ms)

    def _eligibility(
        self,
        worker_id: str,
        wanted: Eligibility,
        deadline_unix_ms: int | None,
        actor: str,
        why: str,
        now_unix_ms: int,
    ) -> Outcome:
        now = self.effective_now(now_unix_ms)
        return eligibility.set_eligibility(
            self.state, worker_id, wanted, deadline_unix_ms, actor, why, now
        )
