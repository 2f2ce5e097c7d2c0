"""The worker runtime with the real fleet: admitted, leased, bound at the proxy, ended, released."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from palyra_fleet.client import FleetProblem, WorkerAction
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.view_models import ViewMessage
from palyra_fleet.worker.run_settings import RunSettings
from palyra_fleet.worker.runner import run_as_worker
from palyra_fleet.worker.session import PROOFS_FOR_A_LEASE, SessionSettings, WorkerSession
from palyra_fleet.worker.workspace import Workspace
from tests.fakes.manual_time import STUCK_AFTER_S, ManualTime
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fakes.until import until
from tests.fakes.worker_bench import GRANT, RUN_ID


@pytest.fixture
async def fleet() -> AsyncIterator[RealFleet]:
    async with real_fleet() as made:
        yield made


def run_settings(fleet: RealFleet, session: SessionSettings) -> RunSettings:
    return RunSettings(
        session=session,
        run_id=RUN_ID,
        combined_bundle=fleet.home / "bundle.pem",
        palyra_ca=fleet.home / "ca.pem",
        workspace_parent=fleet.home,
    )


async def test_a_program_runs_from_attestation_to_a_clean_end(fleet: RealFleet) -> None:
    await fleet.accept("/bin/sh")
    await fleet.operator.create_grant(GRANT)
    said: list[str] = []
    session = fleet.session()
    code = await run_as_worker(
        ["/bin/sh", "-c", "exit 5"], run_settings(fleet, session), said.append
    )
    assert (code, said) == (5, [])
    worker = await fleet.operator.worker(session.identity.worker_id)
    assert (worker.state, worker.work, worker.binding_proxy_id) == ("available", "idle", "proxy-1")
    reasons = [event.reason for event in await fleet.operator.events()]
    assert {"worker.registered", "worker.assigned", "worker.completed"} <= set(reasons)
    assert await fleet.operator.verify_events() == len(reasons)


async def test_nobody_is_admitted_before_an_operator_says_what_to_expect(fleet: RealFleet) -> None:
    with pytest.raises(FleetProblem) as refused:
        await run_as_worker(["/bin/sh"], run_settings(fleet, fleet.session()))
    assert refused.value.reason.startswith("attestation.digest_mismatch")


async def test_a_run_takes_a_grant_of_its_own(fleet: RealFleet) -> None:
    await fleet.accept("/bin/sh")
    with pytest.raises(FleetProblem) as refused:
        await run_as_worker(["/bin/sh"], run_settings(fleet, fleet.session()))
    assert refused.value.status == 403


async def test_a_lease_is_asked_for_again_with_a_new_receipt_when_the_proxys_policy_changed(
    fleet: RealFleet,
) -> None:
    measured = await fleet.accept("/bin/sh")
    await fleet.operator.create_grant(GRANT)
    workspace = Workspace.create(fleet.home)
    async with (
        fleet.as_proxy() as proxy,
        await WorkerSession.open(fleet.session(), measured) as session,
    ):
        before = len(fleet.proxy.targets)
        fleet.proxy.policy_digest = "sha256:newer"
        await proxy.beat(0, fleet.proxy.policy_digest)
        lease = await session.take_lease(RUN_ID, workspace.scope(), 60_000)
        assert lease.run_id == RUN_ID
        assert len(fleet.proxy.targets) == before + 1
        await proxy.beat(0, "sha256:newest")  # which the proxy's receipts never name
        with pytest.raises(FleetProblem) as refused:
            await session.take_lease("another-run", workspace.scope(), 60_000)
        assert refused.value.reason == "lease.grant_missing"


async def test_a_lease_that_no_new_receipt_helps_is_refused_in_the_end(fleet: RealFleet) -> None:
    measured = await fleet.accept("/bin/sh")
    await fleet.operator.create_grant(GRANT)
    workspace = Workspace.create(fleet.home)
    async with (
        fleet.as_proxy() as proxy,
        await WorkerSession.open(fleet.session(), measured) as session,
    ):
        before = len(fleet.proxy.targets)
        fleet.proxy.clock = lambda: now_unix_ms() - 30_000  # its receipts are older than its words
        await proxy.beat(0, "sha256:newest")
        with pytest.raises(FleetProblem) as refused:
            await session.take_lease(RUN_ID, workspace.scope(), 60_000)
        assert refused.value.reason == "lease.binding_stale"
        assert len(fleet.proxy.targets) == before + PROOFS_FOR_A_LEASE


async def next_of(view: AsyncIterator[ViewMessage], kind: str) -> ViewMessage:
    async for message in view:
        if message.kind == kind:
            return message
    raise AssertionError("the view ended")


async def test_the_proxy_sees_the_binding_come_and_the_block_when_quarantined(
    fleet: RealFleet,
) -> None:
    measured = await fleet.accept(sys.executable)
    await fleet.operator.create_grant(GRANT)
    workspace = Workspace.create(fleet.home)
    async with fleet.as_proxy() as proxy, aclosing(proxy.view()) as view:
        assert (await anext(view)).kind == "snapshot"
        async with await WorkerSession.open(fleet.session(), measured) as session:
            lease = await session.take_lease(RUN_ID, workspace.scope(), 60_000)
            bound = (await next_of(view, "bind")).bindings[0]
            assert bound.lease_id == lease.lease_id
            secret = hashlib.sha256(lease.egress_secret.encode()).hexdigest()
            assert bound.egress_secret_sha256 == secret
            await session.start_lease()
            await fleet.operator.act(WorkerAction.QUARANTINE, session.worker_id, "looks wrong")
            assert (await next_of(view, "block")).worker_id == session.worker_id
            assert (await session.stopped).kind == "quarantined"
    shown = await fleet.operator.worker(session.worker_id)
    assert shown.state == "quarantined"


async def test_a_quarantined_worker_runs_again_only_after_new_evidence_and_a_release(
    fleet: RealFleet,
) -> None:
    measured = await fleet.accept("/bin/sh")
    session = fleet.session()
    worker_id = session.identity.worker_id
    async with await WorkerSession.open(session, measured):
        await fleet.operator.act(WorkerAction.QUARANTINE, worker_id, "looks wrong")
    with pytest.raises(FleetProblem) as refused:
        await fleet.operator.act(WorkerAction.RELEASE, worker_id, "too early")
    assert refused.value.status == 409
    async with await WorkerSession.open(session, measured) as again:
        assert (await again.stopped).kind == "quarantined"
    await fleet.operator.act(WorkerAction.RELEASE, worker_id, "looked at it")
    await fleet.operator.create_grant(GRANT)
    assert await run_as_worker(["/bin/sh", "-c", "exit 0"], run_settings(fleet, session)) == 0


async def test_a_newer_session_ends_the_older_one(fleet: RealFleet) -> None:
    measured = await fleet.accept("/bin/sh")
    session = fleet.session()
    async with (
        await WorkerSession.open(session, measured) as older,
        await WorkerSession.open(session, measured),
    ):
        assert (await older.stopped).kind == "session_over"


async def test_closing_the_fleet_ends_a_run_by_fencing() -> None:
    time = ManualTime()
    async with real_fleet(WorkerFleetPolicy(), time) as fleet:
        await fleet.accept("/bin/sh")
        await fleet.operator.create_grant(GRANT)
        settings = replace(run_settings(fleet, fleet.session()), ttl_ms=60_000)
        said: list[str] = []
        up = fleet.home / "up"
        program = ["/bin/sh", "-c", f": > {up}; sleep 600"]
        running = spawn(run_as_worker(program, settings, said.append), "run")
        await until("the program is up, or its run over", lambda: running.done() or up.exists())
        await fleet.service.close()
        await time.play(60.0, 3, running)  # heartbeats, proofs, renewals sleep on this clock
        async with asyncio.timeout(STUCK_AFTER_S):  # a program's end takes time of its own
            assert await running == 128 + 15
    assert said
