"""No attestation, lease, renewal or grant outlasts the certificate that a worker is known by."""

from dataclasses import replace

import pytest

from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.auditor import audit
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason
from tests.fakes.ledger_world import FAR_UNIX_MS, LedgerWorld, attested, refused, ulid

W1 = ulid(1)
NOW = 2_000
END = NOW + 10_000


def known_until(end: int | None) -> LedgerWorld:
    world = LedgerWorld()
    world.do(world.manager.register(replace(attested(W1), known_until_unix_ms=end), NOW))
    return world


def held(world: LedgerWorld) -> WorkerLease:
    return next(iter(world.manager.state.leases.values()))


@pytest.mark.parametrize(
    ("ttl_ms", "ends"),
    [(9_999, END - 1), (10_000, END), (10_001, END), (600_000, END)],
    ids=["before", "at the very end", "one millisecond too long", "far too long"],
)
def test_a_lease_ends_with_the_certificate_to_the_millisecond(ttl_ms: int, ends: int) -> None:
    world = known_until(END)
    assert world.lease(W1, "run-1", NOW, ttl_ms).expires_at_unix_ms == ends


def test_a_renewal_goes_to_the_end_of_the_certificate_and_no_further() -> None:
    world = known_until(END)
    lease = world.lease(W1, "run-1", NOW, 1_000)
    for now in (NOW + 500, NOW + 9_000):
        world.do(world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, 60_000, now))
        assert held(world).expires_at_unix_ms == END


def test_a_renewed_certificate_carries_the_lease_on_with_new_evidence() -> None:
    world = known_until(END)
    lease = world.lease(W1, "run-1", NOW, 60_000)
    newer = replace(attested(W1, now_unix_ms=NOW + 5_000), known_until_unix_ms=END + 20_000)
    world.do(world.manager.register(newer, NOW + 5_000, continues=True))
    world.do(world.manager.renew_lease(W1, 2, lease.lease_id, lease.fence, 60_000, NOW + 5_000))
    assert held(world).expires_at_unix_ms == END + 20_000


def test_new_evidence_with_a_certificate_that_ends_sooner_shortens_the_lease() -> None:
    world = known_until(END)
    world.lease(W1, "run-1", NOW, 60_000)
    sooner = replace(attested(W1, now_unix_ms=NOW + 1), known_until_unix_ms=END - 5_000)
    world.do(world.manager.register(sooner, NOW + 1, continues=True))
    assert held(world).expires_at_unix_ms == END - 5_000


@pytest.mark.parametrize(("now", "admitted"), [(END - 1, True), (END, False), (END + 1, False)])
def test_who_is_known_by_what_has_ended_is_not_admitted(now: int, admitted: bool) -> None:
    world = LedgerWorld()
    result = replace(attested(W1, now_unix_ms=now), known_until_unix_ms=END)
    outcome = world.manager.register(result, now)
    if admitted:
        world.do(outcome)
    else:
        assert refused(outcome) is FleetReason.ATTESTATION_EXPIRED


def approved(world: LedgerWorld, worker_id: str | None, until: int) -> int:
    grant = WorkerApprovalGrant(
        ulid(9), "run-1", "tool", "who", "profile", until, "alice", worker_id=worker_id
    )
    world.do(world.manager.create_grant(grant, "alice", NOW))
    return world.manager.state.grants[ulid(9)].expires_at_unix_ms


def test_an_approval_that_names_a_worker_ends_with_its_certificate() -> None:
    assert approved(known_until(END), W1, END - 1) == END - 1
    assert approved(known_until(END), W1, END + 1) == END
    assert approved(known_until(None), W1, FAR_UNIX_MS) == FAR_UNIX_MS
    assert approved(known_until(END), None, FAR_UNIX_MS) == FAR_UNIX_MS  # each lease ends in time


def test_the_auditor_sees_an_attestation_that_outlasts_the_certificate() -> None:
    world = known_until(END)
    worker = world.worker(W1)
    proof = replace(worker.proof, attested_until_unix_ms=END + 1)
    policy = WorkerFleetPolicy()
    assert audit(world.manager.state, policy) == ()
    world.manager.state.workers[W1] = replace(worker, proof=proof)
    told = audit(world.manager.state, policy)
    assert told == (f"5: worker {W1} is attested for longer than what it is known by",)


def test_a_manager_without_a_certificate_end_caps_by_the_evidence_alone() -> None:
    world = LedgerWorld(WorkerFleetManager(WorkerFleetPolicy(lease_max_ms=60_000)))
    world.register(W1, NOW)
    assert world.lease(W1, "run-1", NOW, 60_000).expires_at_unix_ms == NOW + 60_000
