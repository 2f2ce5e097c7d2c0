"""Handing evidence to a real fleet: what it takes over, and what a restored fleet gets again."""

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from palyra_egress.clock import now_monotonic_ms
from palyra_egress.proxy.bindings import BindingView
from palyra_egress.proxy.fleet_link import FleetLink
from palyra_egress.reasons import Reason
from palyra_fleet.client.errors import FleetProblem
from palyra_fleet.client.operator import OperatorClient
from palyra_fleet.client.proxy import ProxyClient
from palyra_fleet.serve import FleetServer, open_principals
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.settings.fleet_settings import FleetSettings
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import EnrolKeyRequest
from tests.egress.proxy.test_spool_and_log import VIOLATION
from tests.fakes.proxy_harness import WORKER, Harness, basic, proxy_harness, read_reply
from tests.fakes.until import until

POLICY = "version: 1\nname: test\nprofiles: {test: []}\n"


link_admin: dict[ProxyClient, str] = {}
"""Where the operator of each link's fleet is."""


@asynccontextmanager
async def fleet_for(harness: Harness, state: Path) -> AsyncIterator[FleetLink]:
    """A link to a real fleet of its own, which has enrolled the harness's proxy."""
    settings = harness.proxy.enforcement.settings
    key = SigningKey.load(settings.key_file)
    service = await FleetService.start(FleetSettings(state_dir=state))
    public_key = base64.b64encode(key.public_key).decode()
    enrolment = EnrolKeyRequest(name=settings.proxy_id, public_key=public_key)
    await service.enrol_proxy("test", enrolment)
    try:
        with tempfile.TemporaryDirectory(prefix="link-") as directory:
            socket_path = Path(directory) / "run" / "fleet.sock"
            principals = open_principals(Path(directory), "t" * 43)
            async with FleetServer.start(
                service, socket_path, "127.0.0.1", 0, principals
            ) as server:
                client = ProxyClient(socket_path, key)
                link_admin[client] = server.admin_url
                try:
                    yield FleetLink(harness.core, client)
                finally:
                    await client.close()
    finally:
        await service.close()


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with proxy_harness(tmp_path / "proxy", POLICY) as running:
        yield running


async def test_what_the_fleet_only_records_stays_blocked_here(harness: Harness, tmp_path: Path):
    """The fleet never gave that lease: it quarantines nobody, so its word must not unblock."""
    harness.core.view.block_here(WORKER)
    harness.core.spool.append(VIOLATION)
    async with fleet_for(harness, tmp_path / "fleet") as link:
        await link.deliver_pending()
        assert (await link.client.evidence_chain()).seq == 1
    assert harness.core.spool.pending == ()
    harness.tell("block", worker_id=WORKER)
    harness.tell("unblock", worker_id=WORKER)
    assert harness.core.view.is_blocked(WORKER)


async def test_a_fleet_restored_from_a_backup_gets_all_it_lacks_again(
    harness: Harness, tmp_path: Path
):
    for _ in range(3):
        harness.core.spool.append(VIOLATION)
    async with fleet_for(harness, tmp_path / "fleet") as link:
        await link.deliver_pending()
    assert harness.core.spool.pending == ()
    harness.core.spool.append(VIOLATION)
    async with fleet_for(harness, tmp_path / "restored") as link:
        with pytest.raises(FleetProblem, match="expected evidence 1, got 4"):
            await link.deliver_pending()
        assert [evidence.seq for evidence in harness.core.spool.pending] == [1, 2, 3, 4]
        assert harness.core.view.is_blocked(WORKER)
        await link.deliver_pending()
        assert (await link.client.evidence_chain()).seq == 4
    assert harness.core.spool.pending == ()


async def test_a_fleet_that_holds_no_less_rewinds_nothing(harness: Harness, tmp_path: Path):
    harness.core.spool.append(VIOLATION)
    async with fleet_for(harness, tmp_path / "fleet") as link:
        await link.deliver_pending()
        assert not harness.core.spool.rewind((await link.client.evidence_chain()).seq)
    assert harness.core.spool.pending == ()


async def test_a_restored_fleet_is_told_without_a_new_violation(harness: Harness, tmp_path: Path):
    harness.core.spool.append(VIOLATION)
    async with fleet_for(harness, tmp_path / "fleet") as link:
        await link.deliver_pending()
        await link.compare_chain()
        assert not harness.core.view.is_blocked(WORKER)
    async with fleet_for(harness, tmp_path / "restored") as link:
        await link.compare_chain()
        assert (await link.client.evidence_chain()).seq == 1
    assert harness.core.view.is_blocked(WORKER)
    assert harness.core.spool.pending == ()


def operator_of(link: FleetLink) -> OperatorClient:
    return OperatorClient(link_admin[link.client], "t" * 43)


async def take_back(harness: Harness, link: FleetLink) -> None:
    name = harness.proxy.enforcement.settings.proxy_id
    async with operator_of(link) as operator:
        await operator.take_back("proxy", name, "stolen")


def refusal(harness: Harness) -> Reason | None:
    return harness.core.view.refusal(now_monotonic_ms())


async def test_a_proxy_that_was_taken_back_believes_nothing_any_more_at_once(
    harness: Harness, tmp_path: Path
):
    """It does not wait until its view is too old."""
    async with fleet_for(harness, tmp_path / "fleet") as link:
        harness.core.view = BindingView()  # the harness has told it of another fleet
        following = spawn(link.follow_view(), "view")
        reporting = spawn(link.report(), "report")
        try:
            async with asyncio.timeout(60):
                await link.heard.wait()
                await take_back(harness, link)
                await until("the view is stale", lambda: refusal(harness) is Reason.VIEW_STALE)
        finally:
            for task in (following, reporting):
                task.cancel()


async def test_a_proxy_the_fleet_does_not_know_refuses_and_cuts_no_answer_off(
    harness: Harness, tmp_path: Path
):
    """It asks the fleet again and again, and a worker's connection outlives each refusal."""
    attempts = asyncio.Semaphore(0)

    async def join() -> None:
        attempts.release()

    harness.core.view = BindingView()
    async with fleet_for(harness, tmp_path / "fleet") as link:
        await take_back(harness, link)
        link.join = join
        following = spawn(link.follow_view(), "view")
        try:
            async with asyncio.timeout(60):
                for _ in range(2):  # what the harness had told has had its end
                    await attempts.acquire()
                reader, writer = await harness.connect()
                writer.write(b"GET http://api.example/ HTTP/1.1\r\n")
                for _ in range(3):
                    await attempts.acquire()
                head = f"Host: api.example\r\nProxy-Authorization: {basic()}\r\n\r\n"
                writer.write(head.encode())
                reply = await read_reply(reader)
        finally:
            following.cancel()
    assert reply is not None and (reply.status, reply.reason) == (503, "fleet.view_stale")


async def test_what_passed_is_told_to_the_fleet_by_reason_and_by_rule(
    harness: Harness, tmp_path: Path
):
    reader, writer = await harness.connect()
    writer.write(
        f"GET http://api.example/ HTTP/1.1\r\nHost: api.example\r\n"
        f"Proxy-Authorization: {basic()}\r\n\r\n".encode()
    )
    assert await read_reply(reader) is not None
    async with fleet_for(harness, tmp_path / "fleet") as link:
        link.view_problem = None
        telling = spawn(link.tell_traffic(), "traffic")
        try:
            async with asyncio.timeout(60), operator_of(link) as operator:
                while not (told := await operator.traffic()).proxies:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            telling.cancel()
    (proxy,) = told.proxies
    assert proxy.proxy_id == harness.proxy.enforcement.settings.proxy_id
    assert proxy.report.refused == {"egress.host_not_allowed": 1}
    assert proxy.report.policy_digest == harness.core.service.policy_digest
