"""What pages say of a worker that drains, of whom something is demanded, and that is not there."""

import re

import pytest
from ulid import ULID

from palyra_fleet.cli.output import moment, show_one
from palyra_fleet.console import words
from palyra_fleet.wire.reattest_models import ReattestRequest
from palyra_fleet.wire.worker_actions import WorkerAction
from tests.fakes.real_fleet import real_fleet
from tests.fakes.until import until
from tests.fleet.api.test_with_real_fleet import registered
from tests.fleet.cli.test_console_as_described import signed_in
from tests.fleet.console.test_placement_on_pages import words_of

MINUTE_MS = 60_000


async def test_until_when_a_worker_drains_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with real_fleet() as fleet, registered(fleet):
        headers = await signed_in(fleet.server.admin_url, fleet.token)
        (worker,) = await fleet.operator.workers()
        own = f"/workers/{worker.worker_id}"
        assert worker.drain_deadline_unix_ms is None
        drained = await fleet.operator.drain(worker.worker_id, "why", 90 * MINUTE_MS)
        (event,) = [one for one in await fleet.operator.events(0, 100) if "drained" in one.reason]
        deadline = event.at_unix_ms + 90 * MINUTE_MS
        assert drained.drain_deadline_unix_ms == deadline
        assert await fleet.operator.worker(worker.worker_id) == drained
        show_one(drained, "table")
        assert re.search(rf"^drain_deadline +{moment(deadline)}$", capsys.readouterr().out, re.M)
        said = await words_of(fleet, headers, own)
        assert "Eligibility draining: a lease that it still holds ends in" in said

        await fleet.operator.drain(worker.worker_id, "at once", 1)

        async def over() -> bool:
            said = await words_of(fleet, headers, own)
            return "Eligibility draining: its time was over" in said

        await until("the page says that the time was over", over)
        back = await fleet.operator.act(WorkerAction.UNCORDON, worker.worker_id, "why")
        assert back.drain_deadline_unix_ms is None
        assert "Eligibility eligible Liveness" in await words_of(fleet, headers, own)


async def test_of_whom_new_evidence_is_demanded_is_found() -> None:
    async with real_fleet() as fleet, registered(fleet):
        headers = await signed_in(fleet.server.admin_url, fleet.token)
        (worker,) = await fleet.operator.workers()
        await fleet.operator.reattest(worker.worker_id, ReattestRequest(reason="why"))
        name = words.short(worker.worker_id)
        found = await words_of(fleet, headers, "/workers?demanded=true")
        assert name in found and "new evidence demanded proxy-1" in found
        assert name not in await words_of(fleet, headers, "/workers?demanded=false")


async def test_a_worker_that_is_not_there_has_a_page_that_says_why() -> None:
    async with real_fleet() as fleet, registered(fleet):
        headers = await signed_in(fleet.server.admin_url, fleet.token)
        (worker,) = await fleet.operator.workers()
        why = "its machine <b>was</b> sold"
        await fleet.operator.act(WorkerAction.EVICT, worker.worker_id, why)
        said = await words_of(fleet, headers, f"/workers/{worker.worker_id}", 404)
        assert "This worker was evicted" in said
        assert "Why its machine &lt;b&gt;was&lt;/b&gt; sold The workers there are" in said
        assert "What happened" in said and "evicted by operator" in said
        said = await words_of(fleet, headers, f"/workers/{ULID()}", 404)
        assert "The fleet does not know this worker" in said and "What happened" not in said
