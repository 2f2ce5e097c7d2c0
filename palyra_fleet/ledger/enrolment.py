"""What the fleet trusts besides workers: launchers, proxies and reference values.

A key has one place for ever: what was taken back stays known, so that neither its name nor its key
comes again. Whose evidence rests on what was taken back must attest anew: its lease ends, and
nothing is assigned to it until other evidence came. A key that belongs to a paired device goes with
the device. Pure. Times: Unix ms.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

from palyra_fleet.leases.records import LeaseStatus
from palyra_fleet.ledger.decision import (
    Decision,
    Detail,
    EnrolledKey,
    EventReason,
    LedgerEvent,
    ReferenceValue,
    WithdrawnReference,
)
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import Proof
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.keys import thumbprint_sha256

type Kind = Literal["launcher", "proxy"]

_ENROLLED = {
    "launcher": EventReason.LAUNCHER_ENROLLED,
    "proxy": EventReason.PROXY_ENROLLED,
}
_REVOKED = {
    "launcher": EventReason.LAUNCHER_REVOKED,
    "proxy": EventReason.PROXY_REVOKED,
}


def enrol(state: LedgerState, key: EnrolledKey, actor: str, now_unix_ms: int) -> Decision | Refusal:
    """Trust a key. The same again changes nothing."""
    known = state.enrolled.get((key.kind, key.name))
    same = known is not None and (known.public_key, known.device_id) == (
        key.public_key,
        key.device_id,
    )
    if known is not None and known.revoked:
        text = f"{key.kind} '{key.name}' was taken back; enrol another key under another name"
        return Refusal(FleetReason.ENROLMENT_CONFLICT, text)
    if same:
        return Decision(now_unix_ms)
    thumbprint = thumbprint_sha256(key.public_key)
    of_device = (
        one
        for one in state.enrolled.values()
        if key.device_id is not None and one.device_id == key.device_id and not one.revoked
    )
    taken = (
        known is not None
        or any(one.public_key == key.public_key for one in state.enrolled.values())
        or thumbprint in state.worker_by_key
    )
    if taken:
        text = f"the name '{key.name}' or this key is enrolled otherwise"
        return Refusal(FleetReason.ENROLMENT_CONFLICT, text)
    if any(of_device):
        text = "this device is enrolled under another name"
        return Refusal(FleetReason.ENROLMENT_CONFLICT, text)
    detail: Detail = {"name": key.name, "key_sha256": thumbprint}
    if key.device_id is not None:
        detail = {**detail, "device_id": key.device_id}
    event = LedgerEvent(_ENROLLED[key.kind], actor, detail=detail)
    return Decision(now_unix_ms, records=(key,), events=(event,))


def take_back(
    state: LedgerState, kind: Kind, name: str, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """Trust this launcher or proxy no more, and nobody's evidence that rests on it."""
    key = state.enrolled.get((kind, name))
    if key is None or key.revoked:
        return Refusal(FleetReason.ENROLMENT_UNKNOWN, f"there is no enrolled {kind} '{name}'")
    draft = Draft(state, now_unix_ms, actor)
    _take_back(draft, key, why)
    return draft.finish()


def withdraw_references(
    state: LedgerState,
    values: Iterable[ReferenceValue],
    actor: str,
    why: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Accept these digests no more, and nobody who runs what they describe."""
    wanted = tuple(dict.fromkeys(values))
    unknown = [one for one in wanted if one not in state.references]
    if unknown or not wanted:
        text = f"{len(unknown)} of {len(wanted)} digests are no reference values; nothing was done"
        return Refusal(FleetReason.ENROLMENT_UNKNOWN, text)
    draft = Draft(state, now_unix_ms, actor)
    for value in wanted:
        draft.put(WithdrawnReference(value.digest_field, value.digest_sha256))
        detail: Detail = {
            "field": value.digest_field,
            "digest_sha256": value.digest_sha256,
            "why": why,
        }
        draft.event(EventReason.REFERENCES_WITHDRAWN, None, None, detail)
    gone = {(one.digest_field, one.digest_sha256) for one in wanted}
    _expire(draft, lambda proof: bool(gone & digests_of(proof)), "a reference value was withdrawn")
    return draft.finish()


def device_gone(
    state: LedgerState, device_id: str, actor: str, why: str, now_unix_ms: int
) -> Decision:
    """A paired device is no more: what it was enrolled as goes with it, and its workers."""
    draft = Draft(state, now_unix_ms, actor)
    for key in state.enrolled.values():
        if key.device_id == device_id and not key.revoked:
            _take_back(draft, key, why)
    _expire(draft, lambda proof: proof.device_id == device_id, "its device was revoked")
    return draft.finish()


def devices_named(state: LedgerState) -> frozenset[str]:
    """Every device that something the fleet still trusts belongs to."""
    keys = {key.device_id for key in state.enrolled.values() if not key.revoked}
    workers = {worker.proof.device_id for worker in state.workers.values()}
    return frozenset(one for one in keys | workers if one is not None)


def _take_back(draft: Draft, key: EnrolledKey, why: str) -> None:
    draft.put(replace(key, revoked_at_unix_ms=draft.now_unix_ms))
    thumbprint = thumbprint_sha256(key.public_key)
    detail: Detail = {"name": key.name, "key_sha256": thumbprint, "why": why}
    draft.event(_REVOKED[key.kind], None, None, detail)
    if key.kind == "proxy":
        _expire(draft, lambda proof: proof.binding_proxy_id == key.name, "its proxy was taken back")
    else:
        _expire(draft, lambda proof: _launched_by(proof, thumbprint), "its launcher was taken back")


def _launched_by(proof: Proof, thumbprint: str) -> bool:
    """Whether a launcher signed the evidence, alone or with provenance behind it. Who vouched is
    not known of evidence that an older release took: it counts as this one's."""
    unknown = proof.launcher_sha256 is None and proof.evidence_kind == "launcher"
    return unknown or proof.launcher_sha256 == thumbprint


def _expire(draft: Draft, rests: Callable[[Proof], bool], why: str) -> None:
    """End what rests on such evidence: the attestation, and a lease."""
    for worker_id in draft.state.workers:
        worker = draft.worker(worker_id)
        candidate = worker.candidate
        if candidate is not None and rests(candidate):
            draft.put_worker(replace(worker, candidate=None))
            draft.event(EventReason.ATTESTATION_ENDED, worker_id, None, {"why": why})
            worker = draft.worker(worker_id)
        if not rests(worker.proof):
            continue
        lease = draft.live_lease_of(worker_id)
        if lease is not None:
            draft.end_lease(lease, LeaseStatus.REVOKED, EventReason.LEASE_REVOKED, why)
            worker = draft.worker(worker_id)
        if worker.proof.attested_until_unix_ms > draft.now_unix_ms:
            proof = replace(worker.proof, attested_until_unix_ms=draft.now_unix_ms)
            draft.put_worker(replace(worker, proof=proof))
            draft.event(EventReason.ATTESTATION_ENDED, worker_id, None, {"why": why})


def digests_of(proof: Proof) -> set[tuple[str, str | None]]:
    """What a worker was measured as, by field."""
    return {
        ("image", proof.image_digest_sha256),
        ("build", proof.build_digest_sha256),
        ("artifact", proof.artifact_digest_sha256),
    }
