"""Judges evidence of a violation: is it this proxy's, next in its chain, about a lease that was?

The chain: `seq` counts 1, 2, 3 … per proxy, and `previous_sha256` is the SHA-256 of the payload
bytes before (64 zeros for the first), so nothing can be left out or reordered unseen. The same
bytes twice answer the same, marked duplicate. A lease that ended meanwhile still counts: it was
bound when it happened. Evidence about a lease that this fleet never gave (its state was restored
from an old backup, or the proxy lies) takes its place in the chain and harms nobody: refusing it
would hold back everything the proxy says after it. Strikes count over all rules of one worker,
within the evidence's own window by the proxies' times. Pure: records come in, a verdict goes out.
Source: specification 20, 4; docs/decisions/0007.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal, assert_never

from pydantic import ValidationError

from palyra_fleet.leases.records import WorkerLease
from palyra_fleet.ledger.decision import EnrolledKey
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.dsse import (
    VIOLATION_TYPE,
    DsseEnvelope,
    EnvelopeRefused,
    VerifiedPayload,
    open_envelope,
)
from palyra_fleet.wire.models import ViolationPayload

type EvidenceOutcome = Literal["quarantined", "already_quarantined", "struck", "recorded"]
type Standing = Literal["free", "confined", "forgotten", "not_bound"]
"""What the fleet can do about the accused: nothing, if it forgot it or never gave that lease."""


@dataclass(frozen=True, slots=True)
class VerifiedEvidence:
    """Evidence whose signature is the proxy's; `sha256` is of the payload bytes."""

    payload: ViolationPayload
    payload_bytes: VerifiedPayload
    sha256: str


def open_violation(proxy: EnrolledKey, envelope: DsseEnvelope) -> VerifiedEvidence | Refusal:
    """Verify and parse. The payload must name the proxy that signed it."""
    try:
        verified = open_envelope(envelope, VIOLATION_TYPE, proxy.public_key)
    except EnvelopeRefused as refused:
        return Refusal(FleetReason.EVIDENCE_SIGNATURE, f"the evidence is refused: {refused}")
    try:
        payload = ViolationPayload.model_validate_json(verified)
    except ValidationError:
        return Refusal(FleetReason.EVIDENCE_SIGNATURE, "the evidence is not well formed")
    if payload.proxy_id != proxy.name:
        text = f"the evidence names proxy '{payload.proxy_id}', not '{proxy.name}'"
        return Refusal(FleetReason.EVIDENCE_FOREIGN, text)
    return VerifiedEvidence(payload, verified, hashlib.sha256(verified).hexdigest())


def chain_refusal(proxy: EnrolledKey, evidence: VerifiedEvidence) -> Refusal | None:
    """Is it the next one? A duplicate must have been answered before this is asked."""
    payload = evidence.payload
    if payload.seq <= proxy.seq:
        text = f"evidence {payload.seq} was received before with other content"
        return Refusal(FleetReason.EVIDENCE_REORDERED, text)
    if payload.seq != proxy.seq + 1:
        text = f"expected evidence {proxy.seq + 1}, got {payload.seq}"
        return Refusal(FleetReason.EVIDENCE_GAP, text)
    if payload.previous_sha256 != proxy.last_sha256:
        text = f"evidence {payload.seq} does not follow the evidence before it"
        return Refusal(FleetReason.EVIDENCE_CHAIN, text)
    return None


def is_bound(payload: ViolationPayload, lease: WorkerLease | None) -> bool:
    """Did this worker ever hold this lease with this fence?"""
    return lease is not None and (lease.worker_id, lease.fence) == (
        payload.worker_id,
        payload.fence,
    )


def weigh(payload: ViolationPayload, worker: Standing, strikes: int) -> EvidenceOutcome:
    """What to do. `strikes` counts earlier ones in the window. A limit of 0 allows no strike."""
    match worker:
        case "forgotten" | "not_bound":
            return "recorded"
        case "confined":
            return "already_quarantined"
        case "free":
            pass
        case _:
            assert_never(worker)
    match payload.consequence:
        case "quarantine":
            return "quarantined"
        case "strike":
            return "quarantined" if strikes + 1 >= payload.strike_limit else "struck"
        case _:
            assert_never(payload.consequence)
