"""A new approval is fresh: unspent, for one use, ending after now. Mutation found that missing."""

import pytest

from palyra_fleet.leases.records import WorkerApprovalGrant
from palyra_fleet.refusals import FleetReason
from tests.fakes.ledger_world import LedgerWorld, refused, ulid

NOW = 2_000


def _grant(**changes: object) -> WorkerApprovalGrant:
    facts = {"grant_id": ulid(1), "expires_at_unix_ms": NOW + 1, "max_uses": 1, "uses": 0}
    return WorkerApprovalGrant(
        run_id="run-1",
        tool_name="tool",
        principal="who",
        egress_profile="profile",
        approved_by="alice",
        **(facts | changes),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at_unix_ms": NOW},
        {"withdrawn": True},
        {"max_uses": 2},
        {"max_uses": 2, "uses": 1},
        {"uses": 1},
        {"uses": -1},
        {"max_uses": 0},
    ],
)
def test_an_approval_that_is_not_fresh_is_not_recorded(changes: dict[str, object]) -> None:
    world = LedgerWorld()
    outcome = world.manager.create_grant(_grant(**changes), "alice", NOW)
    assert refused(outcome) is FleetReason.COMMAND_INVALID


def test_one_that_ends_in_the_next_millisecond_is() -> None:
    world = LedgerWorld()
    world.do(world.manager.create_grant(_grant(), "alice", NOW))
    assert list(world.manager.state.grants) == [ulid(1)]


@pytest.mark.parametrize("read_only", [True, False])
def test_the_log_says_of_an_approval_whether_it_lets_only_read(read_only: bool) -> None:
    world = LedgerWorld()
    decision = world.do(world.manager.create_grant(_grant(read_only=read_only), "alice", NOW))
    assert ("read_only" in decision.events[0].detail) is read_only


def test_an_approval_is_taken_back_once_and_ends_only_its_own_lease() -> None:
    world = LedgerWorld()
    world.register(ulid(5))
    lease = world.lease(ulid(5), "run-1", NOW)
    other = world.grant("run-1", NOW)
    grant = world.manager.state.grants[other]
    world.do(world.manager.withdraw_grant(grant, "alice", "why", NOW))
    assert world.manager.state.live_lease_of(ulid(5)) == lease
    again = world.manager.withdraw_grant(
        WorkerApprovalGrant(
            other, "run-1", "tool", "who", "profile", NOW + 9, "alice", withdrawn=True
        ),
        "alice",
        "why",
        NOW,
    )
    assert refused(again) is FleetReason.COMMAND_INVALID


def test_a_spent_approval_that_is_taken_back_ends_its_lease() -> None:
    world = LedgerWorld()
    world.register(ulid(5))
    lease = world.lease(ulid(5), "run-1", NOW)
    spent = _grant(grant_id=lease.grant_id, uses=1)
    world.do(world.manager.withdraw_grant(spent, "alice", "why", NOW))
    assert world.manager.state.live_lease_of(ulid(5)) is None


def test_an_approval_whose_run_has_no_lease_is_taken_back_too() -> None:
    world = LedgerWorld()
    grant = world.manager.state.grants[world.grant("run-1", NOW)]
    world.do(world.manager.withdraw_grant(grant, "alice", "why", NOW))
    assert world.manager.state.grants == {}
