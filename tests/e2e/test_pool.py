"""A pool of waiting workers as processes: runs are placed on them by the operator's command."""

import asyncio
import signal
import sys
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from ulid import ULID

from palyra_fleet.wire.metric_names import WORKERS_WAITING
from palyra_fleet.wire.placement_models import OfferState, PlaceRequest
from tests.e2e.apart import Apart
from tests.e2e.place import FLEET, METADATA_URL, PUPPET, Puppet, ask_proxy, labelled
from tests.e2e.programs import Program
from tests.e2e.upstreams import API
from tests.fakes.until import until

WITHIN_S = 60
WAITS = "waits for a run"
OVER = {OfferState.LAPSED, OfferState.ENDED}
"""Which comes first: the end of the offer, or the heartbeat that is missed."""


@dataclass(slots=True)
class Waiting:
    """One `worker serve` with puppets for programs: each speaks where the last one stopped."""

    apart: Apart
    program: Program
    worker_id: str
    lines: int = 0

    async def puppet(self) -> Puppet:
        puppet = await Puppet.of(self.program, self.lines)
        self.lines = puppet.lines
        return puppet

    async def works(self, code: int = 0) -> None:
        """Its program fetches something that it may fetch, and ends; then it waits again."""
        waited = self.program.err.text.count(WAITS)
        puppet = await self.puppet()
        url = self.apart.place.upstreams.url(API, "/open/thing")
        assert (await puppet.get(url))["status"] == 200
        puppet.leave(code)
        self.lines = puppet.lines
        await until("it waits again", lambda: self.program.err.text.count(WAITS) > waited)

    async def says(self, text: str) -> None:
        await until(f"{self.worker_id} says {text}", lambda: text in self.program.err.text)


async def a_waiting_worker(apart: Apart, *options: str) -> Waiting:
    worker_id = str(ULID())
    program = await apart.place.programs.start(
        *(FLEET, "worker", "serve", "--worker-id", worker_id, *options),
        *("--socket", apart.place.home / "run" / "fleet.sock"),
        *("--proxy", apart.proxy_url.removeprefix("http://")),
        *("--launcher-key", apart.place.directory / "launcher.key"),
        *("--ca", labelled(apart.proxy, "worker CA")),
        *("--ca-bundle", labelled(apart.proxy, "worker bundle")),
        *("--", sys.executable, PUPPET),
        environment=apart.place.worker_environment,
        with_input=True,
    )
    waiting = Waiting(apart, program, worker_id)
    await waiting.says(WAITS)
    return waiting


async def placing(apart: Apart, run_id: str) -> Any:
    """Place an approved run, as soon as somebody waits; the offer that was taken."""
    return await apart.place.fleet_json("run", "place", run_id, "--wait", str(WITHIN_S))


async def placed(apart: Apart, run_id: str) -> Any:
    """Approve a run, and place it."""
    await apart.granted(run_id)
    return await placing(apart, run_id)


@pytest.fixture
async def pool(apart: Apart) -> tuple[Waiting, Waiting]:
    first, second = await asyncio.gather(a_waiting_worker(apart), a_waiting_worker(apart))
    return first, second


def by_id(pool: tuple[Waiting, Waiting], worker_id: str) -> tuple[Waiting, Waiting]:
    """The one with this id, and the other."""
    first, second = pool
    return (first, second) if first.worker_id == worker_id else (second, first)


async def test_runs_are_placed_in_turn_and_a_signal_lets_the_workers_leave(
    apart: Apart, pool: tuple[Waiting, Waiting]
) -> None:
    turns = []
    for number in range(4):
        taken = await placed(apart, f"turn-{number}")
        turns.append(taken["worker_id"])
        await by_id(pool, taken["worker_id"])[0].works(code=number)
    assert turns[:2] == turns[2:] and len(set(turns)) == 2
    assert len(await apart.place.events("worker.completed")) == 4
    assert len(await apart.place.events("worker.registered")) == 2
    for worker in pool:
        worker.program.signal(signal.SIGTERM)
        assert await worker.program.ended() == 0
    await apart.command("event", "verify")


async def test_a_violation_takes_one_worker_out_and_the_next_run_goes_to_the_other(
    apart: Apart, pool: tuple[Waiting, Waiting]
) -> None:
    taken = await placed(apart, "bad")
    bad, good = by_id(pool, taken["worker_id"])
    puppet = await bad.puppet()
    violation = await ask_proxy(apart.proxy_url, METADATA_URL, puppet.proxy_url)
    assert violation is not None and violation.reason == "egress.metadata_target"
    assert await bad.program.ended() == 1
    assert "the worker waits no longer" in bad.program.err.text
    assert not puppet.is_alive()
    for run_id in ("next", "and-next"):
        assert (await placed(apart, run_id))["worker_id"] == good.worker_id
        await good.works()


async def test_a_signal_during_a_run_lets_it_end_by_itself(apart: Apart) -> None:
    worker = await a_waiting_worker(apart)
    await placed(apart, "last")
    puppet = await worker.puppet()
    worker.program.signal(signal.SIGTERM)
    await worker.says("no new runs")
    assert (await puppet.get(apart.place.upstreams.url(API, "/open/thing")))["status"] == 200
    assert await puppet.exit(3) == 0
    assert "last ended with 3" in worker.program.err.text
    assert len(await apart.place.events("worker.completed")) == 1


async def one_waits(apart: Apart) -> bool:
    """Whether the fleet counts one worker that waits."""
    home = apart.place.home
    token = (home / "operator.token").read_text().strip()
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
        session.get((home / "admin.url").read_text().strip() + "/metrics") as answer,
    ):
        return f"\n{WORKERS_WAITING} 1" in await answer.text()


async def test_a_killed_workers_offer_ends_and_the_run_is_placed_again(apart: Apart) -> None:
    killed = await a_waiting_worker(apart)
    await apart.granted("again")
    async with apart.place.operator() as operator:
        await until("the fleet knows that it waits", lambda: one_waits(apart))
        killed.program.signal(signal.SIGSTOP)  # so that it takes nothing
        offer = await operator.place(PlaceRequest(run_id="again", ttl_ms=60_000))
        assert (offer.worker_id, offer.state) == (killed.worker_id, OfferState.OPEN)
        await killed.program.kill()

        async def is_over() -> bool:
            return (await operator.offer(offer.offer_id)).state in OVER

        await until("the offer ends", is_over)
    other = await a_waiting_worker(apart)
    taken = await placing(apart, "again")
    assert taken["worker_id"] == other.worker_id
    await other.works()
