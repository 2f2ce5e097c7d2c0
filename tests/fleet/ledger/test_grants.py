"""A new approval is fresh: unspent, for one use, ending after now. Mutation found that missing."""

import pytest

from palyra_fleet.leases.records import WorkerApprovalGrant
from palyra_fleet.refusals import FleetReason
from tests.fakes.ledger_world import LedgerWorld, refused, ulid

NOW = 2_000


def _grant(**changes: object) -> WorkerApprovalGrant:
    facts = {"expires_at_unix_ms": NOW + 1, "max_uses": 1, "uses": 0, "withdrawn": False}
    return WorkerApprovalGrant(
        ulid(1), "run-1", "tool", "who", "profile", approved_by="alice", **(facts | changes)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at_unix_ms": NOW},
        {"withdrawn": True},
        {"max_uses": 2},
        {"max_uses": 2, "uses": 1},
        {"uses": 1},
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
