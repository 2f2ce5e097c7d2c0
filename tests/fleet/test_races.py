"""Sixty-four at once, one winner: nonce, token, grant, run, release, approval, on a real store.

The suite plays a few rounds of each; `make races` plays 200 (PALYRA_RACE_ROUNDS).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.attestation.join_tokens import JoinTokenBook
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.core import JOIN_TOKENS
from palyra_fleet.settings.file import SettingsFile
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.keys import SigningKey
from tests.fakes.attestation_material import JoinTokenProver
from tests.fakes.fleet_world import FleetWorld, WorkerPen, fleet_world
from tests.fakes.ledger_world import ulid
from tests.fleet.attestation.test_attestor_contract import registration

ROUNDS = int(os.environ.get("PALYRA_RACE_ROUNDS", "3"))
AT_ONCE = 64
POLICY = WorkerFleetPolicy(storm_quarantines_per_minute=10**6)

type Race = Callable[[FleetWorld, int], Awaitable[set[FleetReason]]]


async def _one_wins(calls: Iterable[Awaitable[Any]]) -> tuple[Any, set[FleetReason]]:
    """The winner's answer and the losers' reasons; anything but one winner fails."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(won) == 1, lost[:3]
    assert all(isinstance(one, FleetRefusal) for one in lost), lost[:3]
    return won[0], {one.reason for one in lost if isinstance(one, FleetRefusal)}


async def _workers(world: FleetWorld, round_number: int, count: int) -> list[WorkerPen]:
    pens = [WorkerPen(ulid(10_000 * round_number + n)) for n in range(count)]
    await asyncio.gather(*(world.register(pen) for pen in pens))
    return pens


async def _nonce(world: FleetWorld, number: int) -> set[FleetReason]:
    """The same registration, sent by many: its nonce is good once."""
    request = await world.registration(WorkerPen(ulid(number)))
    answer, reasons = await _one_wins(world.service.register(request) for _ in range(AT_ONCE))
    assert answer.session_epoch == 1
    return reasons


async def _join_token(world: FleetWorld, number: int) -> set[FleetReason]:
    """One token, many keys: the first that joins is the only one, also after a restart."""
    prover = JoinTokenProver()
    await prover.prepare(world)
    pens = [WorkerPen(ulid(10_000 * number + n)) for n in range(AT_ONCE)]
    requests = [await registration(prover, world, pen) for pen in pens]
    answer, reasons = await _one_wins(map(world.service.register, requests))
    (joined,) = await world.service.workers()
    winner = next(pen for pen in pens if pen.worker_id == joined.worker_id)
    assert answer.session_epoch == 1
    (kept,) = JoinTokenBook.open(world.service._settings.state_dir / JOIN_TOKENS).all()
    assert kept.used_by_key_sha256 == winner.key.thumbprint
    loser = next(pen for pen in pens if pen is not winner)
    with pytest.raises(FleetRefusal, match="the join token is"):
        await world.service.register(await registration(prover, world, loser))
    return reasons


async def _grant(world: FleetWorld, number: int) -> set[FleetReason]:
    """One approval, many workers: it is spent once."""
    pens = await _workers(world, number, AT_ONCE)
    run = f"run-{number}"
    grant = await world.grant(run)
    answer, reasons = await _one_wins(world.ask(pen, run) for pen in pens)
    winner = next(pen for pen in pens if pen.worker_id == answer.worker_id)
    await world.complete(winner, answer)
    (found,) = [one for one in await world.service.grants() if one.grant_id == grant.grant_id]
    assert found.uses == 1
    with pytest.raises(FleetRefusal):
        await world.ask(pens[0], run)
    return reasons


async def _run(world: FleetWorld, number: int) -> set[FleetReason]:
    """Many approvals of one run: one live lease."""
    pens = await _workers(world, number, AT_ONCE)
    run = f"run-{number}"
    await asyncio.gather(*(world.grant(run) for _ in pens))
    _, reasons = await _one_wins(world.ask(pen, run) for pen in pens)
    assert [one.run_id for one in await world.service.leases(99)].count(run) == 1
    return reasons


async def _slot(world: FleetWorld, number: int) -> set[FleetReason]:
    """One worker, many runs: one live lease."""
    (pen,) = await _workers(world, number, 1)
    runs = [f"run-{number}-{n}" for n in range(AT_ONCE)]
    await asyncio.gather(*(world.grant(run) for run in runs))
    _, reasons = await _one_wins(world.ask(pen, run) for run in runs)
    return reasons


async def _release(world: FleetWorld, number: int) -> set[FleetReason]:
    """Many operators: one release, one event."""
    (pen,) = await _workers(world, number, 1)
    await world.service.quarantine("alice", pen.worker_id, "why")
    pen.key = SigningKey.generate()
    await world.register(pen)
    _, reasons = await _one_wins(
        world.service.release(f"operator-{n}", pen.worker_id, "looked at") for n in range(AT_ONCE)
    )
    events = await world.service.events(0, 1_000)
    named = [e for e in events if e.worker_id == pen.worker_id]
    assert [e.reason for e in named].count("worker.released_by_operator") == 1
    return reasons


async def _approval(world: FleetWorld, number: int) -> set[FleetReason]:
    """Many operators, who asked among them: one approval, by another."""
    (pen,) = await _workers(world, number, 1)
    await world.service.quarantine("alice", pen.worker_id, "why")
    pen.key = SigningKey.generate()
    await world.register(pen)
    asked = await world.service.request_release("operator-0", pen.worker_id, "looked at")
    _, reasons = await _one_wins(
        world.service.approve_release(f"operator-{n}", asked.release_id, "too")
        for n in range(AT_ONCE)
    )
    events = await world.service.events(0, 1_000)
    approved = [e for e in events if e.reason == "worker.release_approved"]
    assert len(approved) == 1
    assert approved[0].actor != "operator-0"
    return reasons


async def _completion(world: FleetWorld, number: int) -> set[FleetReason]:
    """The same completion, sent by many."""
    (pen,) = await _workers(world, number, 1)
    lease = await world.lease(pen, f"run-{number}")
    answer, reasons = await _one_wins(world.complete(pen, lease) for _ in range(AT_ONCE))
    assert isinstance(answer, wire.LeaseState)
    return reasons


@pytest.mark.parametrize(
    ("race", "losers"),
    [
        (_nonce, {FleetReason.NONCE_REFUSED}),
        (_join_token, {FleetReason.EVIDENCE_REFUSED}),
        (_grant, {FleetReason.NO_GRANT, FleetReason.RUN_LEASED}),
        (_run, {FleetReason.RUN_LEASED}),
        (_slot, {FleetReason.NO_WORKER}),
        (_release, {FleetReason.NOT_QUARANTINED}),
        (_approval, {FleetReason.RELEASE_UNKNOWN, FleetReason.RELEASE_SAME_PERSON}),
        (_completion, {FleetReason.LEASE_ENDED}),
    ],
)
async def test_of_64_at_once_one_wins(race: Race, losers: set[FleetReason], tmp_path: Path) -> None:
    for number in range(1, ROUNDS + 1):
        place = tmp_path / f"state-{number}"
        file = SettingsFile(join_tokens=True)
        async with fleet_world(SqliteFleetStore(place), POLICY, file, place) as world:
            assert await race(world, number) <= losers
            assert await world.service.verify_events() > 0
