"""A lease takes a binding that was proved just now, under the policy its proxy has in force."""

from dataclasses import replace

import pytest

from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason
from tests.fakes.ledger_world import LedgerWorld, attested, refused, ulid

W1 = ulid(1)
NOW = 2_000
FRESH_MS = WorkerFleetPolicy().lease_binding_max_age_ms


def bound() -> LedgerWorld:
    world = LedgerWorld(WorkerFleetManager(WorkerFleetPolicy(heartbeat_timeout_ms=10**9)))
    world.register(W1, NOW)
    world.grant("run-1", NOW)
    return world


def test_a_receipt_is_fresh_for_a_minute_to_the_millisecond() -> None:
    world = bound()
    late = world.ask(W1, "run-1", NOW + FRESH_MS)
    assert refused(late) is FleetReason.BINDING_STALE
    world.do(world.ask(W1, "run-1", NOW + FRESH_MS - 1))


def test_a_new_policy_of_the_proxy_makes_every_receipt_from_before_it_stale() -> None:
    world = bound()
    world.do(world.manager.hear_policy("proxy-1", "another policy", NOW + 1))
    assert refused(world.ask(W1, "run-1", NOW + 2)) is FleetReason.BINDING_STALE
    again = replace(attested(W1, now_unix_ms=NOW + 3), binding_policy_digest="another policy")
    world.do(world.manager.register(again, NOW + 3))
    world.do(world.ask(W1, "run-1", NOW + 3))


def test_another_proxys_word_says_nothing_of_this_one() -> None:
    world = bound()
    world.do(world.manager.hear_policy("proxy-2", "another policy", NOW + 1))
    world.do(world.ask(W1, "run-1", NOW + 2))


def test_a_receipt_from_before_a_proxys_last_word_does_not_take_that_word_back() -> None:
    world = bound()
    world.do(world.manager.hear_policy("proxy-1", "another policy", NOW + 10))
    world.do(world.manager.register(attested(W1, now_unix_ms=NOW + 9), NOW + 11))
    assert refused(world.ask(W1, "run-1", NOW + 11)) is FleetReason.BINDING_STALE


@pytest.mark.parametrize("digest", ["", "policy"], ids=["no policy named", "one named"])
def test_a_receipt_that_names_no_policy_gives_no_lease(digest: str) -> None:
    world = bound()
    unnamed = replace(attested(W1, now_unix_ms=NOW), binding_policy_digest=digest)
    world.do(world.manager.register(unnamed, NOW))
    outcome = world.ask(W1, "run-1", NOW)
    if digest:
        world.do(outcome)
    else:
        assert refused(outcome) is FleetReason.BINDING_STALE


def test_after_a_start_nobody_is_bound_until_the_proxy_speaks() -> None:
    world = bound()
    records = (world.worker(W1), *world.manager.state.grants.values())
    started = WorkerFleetManager(world.manager.policy)
    started.state.load(records, 0, NOW, 10**9)
    world.manager = started
    assert refused(world.ask(W1, "run-1", NOW)) is FleetReason.BINDING_STALE
    world.do(started.hear_policy("proxy-1", "policy", NOW))
    world.do(world.ask(W1, "run-1", NOW))


def test_what_proxies_said_is_kept_when_memory_is_read_again() -> None:
    world = bound()
    records = (world.worker(W1), *world.manager.state.grants.values())
    world.manager.reload(records, 0, NOW)
    world.do(world.ask(W1, "run-1", NOW))


def test_a_renewal_takes_no_new_receipt() -> None:
    world = bound()
    world.do(world.ask(W1, "run-1", NOW, 2 * FRESH_MS))
    lease = next(iter(world.manager.state.leases.values()))
    world.do(world.manager.hear_policy("proxy-1", "another policy", NOW + 1))
    later = NOW + FRESH_MS + 1
    renewed = world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, None, later)
    world.do(renewed)
    assert world.manager.state.leases[lease.lease_id].expires_at_unix_ms > lease.expires_at_unix_ms
