"""A worker that waits, with the real fleet: runs are placed on it one after the other."""

import asyncio
import hashlib
import os
import signal
import stat
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.client import FleetError, FleetProblem, WorkerAction
from palyra_fleet.refusals import FleetReason
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import ArtifactModel, ArtifactTransportModel, CleanupReport
from palyra_fleet.wire.placement_models import OfferState, OfferView, PlaceRequest
from palyra_fleet.worker.held_run import ProgramNotStarted
from palyra_fleet.worker.launcher import measure
from palyra_fleet.worker.run_settings import WorkerSettings
from palyra_fleet.worker.serving import ServeSettings, WorkerEnded, serve_as_worker
from palyra_fleet.worker.session import WorkerSession
from palyra_fleet.worker.stop import StopKind
from palyra_fleet.worker.workspace import Workspace
from tests.fakes.lossy_relay import LossyRelay, lossy_relay
from tests.fakes.manual_time import ManualTime
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fakes.until import until
from tests.fakes.worker_bench import GRANT

SHELL = "/bin/sh"


@dataclass(slots=True)
class Pool:
    """A fleet, and one worker that waits for its runs."""

    fleet: RealFleet
    settings: ServeSettings
    said: list[str] = field(default_factory=list)

    @property
    def worker_id(self) -> str:
        return self.settings.worker.session.identity.worker_id

    @property
    def told(self) -> Path:
        """Where the programs of these tests write."""
        return self.fleet.home / "told"

    def start(self, *command: str) -> asyncio.Task[int]:
        serving = serve_as_worker(command, self.settings, self.said.append)
        return spawn(serving, "serving", told=(WorkerEnded, ProgramNotStarted, FleetError))

    async def place(self, run_id: str, **order: Any) -> OfferView:
        """Approve the run and place it, as soon as somebody waits for it."""
        await self.fleet.operator.create_grant(GRANT.model_copy(update={"run_id": run_id}))
        request = PlaceRequest(run_id=run_id, ttl_ms=60_000, **order)

        async def ask() -> OfferView | None:
            try:
                return await self.fleet.operator.place(request)
            except FleetProblem as problem:
                if problem.reason != FleetReason.NO_WORKER:
                    raise
                return None

        return await until(f"somebody waits for {run_id}", ask)

    async def until(self, offered: OfferView, state: OfferState) -> OfferView:
        async def look() -> OfferView | None:
            seen = await self.fleet.operator.offer(offered.offer_id)
            assert seen.state in {OfferState.OPEN, state}, f"it is {seen.state}"
            return seen if seen.state is state else None

        return await until(f"the offer is {state}", look)

    async def until_said(self, text: str) -> None:
        await until(f"the worker says {text}", lambda: any(text in line for line in self.said))

    async def until_told(self, lines: int) -> list[str]:
        def look() -> list[str] | None:
            found = self.told.read_text().splitlines() if self.told.exists() else []
            return found if len(found) >= lines else None

        return await until(f"{lines} lines of the programs", look)

    async def events(self) -> Counter[str]:
        return Counter(event.reason for event in await self.fleet.operator.events(0, 1000))


@asynccontextmanager
async def a_pool(fleet: RealFleet, program: str = SHELL) -> AsyncIterator[Pool]:
    await fleet.accept(program)
    workspaces = fleet.home / "workspaces"
    workspaces.mkdir()
    worker = WorkerSettings(
        session=fleet.session(),
        combined_bundle=fleet.home / "bundle.pem",
        palyra_ca=fleet.home / "ca.pem",
        workspace_parent=workspaces,
    )
    yield Pool(fleet, ServeSettings(worker))
    assert list(workspaces.iterdir()) == []


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with real_fleet() as fleet, a_pool(fleet) as made:
        yield made


def says(pool: Pool, what: str) -> tuple[str, ...]:
    """A program that writes a line and ends."""
    return (SHELL, "-c", f"echo {what} >> {pool.told}")


def waits(pool: Pool) -> tuple[str, ...]:
    """A program that says that it is up, and then waits for the file `go`."""
    go = pool.fleet.home / "go"
    return (SHELL, "-c", f"echo up >> {pool.told}; until [ -e {go} ]; do sleep 0.05; done")


def let_go(pool: Pool) -> None:
    """What `waits` waits for."""
    (pool.fleet.home / "go").touch()


async def test_one_session_takes_the_runs_that_are_placed_on_it_one_after_the_other(
    pool: Pool,
) -> None:
    pool.settings = replace(pool.settings, runs=3)
    serving = pool.start(*says(pool, "$PALYRA_RUN_ID $PALYRA_WORKSPACE $PALYRA_LEASE_ID"))
    for number in range(3):
        taken = await pool.until(await pool.place(f"run-{number}"), OfferState.TAKEN)
        assert taken.worker_id == pool.worker_id
    assert await serving == 0
    lines = [line.split() for line in await pool.until_told(3)]
    assert [line[0] for line in lines] == ["run-0", "run-1", "run-2"]
    assert len({line[1] for line in lines}) == len({line[2] for line in lines}) == 3
    seen = await pool.events()
    assert seen["worker.registered"] + seen["worker.reattested"] == 1
    assert seen["worker.completed"] == 3
    assert await pool.fleet.operator.verify_events() > 0


async def test_a_program_that_fails_costs_its_run_and_not_the_worker(pool: Pool) -> None:
    pool.settings = replace(pool.settings, runs=2)
    serving = pool.start(SHELL, "-c", "[ $PALYRA_RUN_ID = good ] || exit 7")
    await pool.place("bad")
    await pool.place("good")
    assert await serving == 0
    assert "bad ended with 7" in pool.said
    assert "good ended with 0" in pool.said


async def test_a_worker_that_waits_leaves_at_a_signal_and_is_offered_nothing_more(
    pool: Pool,
) -> None:
    serving = pool.start(*says(pool, "up"))
    await pool.place("run-1")
    await pool.until_told(1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await serving == 0
    await pool.fleet.operator.create_grant(GRANT.model_copy(update={"run_id": "run-2"}))
    with pytest.raises(FleetProblem) as refused:
        await pool.fleet.operator.place(PlaceRequest(run_id="run-2", ttl_ms=60_000))
    assert refused.value.reason == FleetReason.NO_WORKER


async def test_a_signal_lets_the_run_end_by_itself_before_the_worker_leaves(pool: Pool) -> None:
    serving = pool.start(*waits(pool))
    await pool.place("run-1")
    await pool.until_told(1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0)
    assert not serving.done()
    let_go(pool)
    assert await serving == 0
    assert "run-1 ended with 0" in pool.said
    assert (await pool.events())["worker.completed"] == 1


async def test_a_second_signal_ends_the_run_as_well(pool: Pool) -> None:
    serving = pool.start(*waits(pool))
    await pool.place("run-1")
    await pool.until_told(1)
    os.kill(os.getpid(), signal.SIGINT)
    await pool.until_said("SIGINT: no new runs")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await serving == 128 + signal.SIGTERM
    assert "interrupted by SIGTERM; ending the run" in pool.said
    assert (await pool.events())["worker.completed"] == 1


@pytest.mark.parametrize("at_work", [False, True], ids=["while it waits", "while it runs"])
async def test_a_quarantine_ends_it(pool: Pool, at_work: bool) -> None:
    serving = pool.start(*(waits(pool) if at_work else says(pool, "up")))
    await pool.place("run-1")
    await pool.until_told(1)
    await pool.fleet.operator.act(WorkerAction.QUARANTINE, pool.worker_id, "looks wrong")
    with pytest.raises(WorkerEnded) as ended:
        await serving
    assert ended.value.stop.kind is StopKind.QUARANTINED


async def test_after_a_lease_that_was_revoked_it_attests_anew_and_waits_on(pool: Pool) -> None:
    pool.settings = replace(pool.settings, runs=2)
    serving = pool.start(*waits(pool))
    taken = await pool.until(await pool.place("run-1"), OfferState.TAKEN)
    await pool.until_told(1)
    assert taken.lease_id is not None
    await pool.fleet.operator.revoke_lease(taken.lease_id, "enough")
    await pool.place("run-2")
    await pool.until_told(2)
    let_go(pool)
    assert await serving == 0
    await pool.until_said("the fleet ended this run's lease")
    seen = await pool.events()
    assert (seen["worker.completed"], seen["worker.lease_revoked"]) == (1, 1)


@asynccontextmanager
async def relayed(pool: Pool) -> AsyncIterator[LossyRelay]:
    """The worker reaches the fleet through this alone."""
    async with lossy_relay(pool.fleet.server.socket_path, pool.fleet.home) as relay:
        worker = pool.settings.worker
        session = replace(worker.session, fleet=relay.path)
        pool.settings = replace(pool.settings, worker=replace(worker, session=session))
        yield relay


async def test_a_fleet_that_is_gone_when_a_run_ends_costs_its_lease_and_not_the_worker(
    pool: Pool,
) -> None:
    pool.settings = replace(pool.settings, runs=2)
    async with relayed(pool) as relay:
        serving = pool.start(*waits(pool))
        await pool.place("run-1")
        await pool.until_told(1)
        await relay.down()
        let_go(pool)
        await pool.until_said("run-1 ended with 0")
        await pool.until_said("the fleet or the proxy is gone")
        await relay.up()
        await pool.place("run-2")
        await pool.until_told(2)
        let_go(pool)
        assert await serving == 0
    assert (await pool.events())["worker.completed"] == 1


async def test_a_worker_leaves_while_the_fleet_is_gone(pool: Pool) -> None:
    async with relayed(pool) as relay:
        serving = pool.start(*waits(pool))
        await pool.place("run-1")
        await pool.until_told(1)
        await relay.down()
        let_go(pool)
        await pool.until_said("the fleet or the proxy is gone")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await serving == 0


async def test_an_order_that_was_lost_on_the_way_is_read_again(pool: Pool) -> None:
    pool.settings = replace(pool.settings, runs=1)
    async with relayed(pool) as relay:
        relay.lose = b"wait_ms=20000"
        serving = pool.start(*says(pool, "up"))
        await pool.until(await pool.place("run-1"), OfferState.TAKEN)
        assert await serving == 0
        assert relay.lost.is_set()


@pytest.mark.parametrize("command", [b":start", b":complete"])
async def test_an_answer_about_its_lease_that_was_lost_costs_nothing(
    pool: Pool, command: bytes
) -> None:
    pool.settings = replace(pool.settings, runs=1)
    async with relayed(pool) as relay:
        relay.lose = command
        serving = pool.start(*says(pool, "up"))
        await pool.until(await pool.place("run-1"), OfferState.TAKEN)
        assert await serving == 0
        assert relay.lost.is_set()
    assert await pool.until_told(1) == ["up"]
    assert (await pool.events())["worker.completed"] == 1


async def test_a_proxy_that_is_late_costs_the_run_and_not_the_worker(pool: Pool) -> None:
    worker = replace(pool.settings.worker, proxy_knows_within_ms=1)
    pool.settings = replace(pool.settings, worker=worker, runs=2)
    pool.fleet.proxy.lease_statuses = [403]
    serving = pool.start(*says(pool, "$PALYRA_RUN_ID"))
    await pool.until(await pool.place("late"), OfferState.TAKEN)
    await pool.until_said("late did not start")
    pool.fleet.proxy.lease_statuses = [204]
    await pool.place("in-time")
    assert await serving == 0
    assert await pool.until_told(1) == ["in-time"]


async def test_what_it_cannot_keep_it_declines_and_waits_on(pool: Pool) -> None:
    pool.settings = replace(pool.settings, runs=1)
    serving = pool.start(*says(pool, "up"))
    for run_id, order in (
        ("has-inputs", {"artifact_transport": transport(b"rows", "rows.csv")}),
        ("has-outputs", {"artifact_transport": ArtifactTransportModel(outputs=("report",))}),
    ):
        await pool.until(await pool.place(run_id, **order), OfferState.DECLINED)
    await pool.place("plain")
    assert await serving == 0
    assert (await pool.events())["worker.offer_declined"] == 2
    declined = [line for line in pool.said if line.startswith("declined ")]
    assert [line.split(":")[0] for line in declined] == [
        "declined has-inputs",
        "declined has-outputs",
    ]


def transport(content: bytes, path: str, outputs: tuple[str, ...] = ()) -> ArtifactTransportModel:
    digest = hashlib.sha256(content).hexdigest()
    named = ArtifactModel(path=path, digest_sha256=digest, size_bytes=len(content))
    most = 1000 if outputs else 0
    return ArtifactTransportModel(inputs=(named,), outputs=outputs, max_output_bytes=most)


async def test_inputs_must_be_those_that_the_run_names_and_outputs_lie_apart(pool: Pool) -> None:
    pool.settings = replace(
        pool.settings,
        runs=2,
        inputs_from=pool.fleet.home / "inputs",
        outputs_to=pool.fleet.home / "outputs",
    )
    (pool.fleet.home / "inputs").mkdir()
    (pool.fleet.home / "inputs" / "rows.csv").write_bytes(b"1,2")
    copies = 'cp "$PALYRA_INPUTS/rows.csv" "$PALYRA_OUTPUTS/copy"'
    serving = pool.start(SHELL, "-c", copies)
    other = transport(b"3,4", "rows.csv", ("copy",))
    await pool.until(await pool.place("other", artifact_transport=other), OfferState.DECLINED)
    absent = transport(b"1,2", "none.csv", ("copy",))
    await pool.until(await pool.place("absent", artifact_transport=absent), OfferState.DECLINED)
    for run_id in ("first", "second"):
        named = transport(b"1,2", "rows.csv", ("copy",))
        await pool.place(run_id, artifact_transport=named)
    assert await serving == 0
    for run_id in ("first", "second"):
        directory = pool.fleet.home / "outputs" / run_id
        assert (directory / "copy").read_bytes() == b"1,2"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_a_worker_whose_program_changed_declines_and_leaves() -> None:
    async with real_fleet() as fleet:
        tool = fleet.home / "tool"
        tool.write_text("#!/bin/sh\nexit 0\n")
        tool.chmod(stat.S_IRWXU)
        async with a_pool(fleet, str(tool)) as pool:
            serving = pool.start(str(tool))
            await pool.until(await pool.place("run-1"), OfferState.TAKEN)
            await pool.until_said("run-1 ended with 0")
            tool.write_text("#!/bin/sh\nexit 66\n")
            offered = await pool.place("run-2")
            with pytest.raises(ProgramNotStarted, match="changed after it was measured"):
                await serving
            await pool.until(offered, OfferState.DECLINED)


async def test_an_offer_that_has_ended_gives_no_lease_and_a_new_one_does(pool: Pool) -> None:
    worker = pool.settings.worker
    measured = measure(SHELL)
    async with await WorkerSession.open(worker.session, measured) as session:
        workspace = Workspace.create(worker.workspace_parent)
        first = spawn(session.next_offer(), "the first offer")
        withdrawn = await pool.place("run-1")
        offer = await first
        assert offer.offer_id == withdrawn.offer_id
        await pool.fleet.operator.withdraw_grant(withdrawn.grant_id, "no longer wanted")
        with pytest.raises(FleetProblem):
            await session.take_offer(offer, workspace.scope())
        second = spawn(session.next_offer(), "the second offer")
        placed = await pool.place("run-2")
        lease = await session.take_offer(await second, workspace.scope())
        assert (lease.run_id, lease.worker_id) == ("run-2", pool.worker_id)
        assert (await pool.until(placed, OfferState.TAKEN)).lease_id == lease.lease_id
        await session.start_lease()
        gone = await workspace.remove()
        report = CleanupReport(workspace_removed=gone, processes_ended=True, secrets_removed=gone)
        assert (await session.complete_lease(report)).state == "completed"


async def test_who_stops_waiting_is_offered_nothing_until_it_waits_again(pool: Pool) -> None:
    async with await WorkerSession.open(pool.settings.worker.session, measure(SHELL)) as session:
        waiting = spawn(session.next_offer(), "an offer")
        placed = await pool.place("run-1")
        await session.decline(await waiting, "no")
        await pool.until(placed, OfferState.DECLINED)
        waiting = spawn(session.next_offer(), "another offer")
        await session.stop_waiting("the worker leaves")
        with pytest.raises(FleetProblem) as refused:
            await pool.fleet.operator.place(PlaceRequest(run_id="run-1", ttl_ms=60_000))
        assert refused.value.reason == FleetReason.NO_WORKER
        waiting.cancel()


async def test_a_fleet_that_is_lost_for_too_long_ends_it_by_fencing() -> None:
    time = ManualTime()
    async with real_fleet(time=time) as fleet, a_pool(fleet) as pool:
        serving = pool.start(*says(pool, "up"))
        await pool.place("run-1")
        again = f"worker {pool.worker_id} waits for a run"
        await until("it waits again", lambda: pool.said.count(again) == 2)
        await fleet.service.close()
        await time.play(2 * 3600.0, 2, serving)
        with pytest.raises(FleetError):
            await serving
