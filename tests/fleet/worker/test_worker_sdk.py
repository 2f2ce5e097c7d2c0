"""The examples of docs/worker-sdk.md, run as they stand there against the real fleet."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from ulid import ULID

from palyra_fleet.client import FleetProblem
from palyra_fleet.refusals import FleetReason
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import ArtifactModel, ArtifactTransportModel
from palyra_fleet.wire.placement_models import OfferView, PlaceRequest
from tests.fakes.real_fleet import RealFleet, enrolment, real_fleet
from tests.fakes.until import until
from tests.fakes.worker_bench import GRANT, RUN_ID

PAGE = Path(__file__).resolve().parents[3] / "docs" / "worker-sdk.md"


def example(name: str) -> Callable[..., Any]:
    """A function of the page, with what stands above it."""
    made: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), made)
    found: Callable[..., Any] = made[name]
    return found


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[RealFleet]:
    async with real_fleet() as made:
        await made.accept("sh")
        launcher = SigningKey.load_or_create(tmp_path / "launcher.pem")
        await made.operator.enrol_launcher(enrolment("launcher-2", launcher))
        yield made


async def test_the_example_of_the_page_attests_works_and_completes(
    fleet: RealFleet, tmp_path: Path
) -> None:
    work = example("work")
    await fleet.operator.create_grant(GRANT)
    who = str(ULID())
    place = (fleet.server.socket_path, fleet.proxy.address, tmp_path / "launcher.pem", who)
    assert await work(*place, RUN_ID) == "completed"
    with pytest.raises(FleetProblem):  # the approval is spent
        await work(*place, RUN_ID)
    (worker,) = await fleet.operator.workers()
    assert (worker.worker_id, worker.work) == (who, "idle")


async def test_the_example_that_waits_takes_two_runs_and_declines_a_third(
    fleet: RealFleet, tmp_path: Path
) -> None:
    place = (fleet.server.socket_path, fleet.proxy.address, tmp_path / "launcher.pem", str(ULID()))
    waiting = spawn(example("wait_and_work")(*place), "the example")
    named = ArtifactModel(path="rows.csv", digest_sha256="0" * 64, size_bytes=1)
    for run_id, transport in (
        ("first", ArtifactTransportModel()),
        ("with-inputs", ArtifactTransportModel(inputs=(named,))),
        ("second", ArtifactTransportModel()),
    ):
        await fleet.operator.create_grant(GRANT.model_copy(update={"run_id": run_id}))
        await offered(
            fleet, PlaceRequest(run_id=run_id, ttl_ms=60_000, artifact_transport=transport)
        )
    assert await waiting == ["first", "second"]


async def offered(fleet: RealFleet, request: PlaceRequest) -> OfferView:
    """As soon as somebody waits."""

    async def ask() -> OfferView | None:
        try:
            return await fleet.operator.place(request)
        except FleetProblem as problem:
            if problem.reason != FleetReason.NO_WORKER:
                raise
            return None

    return await until(f"somebody waits for {request.run_id}", ask)
