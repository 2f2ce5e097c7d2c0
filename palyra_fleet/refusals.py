"""Why the fleet refuses: one table of reasons, with heading and HTTP status.

A `Refusal` is a value: the pure core returns it, the service raises it as `FleetRefusal`. Spelling
of a reason never changes once released; texts are for people. Texts published by earlier releases
are built by the functions at the end, so that each is written once. No text carries a secret.
"""

from dataclasses import dataclass
from enum import StrEnum


class FleetReason(StrEnum):
    """Reason codes. Each has exactly one row in `_TABLE`."""

    NONCE_REFUSED = "attestation.nonce_refused"
    NONCE_LIMIT = "attestation.nonce_limit"
    KEY_INVALID = "attestation.key_invalid"
    EVIDENCE_REFUSED = "attestation.evidence_refused"
    KEY_MISMATCH = "attestation.key_mismatch"
    ID_INVALID = "attestation.id_invalid"
    NOT_YET_VALID = "attestation.not_yet_valid"
    ATTESTATION_EXPIRED = "attestation.expired"
    MISSING_BINDING = "attestation.missing_egress_proxy_binding"
    DIGEST_IMAGE = "attestation.digest_mismatch_image"
    DIGEST_BUILD = "attestation.digest_mismatch_build"
    DIGEST_ARTIFACT = "attestation.digest_mismatch_artifact"
    INCOMPATIBLE = "attestation.incompatible"
    RECEIPT_REFUSED = "attestation.receipt_refused"
    NEW_KEY_DEMANDED = "attestation.new_key_demanded"
    EVIDENCE_BEFORE_DEMAND = "attestation.evidence_before_demand"
    WORKER_UNKNOWN = "worker.unknown"
    WORKER_EXISTS = "worker.already_registered"
    WORKER_QUARANTINED = "worker.quarantined"
    WORKER_BANNED = "worker.banned"
    SESSION_STALE = "worker.session_stale"
    HEARTBEAT_OLD = "worker.heartbeat_old"
    NOT_QUARANTINED = "worker.not_quarantined"
    WORKER_LEASED = "worker.leased"
    LABELS_FULL = "worker.labels_full"
    RELEASE_NEEDS_EVIDENCE = "worker.release_requires_reattestation"
    RELEASE_NEEDS_KEY = "worker.release_requires_new_key"
    RELEASE_NEEDS_SECOND = "worker.release_requires_second_person"
    RELEASE_SAME_PERSON = "worker.release_by_same_person"
    RELEASE_REQUESTED = "worker.release_already_requested"
    RELEASE_UNKNOWN = "worker.release_request_unknown"
    REATTEST_FIRST = "worker.cleanup_verified_requires_reattestation"
    COMMAND_INVALID = "worker.command_invalid"
    FLEET_FULL = "fleet.capacity_workers"
    LEASES_FULL = "fleet.capacity_leases"
    STORM = "fleet.storm_breaker"
    FROZEN = "fleet.frozen"
    ALREADY_FROZEN = "fleet.already_frozen"
    NOT_FROZEN = "fleet.not_frozen"
    LEASE_INVALID = "lease.invalid"
    NO_WORKER = "lease.no_worker_available"
    DRAINING = "lease.worker_draining"
    REATTESTATION_DEMANDED = "lease.reattestation_demanded"
    BINDING_STALE = "lease.binding_stale"
    NO_GRANT = "lease.grant_missing"
    GRANT_SPENT = "lease.grant_spent"
    RUN_LEASED = "lease.run_already_leased"
    LEASE_UNKNOWN = "lease.unknown"
    STALE_FENCE = "lease.stale_fence"
    LEASE_ENDED = "lease.ended"
    RUN_OFFERED = "lease.run_offered"
    OFFER_ENDED = "lease.offer_ended"
    OFFER_UNKNOWN = "lease.offer_unknown"
    GRANT_UNKNOWN = "grant.unknown"
    RULE_LIMIT = "grant.rule_limit"
    JOIN_UNKNOWN = "attestation.join_token_unknown"
    ENROLMENT_CONFLICT = "enrolment.conflict"
    ENROLMENT_UNKNOWN = "enrolment.unknown"
    EVIDENCE_PROXY_UNKNOWN = "violation.proxy_unknown"
    EVIDENCE_SIGNATURE = "violation.evidence_refused"
    EVIDENCE_FOREIGN = "violation.foreign_proxy"
    EVIDENCE_REORDERED = "violation.seq_reordered"
    EVIDENCE_GAP = "violation.seq_gap"
    EVIDENCE_CHAIN = "violation.chain_broken"
    POLICY_PROXY_UNKNOWN = "policy.proxy_unknown"
    POLICY_PROXY_SILENT = "policy.proxy_silent"
    POLICIES_DIFFER = "policy.proxies_differ"
    POLICY_BUSY = "policy.too_many_questions"
    POLICY_OTHER = "policy.other_policy"
    QUESTION_UNKNOWN = "policy.question_unknown"
    PRINCIPAL_UNKNOWN = "principal.unknown"
    PRINCIPAL_REFUSED = "principal.refused"
    SNAPSHOT_BUSY = "fleet.snapshot_busy"
    SNAPSHOTS_FULL = "fleet.snapshots_full"
    STORE_UNAVAILABLE = "fleet.store_unavailable"
    STATE_UNUSABLE = "fleet.state_unusable"
    CHAIN_BROKEN = "fleet.event_chain_broken"
    CLOSED = "fleet.closed"

    @property
    def heading(self) -> str:
        return _TABLE[self][0]

    @property
    def http_status(self) -> int:
        return _TABLE[self][1]


_TABLE: dict[FleetReason, tuple[str, int]] = {
    FleetReason.NONCE_REFUSED: ("The nonce is unknown, spent, late or another key's", 403),
    FleetReason.NONCE_LIMIT: ("Too many nonces are outstanding", 429),
    FleetReason.KEY_INVALID: ("The public key is not an Ed25519 key", 400),
    FleetReason.EVIDENCE_REFUSED: ("Nobody vouches for the evidence", 403),
    FleetReason.KEY_MISMATCH: ("The evidence speaks of another key", 403),
    FleetReason.ID_INVALID: ("The evidence names no well-formed worker id", 400),
    FleetReason.NOT_YET_VALID: ("The attestation is not yet valid", 403),
    FleetReason.ATTESTATION_EXPIRED: ("The attestation has expired", 403),
    FleetReason.MISSING_BINDING: ("No verified egress proxy binding", 403),
    FleetReason.DIGEST_IMAGE: ("Unexpected image digest", 403),
    FleetReason.DIGEST_BUILD: ("Unexpected build digest", 403),
    FleetReason.DIGEST_ARTIFACT: ("Unexpected artifact digest", 403),
    FleetReason.INCOMPATIBLE: ("The worker is not compatible", 403),
    FleetReason.RECEIPT_REFUSED: ("The proxy's receipt is not believed", 403),
    FleetReason.NEW_KEY_DEMANDED: ("An operator demands a new key of the worker", 403),
    FleetReason.EVIDENCE_BEFORE_DEMAND: ("The evidence is older than what was demanded", 403),
    FleetReason.WORKER_UNKNOWN: ("No such worker", 404),
    FleetReason.WORKER_EXISTS: ("The worker is registered already", 409),
    FleetReason.WORKER_QUARANTINED: ("The worker is quarantined", 403),
    FleetReason.WORKER_BANNED: ("The worker, its key or its identity is banned", 403),
    FleetReason.SESSION_STALE: ("A newer session of this worker exists", 409),
    FleetReason.HEARTBEAT_OLD: ("The heartbeat's number did not grow", 409),
    FleetReason.NOT_QUARANTINED: ("The worker is not quarantined", 409),
    FleetReason.WORKER_LEASED: ("The worker holds a lease", 409),
    FleetReason.LABELS_FULL: ("The worker has as many labels as it may", 409),
    FleetReason.RELEASE_NEEDS_EVIDENCE: ("Release takes evidence newer than the quarantine", 409),
    FleetReason.RELEASE_NEEDS_KEY: ("Release takes a new key", 409),
    FleetReason.RELEASE_NEEDS_SECOND: ("Release takes one person who asks, one who approves", 409),
    FleetReason.RELEASE_SAME_PERSON: ("Who asks for a release does not approve it", 403),
    FleetReason.RELEASE_REQUESTED: ("The release is asked for already", 409),
    FleetReason.RELEASE_UNKNOWN: ("No such request for a release is open", 404),
    FleetReason.REATTEST_FIRST: ("The worker must attest again first", 409),
    FleetReason.COMMAND_INVALID: ("The command does not apply", 409),
    FleetReason.FLEET_FULL: ("The fleet holds as many workers as it may", 429),
    FleetReason.LEASES_FULL: ("As many leases are live as may be", 429),
    FleetReason.STORM: ("New leases are frozen: too many quarantines", 409),
    FleetReason.FROZEN: ("An operator froze new leases", 409),
    FleetReason.ALREADY_FROZEN: ("An operator froze that already", 409),
    FleetReason.NOT_FROZEN: ("That is not frozen", 409),
    FleetReason.LEASE_INVALID: ("The lease request is invalid", 400),
    FleetReason.NO_WORKER: ("The worker may not take this lease", 409),
    FleetReason.REATTESTATION_DEMANDED: ("New evidence is demanded of the worker first", 409),
    FleetReason.BINDING_STALE: ("The binding to the proxy must be proved again", 409),
    FleetReason.DRAINING: ("The worker takes no new leases", 409),
    FleetReason.NO_GRANT: ("No grant for this run", 403),
    FleetReason.GRANT_SPENT: ("The grant is spent, withdrawn or over", 403),
    FleetReason.RUN_LEASED: ("The run has a live lease", 409),
    FleetReason.LEASE_UNKNOWN: ("No such lease", 404),
    FleetReason.STALE_FENCE: ("The fence is stale", 409),
    FleetReason.LEASE_ENDED: ("The lease has ended", 409),
    FleetReason.OFFER_ENDED: ("The offer has ended, or is another worker's", 409),
    FleetReason.RUN_OFFERED: ("The run is offered to another worker", 409),
    FleetReason.OFFER_UNKNOWN: ("No such offer is known", 404),
    FleetReason.GRANT_UNKNOWN: ("No such grant", 404),
    FleetReason.RULE_LIMIT: ("The approval rule gives no more for now", 429),
    FleetReason.JOIN_UNKNOWN: ("No such join token", 404),
    FleetReason.ENROLMENT_CONFLICT: ("The name or key is enrolled otherwise", 409),
    FleetReason.ENROLMENT_UNKNOWN: ("No such enrolment", 404),
    FleetReason.EVIDENCE_PROXY_UNKNOWN: ("The proxy is not enrolled", 403),
    FleetReason.EVIDENCE_SIGNATURE: ("The evidence is not this proxy's", 403),
    FleetReason.EVIDENCE_FOREIGN: ("The evidence names another proxy", 403),
    FleetReason.EVIDENCE_REORDERED: ("The evidence's number was used before", 409),
    FleetReason.EVIDENCE_GAP: ("Evidence before this one is missing", 409),
    FleetReason.EVIDENCE_CHAIN: ("The evidence does not follow the one before", 409),
    FleetReason.POLICY_PROXY_UNKNOWN: ("No such proxy is enrolled", 404),
    FleetReason.POLICY_PROXY_SILENT: ("The proxy cannot be asked about its policy now", 503),
    FleetReason.POLICIES_DIFFER: ("The proxies have several policies; say which proxy", 409),
    FleetReason.POLICY_BUSY: ("Too many questions wait for this proxy", 429),
    FleetReason.POLICY_OTHER: ("The answer is not about the policy in force", 409),
    FleetReason.QUESTION_UNKNOWN: ("Nobody waits for an answer to this question", 404),
    FleetReason.PRINCIPAL_UNKNOWN: ("No such principal", 404),
    FleetReason.PRINCIPAL_REFUSED: ("The principals cannot be changed like this", 409),
    FleetReason.SNAPSHOT_BUSY: ("A snapshot is being saved, or was just now", 429),
    FleetReason.SNAPSHOTS_FULL: ("There is no room for another snapshot", 409),
    FleetReason.STORE_UNAVAILABLE: ("The store cannot make the decision durable", 503),
    FleetReason.STATE_UNUSABLE: ("The stored state is missing or damaged", 503),
    FleetReason.CHAIN_BROKEN: ("The event log does not verify", 500),
    FleetReason.CLOSED: ("The fleet is shutting down", 503),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal as a value."""

    reason: FleetReason
    text: str


class FleetRefusal(Exception):
    """A refusal on its way to the caller. `str()` is the text."""

    def __init__(self, reason: FleetReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text

    @classmethod
    def of(cls, refusal: Refusal) -> "FleetRefusal":
        return cls(refusal.reason, refusal.text)


def worker_unknown(worker_id: str) -> Refusal:
    return Refusal(FleetReason.WORKER_UNKNOWN, f"worker '{worker_id}' is not registered")


def worker_already_registered(worker_id: str) -> Refusal:
    return Refusal(FleetReason.WORKER_EXISTS, f"worker '{worker_id}' is already registered")


def no_attested_worker() -> Refusal:
    text = "no attested worker is available for the requested capabilities"
    return Refusal(FleetReason.NO_WORKER, text)


def lease_request_invalid(why: str) -> Refusal:
    return Refusal(FleetReason.LEASE_INVALID, f"worker lease request is invalid: {why}")
