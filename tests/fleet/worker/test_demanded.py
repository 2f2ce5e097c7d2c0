"""A worker's session obeys what an operator demands of it, with the real fleet: new evidence, a new
key, also where the fleet's answer is lost; and where it cannot, it ends by itself in time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from palyra_fleet.client import FleetProblem, WorkerClient
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import HeartbeatRequest, WorkerView
from palyra_fleet.wire.reattest_models import ReattestRequest
from palyra_fleet.worker.attester import Attester
from palyra_fleet.worker.launcher import (
    Evidence,
    EvidenceSource,
    EvidenceUnavailable,
    Launcher,
    Measurement,
    Statement,
)
from palyra_fleet.worker.session import SessionSettings, WorkerSession
from palyra_fleet.worker.stop import StopKind
from palyra_fleet.worker.workspace import Workspace
from tests.fakes.lossy_relay import lossy_relay
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fakes.until import until
from tests.fakes.worker_bench import GRANT, RUN_ID


@pytest.fixture
async def fleet() -> AsyncIterator[RealFleet]:
    async with real_fleet() as made:
        yield made


class KnownKeys:
    """Remembers the keys that workers of this test make."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[SigningKey] = []
        generate = SigningKey.generate

        def remembered() -> SigningKey:
            self.made.append(generate())
            return self.made[-1]

        monkeypatch.setattr(SigningKey, "generate", remembered)


@asynccontextmanager
async def leased(fleet: RealFleet, settings: SessionSettings) -> AsyncIterator[WorkerSession]:
    """A session that holds the lease of RUN_ID."""
    measured = await fleet.accept("/bin/sh")
    async with await WorkerSession.open(settings, measured) as session:
        if not await fleet.operator.grants():
            await fleet.operator.create_grant(GRANT)
        async with fleet.as_proxy() as proxy:
            await proxy.beat(0, fleet.proxy.policy_digest)
        await session.take_lease(RUN_ID, Workspace.create(fleet.home).scope(), 60_000)
        await session.start_lease()
        yield session


async def demand(fleet: RealFleet, worker_id: str, *, new_key: bool) -> WorkerView:
    asked = ReattestRequest(reason="looked odd", new_key=new_key)
    return await fleet.operator.reattest(worker_id, asked)


async def met(fleet: RealFleet, worker_id: str) -> WorkerView:
    async def is_met() -> bool:
        return (await fleet.operator.worker(worker_id)).demanded is None

    await until("the worker has shown what was demanded", is_met)
    return await fleet.operator.worker(worker_id)


@pytest.mark.parametrize("new_key", [False, True])
async def test_a_session_shows_what_is_demanded_and_its_lease_goes_on(
    fleet: RealFleet, new_key: bool
) -> None:
    async with leased(fleet, fleet.session()) as session:
        before = await fleet.operator.worker(session.worker_id)
        asked = (await demand(fleet, session.worker_id, new_key=new_key)).demanded
        assert asked is not None
        assert (asked.asked_by, asked.why, asked.new_key) == ("operator", "looked odd", new_key)
        after = await met(fleet, session.worker_id)
        assert (after.lease_id, after.fence, after.work) == (before.lease_id, before.fence, "busy")
        assert after.attestation_epoch == before.attestation_epoch + 1
        assert (after.key_sha256 != before.key_sha256) is new_key
        assert not session.stopped.done()
        (event,) = [e for e in await fleet.operator.events() if e.reason == "worker.reattested"]
        assert event.detail["demanded_by"] == "operator"


async def test_the_old_key_is_refused_from_then_on(
    fleet: RealFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, settings = KnownKeys(monkeypatch), fleet.session()
    measured = await fleet.accept("/bin/sh")
    async with await WorkerSession.open(settings, measured) as session:
        (old,) = keys.made
        await demand(fleet, session.worker_id, new_key=True)
        async with WorkerClient(settings.fleet, old) as client:
            refused = await _registration_refused(client, old, settings, measured)
            assert refused == FleetReason.NEW_KEY_DEMANDED
            await met(fleet, session.worker_id)
            with pytest.raises(FleetProblem) as unknown:
                await client.heartbeat(HeartbeatRequest(session_epoch=2, seq=999))
            assert unknown.value.status == 401
            refused = await _registration_refused(client, old, settings, measured)
            assert refused == FleetReason.WORKER_BANNED
        assert len(keys.made) == 2
        worker = await fleet.operator.worker(session.worker_id)
        assert worker.key_sha256 == keys.made[1].thumbprint
        assert not session.stopped.done()


async def _registration_refused(
    client: WorkerClient, key: SigningKey, settings: SessionSettings, measured: Measurement
) -> str:
    """Why evidence for a new session with this key is refused."""
    attester = Attester(
        client,
        key,
        settings.proxy_address,
        settings.launcher,
        settings.identity,
        measured,
        settings.time,
        10_000,
    )
    with pytest.raises(FleetProblem) as refused:
        await client.register(await attester.first())
    return refused.value.reason


async def test_a_lost_answer_to_the_new_key_is_asked_for_again_with_the_same_key(
    fleet: RealFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KnownKeys(monkeypatch)
    async with lossy_relay(fleet.server.socket_path, fleet.home) as relay:
        settings = replace(fleet.session(), fleet=relay.path)
        async with leased(fleet, settings) as session:
            relay.lose = b"/v1/workers:register"
            await demand(fleet, session.worker_id, new_key=True)
            await relay.lost.wait()
            worker = await fleet.operator.worker(session.worker_id)

            async def is_known_again() -> bool:
                now = await fleet.operator.worker(session.worker_id)
                return now.session_epoch > worker.session_epoch

            await until("the proof is made again", is_known_again)
            now = await fleet.operator.worker(session.worker_id)
            assert len(keys.made) == 2
            assert now.key_sha256 == keys.made[1].thumbprint
            assert (now.lease_id, now.work) == (worker.lease_id, "busy")
            assert not session.stopped.done()
            await demand(fleet, session.worker_id, new_key=True)
            await met(fleet, session.worker_id)  # and the session speaks with it
            assert len(keys.made) == 3


async def test_a_key_whose_acceptance_was_lost_and_that_is_demanded_replaced_is_replaced(
    fleet: RealFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fleet has the new key, the session does not know so, and the fleet wants yet another."""
    keys = KnownKeys(monkeypatch)
    async with lossy_relay(fleet.server.socket_path, fleet.home) as relay:
        settings = replace(fleet.session(), fleet=relay.path)
        async with leased(fleet, settings) as session:
            before = await fleet.operator.worker(session.worker_id)
            relay.lose = b"/v1/workers:register"
            await demand(fleet, session.worker_id, new_key=True)
            await relay.lost.wait()
            await relay.down()
            await demand(fleet, session.worker_id, new_key=True)
            await relay.up()
            after = await met(fleet, session.worker_id)
            assert after.key_sha256 == keys.made[2].thumbprint
            assert (after.lease_id, after.work) == (before.lease_id, "busy")
            assert not session.stopped.done()


@dataclass(slots=True)
class Reluctant:
    """An attestor that stops vouching."""

    inner: EvidenceSource
    willing: bool = True

    def attest(self, statement: Statement) -> Evidence:
        if not self.willing:
            raise EvidenceUnavailable("nobody vouches any more")
        return self.inner.attest(statement)


async def test_a_session_that_cannot_ends_before_the_fleet_ends_its_lease(
    fleet: RealFleet,
) -> None:
    launcher = Reluctant(Launcher(fleet.launcher_key))
    async with leased(fleet, replace(fleet.session(), launcher=launcher)) as session:
        launcher.willing = False
        asked = ReattestRequest(reason="looked odd", within_ms=2_000)
        await fleet.operator.reattest(session.worker_id, asked)
        stop = await session.stopped
        assert stop.kind is StopKind.FENCED
        assert "nobody vouches any more" in stop.detail

        async def is_over() -> bool:
            worker = await fleet.operator.worker(session.worker_id)
            return worker.lease_id is None

        await until("the fleet ends the lease", is_over)
        events = {event.reason: event for event in await fleet.operator.events()}
        why = "the evidence that was demanded was not shown in time"
        assert events["worker.lease_revoked"].detail["why"] == why
        worker = await fleet.operator.worker(session.worker_id)
        assert (worker.demanded is not None, worker.work) == (True, "orphaned")


async def test_a_worker_that_waits_shows_it_and_takes_its_next_run(fleet: RealFleet) -> None:
    measured = await fleet.accept("/bin/sh")
    await fleet.operator.create_grant(GRANT)
    async with (
        fleet.as_proxy() as proxy,
        await WorkerSession.open(fleet.session(), measured) as session,
    ):
        await proxy.beat(0, fleet.proxy.policy_digest)
        await demand(fleet, session.worker_id, new_key=True)
        # asked for at once: whichever comes first, the order or the refusal, it attests first
        lease = await session.take_lease(RUN_ID, Workspace.create(fleet.home).scope(), 60_000)
        assert lease.run_id == RUN_ID
        await met(fleet, session.worker_id)
