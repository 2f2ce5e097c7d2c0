"""A pure ledger with shorthand: attestations, grants, orders; applies what was decided."""

import hashlib
from dataclasses import dataclass, field

from palyra_fleet.attestation.result import AttestationResult, BindingLevel
from palyra_fleet.leases.records import LeaseOrder, WorkerApprovalGrant, WorkerLease
from palyra_fleet.leases.workspace import WorkerWorkspaceScope
from palyra_fleet.ledger.decision import Decision
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, Refusal

SCOPE = WorkerWorkspaceScope("/job/run", ("/job/run/in",))
FAR_UNIX_MS = 10_000_000_000


def ulid(number: int) -> str:
    """A well-formed id that sorts by number."""
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    text = ""
    for _ in range(26):
        number, digit = divmod(number, 32)
        text = digits[digit] + text
    return text


def key_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def attested(
    worker_id: str,
    key: str = "key",
    identity: str | None = None,
    until_unix_ms: int = FAR_UNIX_MS,
    capabilities: tuple[str, ...] = (),
    now_unix_ms: int = 2_000,
    binding_level: BindingLevel = BindingLevel.OBSERVED,
) -> AttestationResult:
    public_key = key_of(worker_id + key)
    return AttestationResult(
        worker_id=worker_id,
        evidence_identity=identity or f"identity-of-{worker_id}",
        public_key=public_key,
        key_sha256=hashlib.sha256(public_key).hexdigest(),
        image_digest_sha256="a" * 64,
        build_digest_sha256="b" * 64,
        artifact_digest_sha256="c" * 64,
        supported_capabilities=frozenset(capabilities),
        evidence_until_unix_ms=until_unix_ms,
        evidence_sha256="e" * 64,
        binding_level=binding_level,
        binding_proxy_id="proxy-1",
        bound_at_unix_ms=now_unix_ms,
        binding_policy_digest="policy",
        nonce_issued_at_unix_ms=now_unix_ms,
    )


@dataclass(slots=True)
class LedgerWorld:
    """Runs commands and applies what they decide, as the service does with a perfect store."""

    manager: WorkerFleetManager = field(
        default_factory=lambda: WorkerFleetManager(WorkerFleetPolicy())
    )
    decisions: list[Decision] = field(default_factory=list)
    ids: int = 0

    def do(self, outcome: Outcome) -> Decision:
        assert isinstance(outcome, Decision), outcome
        self.manager.apply(outcome)
        self.decisions.append(outcome)
        return outcome

    def next_id(self) -> str:
        self.ids += 1
        return ulid(self.ids)

    def worker(self, worker_id: str) -> WorkerRecord:
        return self.manager.state.workers[worker_id]

    def register(self, worker_id: str, now_unix_ms: int = 2_000, key: str = "key") -> Decision:
        result = attested(worker_id, key, now_unix_ms=now_unix_ms)
        return self.do(self.manager.register(result, now_unix_ms))

    def grant(self, run_id: str, now_unix_ms: int, expires_at_unix_ms: int = FAR_UNIX_MS) -> str:
        grant = WorkerApprovalGrant(
            self.next_id(), run_id, "tool", "principal", "profile", expires_at_unix_ms, "alice"
        )
        self.do(self.manager.create_grant(grant, "alice", now_unix_ms))
        return grant.grant_id

    def ask(
        self,
        worker_id: str,
        run_id: str,
        now_unix_ms: int,
        ttl_ms: int = 60_000,
        capabilities: tuple[str, ...] = (),
    ) -> Outcome:
        state = self.manager.state
        grant = state.usable_grant(run_id, self.manager.effective_now(now_unix_ms))
        session = state.workers[worker_id].session_epoch if worker_id in state.workers else 1
        return self.manager.grant_lease(
            worker_id,
            session,
            None if grant is None else grant.grant_id,
            LeaseOrder(run_id, ttl_ms, capabilities, SCOPE),
            self.next_id(),
            "5" * 64,
            now_unix_ms,
        )

    def lease(
        self, worker_id: str, run_id: str, now_unix_ms: int, ttl_ms: int = 60_000
    ) -> WorkerLease:
        self.grant(run_id, now_unix_ms)
        decision = self.do(self.ask(worker_id, run_id, now_unix_ms, ttl_ms))
        return next(r for r in decision.records if isinstance(r, WorkerLease))

    def complete(
        self, lease: WorkerLease, now_unix_ms: int, clean: bool = True, session: int | None = None
    ) -> Outcome:
        epoch = self.worker(lease.worker_id).session_epoch if session is None else session
        return self.manager.complete_lease(
            lease.worker_id, epoch, lease.lease_id, lease.fence, clean, now_unix_ms
        )


def refused(outcome: Outcome) -> FleetReason:
    assert isinstance(outcome, Refusal), outcome
    return outcome.reason


def reasons(decision: Decision) -> list[str]:
    return [event.reason.value for event in decision.events]
