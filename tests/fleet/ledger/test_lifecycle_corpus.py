"""The `fleet_lifecycle` cases of the shared corpus that a ledger decides, on the real manager.

Those that a proxy, a store or the audit log decides are named one by one in
`tests/conformance/not_ours.py`, with the test that plays each.
"""

import json
from collections.abc import Callable

import pytest

from palyra_fleet.leases.records import LeaseStatus, WorkerLease
from palyra_fleet.ledger.decision import Decision, EventReason
from palyra_fleet.ledger.facts import Admission
from palyra_fleet.refusals import FleetReason, Refusal
from tests.conformance.not_ours import LEDGER_CASES
from tests.fakes.ledger_world import LedgerWorld, reasons, ulid
from tests.fleet.ledger.test_ledger_corpus import CORPORA

W1 = ulid(1001)
FILE = CORPORA / "derived_bypass.jsonl"


def a_lease() -> tuple[LedgerWorld, WorkerLease]:
    world = LedgerWorld()
    world.register(W1)
    return world, world.lease(W1, "run-1", 2_000, ttl_ms=10_000)


def ended(decision: Decision) -> LeaseStatus:
    (lease,) = [record for record in decision.records if isinstance(record, WorkerLease)]
    return lease.status


def an_expired_lease_is_over_for_everything_that_follows(world: LedgerWorld, lease: WorkerLease):
    decision = world.do(world.manager.reap(12_000))
    assert ended(decision) is LeaseStatus.EXPIRED
    assert EventReason.TTL_EXPIRED in reasons(decision)
    again = world.manager.start_lease(W1, 1, lease.lease_id, lease.fence, 12_001)
    assert isinstance(again, Refusal)
    assert again.reason is FleetReason.LEASE_ENDED


def a_renewed_lease_goes_on(world: LedgerWorld, lease: WorkerLease):
    world.do(world.manager.start_lease(W1, 1, lease.lease_id, lease.fence, 3_000))
    world.do(world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, 10_000, 8_000))
    world.do(world.manager.reap(12_000))
    held = world.manager.state.leases[lease.lease_id]
    assert (held.status, held.expires_at_unix_ms) == (LeaseStatus.BUSY, 18_000)


def a_worker_without_heartbeat_loses_its_lease_and_it_is_told(
    world: LedgerWorld, lease: WorkerLease
):
    silent = lease.expires_at_unix_ms - 1
    deadline = world.manager.state.beats[W1].deadline_unix_ms
    longer = world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, 600_000, silent)
    world.do(longer)
    decision = world.do(world.manager.reap(deadline + 1))
    assert EventReason.HEARTBEAT_STALE in reasons(decision)
    assert ended(decision) is LeaseStatus.ORPHANED


def a_quarantined_worker_is_not_forgotten_to_make_room(world: LedgerWorld, lease: WorkerLease):
    world.do(world.manager.quarantine(W1, "alice", "tried a private target", 3_000))
    refused = world.manager.evict(W1, "alice", "to make room", 3_001)
    assert isinstance(refused, Refusal)
    for number in range(200):
        world.register(ulid(2_000 + number), 3_002)
    assert world.worker(W1).admission is Admission.QUARANTINED
    assert lease.lease_id not in world.manager.state.leases


def a_clock_that_jumps_back_an_hour_lengthens_no_lease(world: LedgerWorld, lease: WorkerLease):
    world.do(world.manager.reap(12_000))
    assert world.manager.effective_now(12_000 - 3_600_000) == 12_000
    late = world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, 10_000, 12_000 - 3_600_000)
    assert isinstance(late, Refusal)
    assert late.reason is FleetReason.LEASE_ENDED


RUN: dict[str, Callable[[LedgerWorld, WorkerLease], None]] = {
    "dv-life-005": an_expired_lease_is_over_for_everything_that_follows,
    "dv-life-007": a_renewed_lease_goes_on,
    "dv-life-011": a_worker_without_heartbeat_loses_its_lease_and_it_is_told,
    "dv-life-023": a_quarantined_worker_is_not_forgotten_to_make_room,
    "dv-life-026": a_clock_that_jumps_back_an_hour_lengthens_no_lease,
}


@pytest.mark.parametrize("case", list(RUN))
def test_a_lifecycle_case_of_the_corpus_ends_as_expected(case: str) -> None:
    RUN[case](*a_lease())


def test_every_case_that_is_left_to_the_ledger_is_played_here() -> None:
    assert set(RUN) == set(LEDGER_CASES)
    if FILE.exists():
        rows = [json.loads(line) for line in FILE.read_text().splitlines()]
        assert set(RUN) <= {row["id"] for row in rows if row["kind"] == "fleet_lifecycle"}
