"""Epochs under way: no heartbeat is lost to a proof, and a lost answer is not the end of a run."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from palyra_fleet.wire.models import WorkspaceScopeModel
from palyra_fleet.worker.launcher import measure
from palyra_fleet.worker.session import WorkerSession
from tests.fakes.manual_time import ManualTime
from tests.fakes.worker_bench import RUN_ID, Bench
from tests.fakes.worker_bench import bench as make_bench

BEAT_S, PROOF_S = 30.0, 20.0


@pytest.fixture
def time() -> ManualTime:
    return ManualTime()


@pytest.fixture
async def bench(time: ManualTime) -> AsyncIterator[Bench]:
    """The first heartbeat is due at BEAT_S, the first proof at PROOF_S at the latest."""
    async with make_bench(time) as made:
        made.fleet.service.heartbeat_within_ms = round(BEAT_S * 2000)
        made.fleet.service.attested_for_ms = round(PROOF_S * 2000)
        yield made


async def opened(bench: Bench) -> WorkerSession:
    return await WorkerSession.open(bench.settings.session, measure("/bin/sh"))


async def test_a_heartbeat_that_a_proof_overtakes_is_made_again_with_the_new_epoch(
    bench: Bench, time: ManualTime
) -> None:
    service = bench.fleet.service
    async with await opened(bench) as session:
        registered, answer = asyncio.Event(), asyncio.Event()

        async def hold_the_answer() -> None:
            registered.set()
            await answer.wait()

        service.before_register_answer = hold_the_answer
        await time.play(PROOF_S, 1, session.stopped)
        await registered.wait()  # the fleet has the new epoch, the session has not
        await time.play(BEAT_S, 0, session.stopped)
        await service.beats_asked.get()
        answer.set()
        async with asyncio.timeout(60):
            await service.beaten.get()
        assert not session.stopped.done()
        assert service.calls.count("heartbeat") == 2
        assert [beat.seq for beat in bench.worker.beats] == [1]
        assert bench.worker.beats[0].session_epoch == bench.worker.session_epoch


async def test_a_lost_answer_to_a_proof_is_no_newer_session(bench: Bench, time: ManualTime) -> None:
    service = bench.fleet.service
    async with await opened(bench) as session:
        before = bench.worker.session_epoch

        async def lose_the_answer() -> None:
            raise ConnectionResetError

        service.before_register_answer = lose_the_answer
        await time.play(BEAT_S + 5, 2, session.stopped)
        assert not session.stopped.done()
        assert bench.worker.session_epoch > before + 1
        assert "heartbeat" in service.calls
        assert bench.worker.beats == []
        service.before_register_answer = None
        await time.play(BEAT_S * 3, 2, session.stopped)
        assert not session.stopped.done()
        assert session._standing.answer.session_epoch == bench.worker.session_epoch
        assert bench.worker.beats


async def test_a_fleet_that_falls_silent_after_a_proof_leaves_the_epoch_in_doubt(
    bench: Bench, time: ManualTime
) -> None:
    hurried = replace(bench.settings.session, timeout_ms=500)
    async with await WorkerSession.open(hurried, measure("/bin/sh")) as session:
        attempts = 0

        async def fall_silent_once() -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                await asyncio.Event().wait()

        bench.fleet.service.before_register_answer = fall_silent_once
        await time.play(BEAT_S * 2, 2, session.stopped)
        assert not session.stopped.done()
        assert attempts > 1
        assert bench.worker.beats[-1].session_epoch > 3  # registered, lost, proved


async def test_an_answer_lost_for_ever_ends_the_run_with_the_attestation(
    bench: Bench, time: ManualTime
) -> None:
    async with await opened(bench) as session:

        async def lose_the_answer() -> None:
            raise ConnectionResetError

        bench.fleet.service.before_register_answer = lose_the_answer
        await time.play(10 * BEAT_S, 2, session.stopped)
        assert session.stopped.result().kind == "fenced"
    assert PROOF_S < time.now_s() < PROOF_S * 2


async def test_a_refusal_as_stale_without_a_proof_in_doubt_is_a_newer_session(
    bench: Bench, time: ManualTime
) -> None:
    bench.fleet.service.attested_for_ms = None
    async with await opened(bench) as session:
        bench.worker.session_epoch += 1
        await time.play(BEAT_S, 2, session.stopped)
        await time.play(BEAT_S * 2, 2, session.stopped)
        assert session.stopped.result().kind == "session_over"


async def test_shorter_evidence_shortens_the_lease_that_is_held(
    bench: Bench, time: ManualTime
) -> None:
    async with await opened(bench) as session:
        scope = WorkspaceScopeModel(workspace_root="/srv/run", allowed_paths=())
        await session.take_lease(RUN_ID, scope, 300_000)
        bench.fleet.service.attested_for_ms = 10_000
        await time.play(PROOF_S, 2, session.stopped)
        held = session._held
        assert held is not None
        assert held.clock.end_s == session._standing.life.end_s < PROOF_S + 10.1
