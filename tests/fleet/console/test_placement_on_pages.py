"""Who waits for a run, and which is offered to whom, on the pages of workers of a real fleet."""

import re
from collections.abc import Mapping

from palyra_fleet.client import WorkerClient
from palyra_fleet.console import words
from palyra_fleet.wire.models import HeartbeatRequest
from palyra_fleet.wire.placement_models import PlaceRequest
from tests.fakes.raw_http import ask
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fakes.worker_bench import GRANT
from tests.fleet.api.test_with_real_fleet import registered
from tests.fleet.cli.test_console_as_described import signed_in


async def words_of(
    fleet: RealFleet, headers: Mapping[str, str], path: str, status: int = 200
) -> str:
    """What a page says, without its markup."""
    url, only = fleet.server.admin_url, {"Cookie": headers["Cookie"]}
    answer = await ask(url, "GET", f"/console{path}", b"", only)
    assert answer.status == status, answer
    main = answer.body.decode().partition("<main")[2].partition("</main>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", main).split())


async def test_who_waits_and_what_is_offered_is_told() -> None:
    async with real_fleet() as fleet, registered(fleet) as key:
        headers = await signed_in(fleet.server.admin_url, fleet.token)
        (worker,) = await fleet.operator.workers()
        own = f"/workers/{worker.worker_id}"
        assert "wait for a run 1" not in await words_of(fleet, headers, "/workers")
        nobody = await words_of(fleet, headers, "/workers?waits=true")
        assert "wait for a run 0" in nobody and "No workers" in nobody
        assert await fleet.operator.workers(waits=True) == ()
        assert await fleet.operator.workers(waits=False) == (worker,)

        async with WorkerClient(fleet.server.socket_path, key) as client:
            beat = HeartbeatRequest(session_epoch=worker.session_epoch, seq=1, waits=True)
            await client.heartbeat(beat)
        (waiting,) = await fleet.operator.workers(waits=True)
        assert waiting.worker_id == worker.worker_id
        assert await fleet.operator.workers(waits=False) == ()
        for path in ("/workers", "/workers?waits=true"):
            found = await words_of(fleet, headers, path)
            assert "wait for a run 1" in found and "available waits for a run" in found, path
        assert "Placement waits for a run" in await words_of(fleet, headers, own)

        await fleet.operator.create_grant(GRANT.model_copy(update={"run_id": "run-placed"}))
        await fleet.operator.place(PlaceRequest(run_id="run-placed", ttl_ms=60_000))
        assert "run-placed offered" in await words_of(fleet, headers, "/workers")
        assert "Offered run run-placed" in await words_of(fleet, headers, own)
        assert "Placement" not in await words_of(fleet, headers, own)


async def test_only_workers_that_fit_what_was_asked_for_are_listed() -> None:
    async with real_fleet() as fleet, registered(fleet):
        headers = await signed_in(fleet.server.admin_url, fleet.token)
        (worker,) = await fleet.operator.workers()
        name = words.short(worker.worker_id)
        for query, found in (
            ("state=available&eligibility=eligible&attestor=launcher&capability=", True),
            ("state=&eligibility=&attestor=&capability=", True),
            ("eligibility=cordoned", False),
            ("attestor=k8s_psat", False),
            ("capability=gpu", False),
            ("waits=true", False),
            ("waits=false&state=available", True),
            ("waits=", True),
            ("demanded=true", False),
            ("demanded=false&state=available", True),
            ("demanded=", True),
            ("state=quarantined", False),
            ("label=", True),
            ("label=zone", False),
        ):
            shown = await words_of(fleet, headers, f"/workers?{query}")
            assert (name in shown, "No workers like this." in shown) == (found, not found), query
        url, only = fleet.server.admin_url, {"Cookie": headers["Cookie"]}
        for wrong in (
            *("state=nowhere", "state=waiting", "eligibility=x", "attestor=x", "waits=1"),
            *("demanded=1", "demanded=yes"),
            *("capability=%00", "label=-"),
        ):
            answer = await ask(url, "GET", f"/console/workers?{wrong}", b"", only)
            assert (answer.status, answer.reason) == (400, "api.query_invalid"), wrong
