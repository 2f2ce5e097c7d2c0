"""A session that proves itself again: hours of a run on a manual clock, with the real fleet.

Policy times are a minute, so that every end there is comes within a played hour. Three tasks sleep
on the session's clock: heartbeats, proofs, renewals.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from palyra_fleet.client import FleetProblem, WorkerAction
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import GrantRequest, WorkerView, WorkspaceScopeModel
from palyra_fleet.worker.run_settings import RunSettings
from palyra_fleet.worker.runner import run_as_worker
from palyra_fleet.worker.session import WorkerSession
from tests.fakes.manual_time import ManualTime
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fakes.worker_bench import GRANT, RUN_ID

MINUTE_S = 60.0
POLICY = WorkerFleetPolicy(lease_max_ms=60_000, binding_max_age_ms=60_000)
SCOPE = WorkspaceScopeModel(workspace_root="/srv/run", allowed_paths=("/srv/run",))
LONG = GRANT.model_copy(update={"ttl_ms": 24 * 3_600_000})
BEAT_AND_PROVE, ALL_LOOPS = 2, 3


@pytest.fixture
def time() -> ManualTime:
    return ManualTime()


@pytest.fixture
async def fleet(time: ManualTime) -> AsyncIterator[RealFleet]:
    async with real_fleet(POLICY, time) as made:
        yield made


@asynccontextmanager
async def at_work(
    fleet: RealFleet, grant: GrantRequest = LONG, program: str = "/bin/sh"
) -> AsyncIterator[WorkerSession]:
    """A session whose lease is started."""
    measured = await fleet.accept(program)
    await fleet.operator.create_grant(grant)
    async with await WorkerSession.open(fleet.session(), measured) as session:
        await session.take_lease(RUN_ID, SCOPE, 60_000)
        await session.start_lease(60_000)
        yield session


async def events(fleet: RealFleet) -> Counter[str]:
    return Counter(event.reason for event in await fleet.operator.events(limit=1_000))


async def the_worker(fleet: RealFleet) -> WorkerView:
    (worker,) = await fleet.operator.workers()
    return worker


async def test_a_run_far_longer_than_attestation_and_longest_lease_goes_on(
    fleet: RealFleet, time: ManualTime
) -> None:
    async with at_work(fleet) as session:
        await time.play(20 * MINUTE_S, ALL_LOOPS, session.stopped)
        assert not session.stopped.done()
        worker = await the_worker(fleet)
        assert (worker.state, worker.run_id) == ("busy", RUN_ID)
        assert worker.attested_until_unix_ms > time.wall_unix_ms()
    counted = await events(fleet)
    assert counted["worker.registered"] == counted["worker.assigned"] == 1
    assert counted["worker.reattested"] >= 20
    assert counted["worker.lease_renewed"] >= 20
    assert not counted["worker.heartbeat_stale"]
    assert worker.session_epoch == 1 + counted["worker.reattested"]


async def test_a_program_runs_for_hours_and_ends_by_itself(
    fleet: RealFleet, time: ManualTime
) -> None:
    await fleet.accept("/bin/sh")
    await fleet.operator.create_grant(LONG)
    said: list[str] = []
    end = fleet.home / "end"
    script = f"until [ -e {end} ]; do sleep 0.05; done; exit 5"
    settings = RunSettings(
        session=fleet.session(),
        run_id=RUN_ID,
        combined_bundle=fleet.home / "bundle.pem",
        palyra_ca=fleet.home / "ca.pem",
        workspace_parent=fleet.home,
        ttl_ms=60_000,
        proxy_knows_within_ms=5_000,
    )
    run = spawn(run_as_worker(["/bin/sh", "-c", script], settings, said.append), "run")
    await time.play(3 * MINUTE_S, ALL_LOOPS, run)
    end.touch()
    assert (await run, said) == (5, [])
    counted = await events(fleet)
    assert counted["worker.reattested"] >= 3
    assert counted["worker.completed"] == 1
    assert (await the_worker(fleet)).state == "available"


async def test_a_run_ends_with_its_approval(fleet: RealFleet, time: ManualTime) -> None:
    grant = GRANT.model_copy(update={"ttl_ms": 150_000})
    async with at_work(fleet, grant) as session:
        await time.play(10 * MINUTE_S, ALL_LOOPS, session.stopped)
        assert "its approval is over" in session.stopped.result().detail
    assert 140 < time.now_s() < 150


async def goes_away(fleet: RealFleet) -> None:
    fleet.proxy.status = 503


async def speaks_for_itself(fleet: RealFleet) -> None:
    fleet.proxy.key = SigningKey.generate()


async def talks_nonsense(fleet: RealFleet) -> None:
    fleet.proxy.answer_with = b"<html>"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (goes_away, "gave no receipt (status 503)"),
        (talks_nonsense, "sent something else"),
        (speaks_for_itself, "the proxy's receipt is refused: it is not signed by an enrolled"),
    ],
)
async def test_a_worker_that_cannot_prove_itself_again_stops_before_its_attestation_ends(
    fleet: RealFleet,
    time: ManualTime,
    fault: Callable[[RealFleet], Awaitable[None]],
    why: str,
) -> None:
    async with at_work(fleet) as session:
        await time.play(2 * MINUTE_S, ALL_LOOPS, session.stopped)
        assert not session.stopped.done()
        await fault(fleet)
        await time.play(10 * MINUTE_S, ALL_LOOPS, session.stopped)
        stop = session.stopped.result()
        worker = await the_worker(fleet)
        assert stop.kind == "fenced"
        assert stop.detail.startswith("this worker's attestation ended and could not be renewed: ")
        assert why in stop.detail
        left_ms = worker.attested_until_unix_ms - time.wall_unix_ms()
        assert 0 < left_ms <= 2_000


async def test_a_session_without_a_lease_stops_with_its_attestation_too(
    fleet: RealFleet, time: ManualTime
) -> None:
    measured = await fleet.accept("/bin/sh")
    async with await WorkerSession.open(fleet.session(), measured) as session:
        await goes_away(fleet)
        await time.play(10 * MINUTE_S, BEAT_AND_PROVE, session.stopped)
        assert session.stopped.result().kind == "fenced"
    assert 57 < time.now_s() < 60


async def test_a_proxy_that_comes_back_in_time_is_forgiven(
    fleet: RealFleet, time: ManualTime
) -> None:
    async with at_work(fleet) as session:
        await goes_away(fleet)
        await time.play(45.0, ALL_LOOPS, session.stopped)
        asked = fleet.proxy.targets
        assert len(asked) > 3
        fleet.proxy.status = 200
        await time.play(5 * MINUTE_S, ALL_LOOPS, session.stopped)
        assert not session.stopped.done()


async def test_a_program_that_changes_ends_the_run_and_is_not_attested(
    fleet: RealFleet, time: ManualTime
) -> None:
    program = fleet.home / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    async with at_work(fleet, program=str(program)) as session:
        await time.play(2 * MINUTE_S, ALL_LOOPS, session.stopped)
        proofs = (await events(fleet))["worker.reattested"]
        program.write_text("#!/bin/sh\nexit 66\n")
        await time.play(4 * MINUTE_S, ALL_LOOPS, session.stopped)
        stop = session.stopped.result()
        assert stop.kind == "program_changed"
        assert stop.detail == f"{program} changed after it was measured"
        assert (await events(fleet))["worker.reattested"] == proofs


async def test_changed_surroundings_are_for_the_reference_values_to_judge(
    fleet: RealFleet, time: ManualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_work(fleet) as session:
        release = fleet.home / "os-release"
        release.write_text("ID=upgraded\n")
        monkeypatch.setattr("palyra_fleet.worker.launcher._OS_RELEASE", (release,))
        await time.play(40.0, ALL_LOOPS, session.stopped)
        assert (await events(fleet))["worker.reattested"] == 0
        await fleet.accept("/bin/sh")  # the operator accepts the new system
        await time.play(2 * MINUTE_S, ALL_LOOPS, session.stopped)
        assert not session.stopped.done()
        release.write_text("ID=upgraded-again\n")
        await time.play(10 * MINUTE_S, ALL_LOOPS, session.stopped)
        assert "image digest did not match" in session.stopped.result().detail


async def test_a_quarantine_while_proving_stays_a_quarantine(
    fleet: RealFleet, time: ManualTime
) -> None:
    async with at_work(fleet) as session:
        fleet.proxy.before_answer = lambda: fleet.operator.act(
            WorkerAction.QUARANTINE, session.worker_id, "looks wrong"
        )
        await time.play(10 * MINUTE_S, ALL_LOOPS, session.stopped)
        assert session.stopped.result().kind == "quarantined"
        while not (await events(fleet))["worker.candidate_attested"]:
            pass  # the proof that was under way arrives
    worker = await the_worker(fleet)
    assert (worker.state, worker.admission, worker.lease_id) == ("quarantined", "quarantined", None)
    assert (await events(fleet))["worker.reattested"] == 0


async def test_an_older_session_does_not_take_the_worker_back(fleet: RealFleet) -> None:
    measured = await fleet.accept("/bin/sh")
    settings = fleet.session()
    async with (
        await WorkerSession.open(settings, measured) as older,
        await WorkerSession.open(settings, measured) as newer,
    ):
        with pytest.raises(FleetProblem, match="newer session"):
            await older._standing.prove_again()
        assert not newer.stopped.done()
    assert (await the_worker(fleet)).session_epoch == 2
