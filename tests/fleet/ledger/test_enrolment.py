"""Launchers, proxies, reference values: given once, taken back for good, with who rests on them."""

from dataclasses import replace

import pytest

from palyra_fleet.ledger import enrolment
from palyra_fleet.ledger.decision import Decision, EnrolledKey, ReferenceValue
from palyra_fleet.ledger.facts import Work
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.keys import thumbprint_sha256
from tests.fakes.ledger_world import LedgerWorld, attested, key_of, ulid

A, B = ulid(101), ulid(102)
DEVICE = ulid(9)
LAUNCHER = EnrolledKey("launcher", "launcher-1", key_of("launcher"))
PROXY = EnrolledKey("proxy", "proxy-1", key_of("proxy"), device_id=DEVICE)


def world_with(*keys: EnrolledKey) -> LedgerWorld:
    world = LedgerWorld()
    for key in keys:
        world.do(enrolment.enrol(world.manager.state, key, "alice", 1_000))
    return world


def reason_of(outcome: Decision | Refusal) -> FleetReason:
    assert isinstance(outcome, Refusal), outcome
    return outcome.reason


def test_enrolling_the_same_again_changes_nothing() -> None:
    world = world_with(LAUNCHER, PROXY)
    for key in (LAUNCHER, PROXY):
        again = enrolment.enrol(world.manager.state, key, "alice", 2_000)
        assert isinstance(again, Decision) and not again.durable


@pytest.mark.parametrize(
    "other",
    [
        replace(LAUNCHER, public_key=key_of("another")),
        replace(LAUNCHER, name="launcher-2"),
        replace(LAUNCHER, kind="proxy", name="proxy-2"),
        replace(LAUNCHER, device_id=DEVICE),
        replace(PROXY, name="proxy-2", public_key=key_of("another")),
    ],
    ids=["name taken", "key taken", "key of another kind", "moved to a device", "device taken"],
)
def test_a_name_a_key_and_a_device_are_enrolled_once(other: EnrolledKey) -> None:
    world = world_with(LAUNCHER, PROXY)
    outcome = enrolment.enrol(world.manager.state, other, "alice", 2_000)
    assert reason_of(outcome) is FleetReason.ENROLMENT_CONFLICT


def test_what_was_taken_back_never_comes_again_and_is_taken_back_once() -> None:
    world = world_with(LAUNCHER)
    state = world.manager.state
    world.do(enrolment.take_back(state, "launcher", "launcher-1", "alice", "lost", 2_000))
    for key in (LAUNCHER, replace(LAUNCHER, name="launcher-2")):
        outcome = enrolment.enrol(state, key, "alice", 3_000)
        assert reason_of(outcome) is FleetReason.ENROLMENT_CONFLICT
    again = enrolment.take_back(state, "launcher", "launcher-1", "alice", "lost", 3_000)
    assert reason_of(again) is FleetReason.ENROLMENT_UNKNOWN
    unknown = enrolment.take_back(state, "proxy", "launcher-1", "alice", "lost", 3_000)
    assert reason_of(unknown) is FleetReason.ENROLMENT_UNKNOWN


def test_a_device_whose_proxy_was_taken_back_may_be_another_proxy() -> None:
    world = world_with(PROXY)
    world.do(enrolment.take_back(world.manager.state, "proxy", PROXY.name, "alice", "lost", 2_000))
    other = replace(PROXY, name="proxy-2", public_key=key_of("another"))
    world.do(enrolment.enrol(world.manager.state, other, "alice", 3_000))
    assert not world.manager.state.enrolled["proxy", "proxy-2"].revoked


def two_workers(world: LedgerWorld, **of_a: str | None) -> None:
    """`A` with these fields of its evidence, `B` with everything else; both hold a lease."""
    other = {
        "launcher_sha256": None,
        "evidence_kind": "join_token",
        "binding_proxy_id": "proxy-9",
        "device_id": ulid(8),
        "artifact_digest_sha256": "9" * 64,
    }
    for worker_id, changes in ((A, of_a), (B, other)):
        result = replace(attested(worker_id), **changes)  # type: ignore[arg-type]
        world.do(world.manager.register(result, 2_000))
        world.lease(worker_id, f"run-{worker_id}", 3_000)


def assert_only_a_must_attest_anew(world: LedgerWorld, at_unix_ms: int) -> None:
    state = world.manager.state
    assert state.live_lease_of(A) is None and state.live_lease_of(B) is not None
    assert state.workers[A].proof.attested_until_unix_ms == at_unix_ms
    assert state.workers[A].work is Work.ORPHANED
    assert state.workers[B].proof.attested_until_unix_ms > at_unix_ms


@pytest.mark.parametrize("told", [thumbprint_sha256(LAUNCHER.public_key), None])
def test_a_launchers_workers_go_with_it_and_so_do_those_whose_launcher_is_not_known(
    told: str | None,
) -> None:
    world = world_with(LAUNCHER)
    two_workers(world, launcher_sha256=told)
    state = world.manager.state
    decision = world.do(enrolment.take_back(state, "launcher", LAUNCHER.name, "al", "lost", 4_000))
    assert_only_a_must_attest_anew(world, 4_000)
    reasons = [event.reason.value for event in decision.events]
    assert reasons == [
        "fleet.launcher_revoked",
        "worker.lease_revoked",
        "worker.attestation_ended",
    ]
    assert [(one.worker_id, one.kind.value) for one in decision.notices] == [(A, "stop_lease")]


def test_workers_with_provenance_go_with_the_launcher_that_signed_for_them() -> None:
    world = world_with(LAUNCHER)
    signer = thumbprint_sha256(LAUNCHER.public_key)
    two_workers(world, launcher_sha256=signer, evidence_kind="oci_dsse")
    state = world.manager.state
    world.do(enrolment.take_back(state, "launcher", LAUNCHER.name, "al", "lost", 4_000))
    assert_only_a_must_attest_anew(world, 4_000)


def test_who_is_known_to_be_another_launchers_stays() -> None:
    world = world_with(LAUNCHER)
    two_workers(world, launcher_sha256="e" * 64)
    state = world.manager.state
    decision = enrolment.take_back(state, "launcher", LAUNCHER.name, "al", "lost", 4_000)
    assert [event.reason.value for event in world.do(decision).events] == ["fleet.launcher_revoked"]


def expired(world: LedgerWorld, at_unix_ms: int) -> list[str | None]:
    """Whose evidence ends with the launcher that every worker of the world is taken to rest on."""
    state = world.manager.state
    told = enrolment.take_back(state, "launcher", LAUNCHER.name, "alice", "lost", at_unix_ms)
    events = world.do(told).events
    return [one.worker_id for one in events if one.reason.value == "worker.attestation_ended"]


def test_evidence_of_a_worker_without_a_lease_ends_and_what_has_ended_does_not_end_again() -> None:
    for until_unix_ms, ends in ((4_001, [A]), (4_000, []), (3_999, [])):
        world = world_with(LAUNCHER)
        world.do(world.manager.register(attested(A, until_unix_ms=until_unix_ms), 2_000))
        assert expired(world, 4_000) == ends


@pytest.mark.parametrize("rests", [True, False])
def test_candidate_evidence_goes_if_it_rests_on_what_was_taken_back(rests: bool) -> None:
    world = world_with(LAUNCHER)
    elsewhere = {"launcher_sha256": "e" * 64}
    of_candidate = {} if rests else elsewhere
    world.do(world.manager.register(replace(attested(A), **elsewhere), 2_000))  # type: ignore[arg-type]
    world.do(world.manager.quarantine(A, "alice", "why", 2_000))
    candidate = replace(attested(A, "newer"), **of_candidate)  # type: ignore[arg-type]
    world.do(world.manager.register(candidate, 2_000))
    assert expired(world, 4_000) == ([A] if rests else [])
    assert (world.worker(A).candidate is None) is rests


def test_a_proxys_workers_go_with_it() -> None:
    world = world_with(PROXY)
    two_workers(world, binding_proxy_id="proxy-1", launcher_sha256="e" * 64)
    state = world.manager.state
    world.do(enrolment.take_back(state, "proxy", "proxy-1", "alice", "lost", 4_000))
    assert_only_a_must_attest_anew(world, 4_000)
    assert state.enrolled["proxy", "proxy-1"].revoked_at_unix_ms == 4_000


def test_a_device_takes_its_enrolments_and_its_workers_with_it() -> None:
    world = world_with(LAUNCHER, PROXY)
    two_workers(world, device_id=DEVICE, launcher_sha256="e" * 64, binding_proxy_id="proxy-2")
    assert enrolment.devices_named(world.manager.state) == {DEVICE, ulid(8)}
    world.do(enrolment.device_gone(world.manager.state, DEVICE, "device:x", "stolen", 4_000))
    assert_only_a_must_attest_anew(world, 4_000)
    state = world.manager.state
    assert state.enrolled["proxy", "proxy-1"].revoked
    assert not state.enrolled["launcher", "launcher-1"].revoked


def test_a_device_is_named_by_what_is_trusted_and_takes_nothing_back_twice() -> None:
    world = world_with(PROXY)
    state = world.manager.state
    assert enrolment.devices_named(state) == {DEVICE}
    world.do(enrolment.take_back(state, "proxy", PROXY.name, "alice", "lost", 2_000))
    assert enrolment.devices_named(state) == frozenset()
    gone = enrolment.device_gone(state, DEVICE, "alice", "stolen", 3_000)
    assert (gone.records, gone.events) == ((), ())


def test_a_withdrawn_digest_is_accepted_no_more_nor_who_runs_it() -> None:
    world = LedgerWorld()
    state = world.manager.state
    value, stays = ReferenceValue("artifact", "c" * 64), ReferenceValue("image", "a" * 64)
    world.do(Decision(1_000, records=(value, stays)))
    two_workers(world)
    unknown = ReferenceValue("artifact", "d" * 64)
    refused = enrolment.withdraw_references(state, (value, unknown), "alice", "bad", 4_000)
    assert reason_of(refused) is FleetReason.ENROLMENT_UNKNOWN
    assert value in state.references
    nothing = enrolment.withdraw_references(state, (), "alice", "bad", 4_000)
    assert reason_of(nothing) is FleetReason.ENROLMENT_UNKNOWN
    world.do(enrolment.withdraw_references(state, (value,), "alice", "bad", 4_000))
    assert state.references == {stays}
    assert_only_a_must_attest_anew(world, 4_000)


def test_a_workers_key_is_no_launchers_and_no_proxys() -> None:
    world = LedgerWorld()
    world.register(A)
    key = attested(A).public_key
    for of_worker in (replace(LAUNCHER, public_key=key), replace(PROXY, public_key=key)):
        outcome = enrolment.enrol(world.manager.state, of_worker, "alice", 2_000)
        assert reason_of(outcome) is FleetReason.ENROLMENT_CONFLICT


def test_the_log_names_the_device_of_a_key_that_has_one() -> None:
    world = world_with(LAUNCHER, PROXY)
    named = [event.detail.get("device_id") for one in world.decisions for event in one.events]
    assert named == [None, DEVICE]
    assert "device_id" not in world.decisions[0].events[0].detail
