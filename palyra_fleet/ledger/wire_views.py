"""Ledger records as operators and workers see them on the wire, and artifacts as they send them.

The one place that builds these models, so that every listing shows a record the same way. Neither
secrets nor their digests pass here. Pure. Times: Unix ms.
"""

from palyra_fleet.leases.artifacts import Artifact, ArtifactTransport, CarriedArtifacts
from palyra_fleet.leases.offers import Offer, PlacementOrder
from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import EnrolledKey
from palyra_fleet.ledger.facts import EvidenceDemand, WorkerRecord, lifecycle_state
from palyra_fleet.wire.enrolment_models import EnrolmentView
from palyra_fleet.wire.keys import thumbprint_sha256
from palyra_fleet.wire.lease_models import LeaseView
from palyra_fleet.wire.models import (
    ArtifactModel,
    ArtifactTransportModel,
    CleanupReport,
    EvidenceDemanded,
    EvidenceDemandView,
    GrantView,
    LeaseState,
    WorkerView,
)
from palyra_fleet.wire.placement_models import OfferModel, OfferView, PlaceRequest
from palyra_fleet.wire.release_models import ReleaseRequestView


def worker_view(worker: WorkerRecord, lease: WorkerLease | None, now_unix_ms: int) -> WorkerView:
    confined = worker.quarantine
    return WorkerView(
        worker_id=worker.worker_id,
        state=lifecycle_state(worker, now_unix_ms).value,
        admission=worker.admission.value,
        eligibility=worker.eligibility.value,
        liveness=worker.liveness.value,
        work=worker.work.value,
        attestation_epoch=worker.attestation_epoch,
        session_epoch=worker.session_epoch,
        attested_until_unix_ms=worker.proof.attested_until_unix_ms,
        key_sha256=worker.proof.key_sha256,
        artifact_digest_sha256=worker.proof.artifact_digest_sha256,
        attestor=worker.proof.evidence_kind,
        capabilities=tuple(sorted(worker.proof.capabilities)),
        labels=dict(worker.labels),
        binding_proxy_id=worker.proof.binding_proxy_id,
        binding_level=worker.proof.binding_level.name.lower(),
        lease_id=None if lease is None else lease.lease_id,
        run_id=None if lease is None else lease.run_id,
        fence=None if lease is None else lease.fence,
        quarantine_reason=None if confined is None else confined.reason,
        quarantined_at_unix_ms=None if confined is None else confined.at_unix_ms,
        quarantine_evidence_sha256=None if confined is None else confined.evidence_sha256,
        quarantine_decision_id=None if confined is None else confined.decision_id,
        demanded=_demand_view(worker.demand),
        drain_deadline_unix_ms=worker.drain_deadline_unix_ms,
    )


def demanded(worker: WorkerRecord) -> EvidenceDemanded | None:
    """What is demanded of the worker, as it is told."""
    demand = worker.demand
    if demand is None:
        return None
    return EvidenceDemanded(new_key=demand.new_key, due_at_unix_ms=demand.due_at_unix_ms)


def _demand_view(demand: EvidenceDemand | None) -> EvidenceDemandView | None:
    if demand is None:
        return None
    return EvidenceDemandView(
        new_key=demand.new_key,
        due_at_unix_ms=demand.due_at_unix_ms,
        asked_by=demand.asked_by,
        why=demand.why,
        asked_at_unix_ms=demand.asked_at_unix_ms,
    )


def release_request_view(worker: WorkerRecord) -> ReleaseRequestView | None:
    """What is asked about this worker, if anything is."""
    request = worker.release_request
    if request is None:
        return None
    return ReleaseRequestView(
        release_id=request.release_id,
        worker_id=worker.worker_id,
        asked_by=request.asked_by,
        why=request.why,
        asked_at_unix_ms=request.asked_at_unix_ms,
        expires_at_unix_ms=request.expires_at_unix_ms,
        quarantine_reason=request.quarantine.reason,
        quarantined_at_unix_ms=request.quarantine.at_unix_ms,
        quarantine_evidence_sha256=request.quarantine.evidence_sha256,
        attestation_epoch=request.attestation_epoch,
        key_sha256=request.key_sha256,
    )


def enrolment_view(key: EnrolledKey, workers: int, standing: str) -> EnrolmentView:
    return EnrolmentView(
        kind=key.kind,
        name=key.name,
        key_sha256=thumbprint_sha256(key.public_key),
        standing="revoked" if key.revoked else standing,
        device_id=key.device_id,
        workers=workers,
        evidence_seq=key.seq,
        revoked_at_unix_ms=key.revoked_at_unix_ms,
    )


def grant_view(grant: WorkerApprovalGrant) -> GrantView:
    return GrantView(
        grant_id=grant.grant_id,
        run_id=grant.run_id,
        tool_name=grant.tool_name,
        principal=grant.principal,
        egress_profile=grant.egress_profile,
        expires_at_unix_ms=grant.expires_at_unix_ms,
        approved_by=grant.approved_by,
        uses=grant.uses,
        max_uses=grant.max_uses,
        withdrawn=grant.withdrawn,
        worker_id=grant.worker_id,
        rule_id=None if grant.rule is None else grant.rule.rule_id,
        read_only=grant.read_only,
    )


def lease_view(lease: WorkerLease) -> LeaseView:
    return LeaseView(
        lease_id=lease.lease_id,
        fence=lease.fence,
        worker_id=lease.worker_id,
        run_id=lease.run_id,
        state=lease.status.value,
        egress_profile=lease.egress_profile,
        principal=lease.principal,
        grant_id=lease.grant_id,
        granted_at_unix_ms=lease.granted_at_unix_ms,
        expires_at_unix_ms=lease.expires_at_unix_ms,
        grant_expires_at_unix_ms=lease.grant_expires_at_unix_ms,
        ended_at_unix_ms=lease.ended_at_unix_ms,
    )


def lease_state(lease: WorkerLease) -> LeaseState:
    return LeaseState(
        lease_id=lease.lease_id,
        state=lease.status.value,
        expires_at_unix_ms=lease.expires_at_unix_ms,
    )


def placement_order(asked: PlaceRequest) -> PlacementOrder:
    """What is asked to be placed, as the ledger keeps it."""
    return PlacementOrder(
        run_id=asked.run_id,
        ttl_ms=asked.ttl_ms,
        required_capabilities=asked.required_capabilities,
        read_only=asked.read_only,
        artifact_transport=transport_of(asked.artifact_transport),
    )


def offer_model(offer: Offer) -> OfferModel:
    """An offer as its worker is told of it."""
    return OfferModel.model_validate(_offered(offer))


def offer_view(offer: Offer) -> OfferView:
    return OfferView.model_validate(
        {**_offered(offer), "state": offer.state, "lease_id": offer.lease_id}
    )


def _offered(offer: Offer) -> dict[str, object]:
    order = offer.order
    return dict(
        offer_id=offer.offer_id,
        run_id=order.run_id,
        grant_id=offer.grant_id,
        worker_id=offer.worker_id,
        required_capabilities=order.required_capabilities,
        ttl_ms=order.ttl_ms,
        read_only=order.read_only,
        artifact_transport=_transport_model(order.artifact_transport),
        offered_at_unix_ms=offer.offered_at_unix_ms,
        expires_at_unix_ms=offer.expires_at_unix_ms,
    )


def transport_of(asked: ArtifactTransportModel) -> ArtifactTransport:
    """What a worker asks to have carried, as the ledger keeps it."""
    return ArtifactTransport(_artifacts(asked.inputs), asked.outputs, asked.max_output_bytes)


def _transport_model(transport: ArtifactTransport) -> ArtifactTransportModel:
    return ArtifactTransportModel(
        inputs=tuple(
            ArtifactModel(path=one.path, digest_sha256=one.digest_sha256, size_bytes=one.size_bytes)
            for one in transport.inputs
        ),
        outputs=transport.outputs,
        max_output_bytes=transport.max_output_bytes,
    )


def carried_of(report: CleanupReport) -> CarriedArtifacts:
    """What a worker says was carried, as the ledger checks it."""
    return CarriedArtifacts(_artifacts(report.inputs), _artifacts(report.outputs))


def _artifacts(models: tuple[ArtifactModel, ...]) -> tuple[Artifact, ...]:
    return tuple(Artifact(one.path, one.digest_sha256, one.size_bytes) for one in models)
