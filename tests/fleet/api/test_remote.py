"""Workers and proxies on other machines: who may call what, from which device, and for how long."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from palyra_fleet.client import FleetProblem, FleetUnavailable, ProxyClient, transport
from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.nodes.worker_certificates import certificate_end_of
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import (
    HeartbeatRequest,
    LeaseAnswer,
    LeaseCommand,
    LeaseRequest,
    WorkspaceScopeModel,
)
from tests.fakes.fleet_world import WorkerPen
from tests.fakes.identity_world import QUIET
from tests.fakes.ledger_world import ulid
from tests.fakes.remote_world import RemoteWorld, remote_world


@pytest.fixture
async def world() -> AsyncIterator[RemoteWorld]:
    async with remote_world() as served:
        yield served


async def reason_of(call: object) -> str:
    with pytest.raises(FleetProblem) as caught:
        await call  # type: ignore[misc]
    return caught.value.reason


async def test_a_worker_and_a_proxy_of_other_machines_work_as_those_of_this_one(
    world: RemoteWorld,
) -> None:
    host, (proxy_host, proxy) = await world.worker_host(), await world.proxy_host()
    worker = WorkerPen(ulid(201))
    await world.register(host, worker, proxy)
    await world.fleet.grant("run-1")
    async with host.as_worker(worker.key) as client, proxy_host.as_proxy() as at_proxy:
        lease = await world.fleet.ask(worker, "run-1")
        async with aclosing(at_proxy.view()) as view:
            first = await anext(view)
            assert [one.lease_id for one in first.bindings] == [lease.lease_id]
            answer = await at_proxy.send_violation(proxy.violation(lease, world.clock()))
            assert answer.outcome == "quarantined"
            heard = [await anext(view) for _ in range(2)]
        assert {message.kind for message in heard} == {"unbind", "block"}
        orders = await client.orders(0, 1_000)
        assert {order.kind.value for order in orders} == {"stop_lease", "quarantined"}


@pytest.mark.parametrize("whose", ["the worker's machine", "its proxy's machine"])
async def test_no_lease_outlasts_the_certificate_of_the_worker_s_or_its_proxy_s_machine(
    whose: str,
) -> None:
    short = IdentitySettings(reap_every_ms=QUIET, device_life_ms=600_000)
    async with remote_world(identity=short) as world:
        host, (proxy_host, proxy) = await world.worker_host(), await world.proxy_host()
        worker = WorkerPen(ulid(201))
        sooner = host if whose == "the worker's machine" else proxy_host
        ends = {one.device_id: one.certificate.expires_at_unix_ms for one in world.machines}
        ends[sooner.device_id] -= 7_000  # the other's certificate outlasts it
        world.service.tell_certificate_ends(ends.get)
        answer = await world.register(host, worker, proxy)
        end = ends[sooner.device_id]
        assert answer.attested_until_unix_ms == end
        await world.fleet.grant("run-1")
        lease = await world.fleet.ask(worker, "run-1", ttl_ms=600_000)
        assert lease.expires_at_unix_ms == end
        command = LeaseCommand(session_epoch=worker.session_epoch, fence=lease.fence)
        async with host.as_worker(worker.key) as client:
            renewed = await client.renew_lease(lease.lease_id, command)
        assert renewed.expires_at_unix_ms == end


async def test_certificates_that_the_identity_issued_end_attestations(world: RemoteWorld) -> None:
    host = await world.worker_host()
    until = certificate_end_of(world.identity, host.device_id)
    assert until == host.certificate.expires_at_unix_ms
    await world.identity.revoke_device(host.device_id, "lost", "alice")
    assert certificate_end_of(world.identity, host.device_id) is None
    assert certificate_end_of(world.identity, ulid(9)) is None


async def test_a_machine_whose_certificate_s_end_is_not_known_admits_no_worker(
    world: RemoteWorld,
) -> None:
    host, (_, proxy) = await world.worker_host(), await world.proxy_host()
    world.service.tell_certificate_ends(lambda device_id: None)
    admitted = world.register(host, WorkerPen(ulid(201)), proxy)
    assert await reason_of(admitted) == "attestation.expired"


async def test_a_key_is_good_on_connections_of_its_own_device_only(world: RemoteWorld) -> None:
    host, other = await world.worker_host(), await world.worker_host()
    _, proxy = await world.proxy_host()
    worker = WorkerPen(ulid(201))
    await world.register(host, worker, proxy)
    beat = HeartbeatRequest(session_epoch=worker.session_epoch, seq=1)
    async with other.as_worker(worker.key) as client:
        assert await reason_of(client.heartbeat(beat)) == "api.other_device"
    async with host.as_worker(worker.key) as client:
        await client.heartbeat(beat)


async def test_local_keys_are_good_on_the_socket_only_and_those_of_devices_nowhere_else(
    world: RemoteWorld,
) -> None:
    proxy_host, pen = await world.proxy_host()
    async with proxy_host.as_proxy(world.fleet.proxy.key) as client:
        assert await reason_of(client.evidence_chain()) == "api.other_device"
    async with ProxyClient(world.server.socket_path, pen.key) as client:
        assert await reason_of(client.evidence_chain()) == "api.other_device"
    async with ProxyClient(world.server.socket_path, world.fleet.proxy.key) as client:
        assert (await client.evidence_chain()).seq == 0


async def test_a_node_may_not_call_a_proxys_routes_nor_a_proxy_a_nodes(world: RemoteWorld) -> None:
    host, (proxy_host, pen) = await world.worker_host(), await world.proxy_host()
    async with host.as_proxy(pen.key) as client:
        assert await reason_of(client.evidence_chain()) == "api.caller_not_allowed"
    async with host.as_itself() as itself:
        taken = itself.enrol_proxy("proxy-mine", host.key.public_key)
        assert await reason_of(taken) == "api.caller_not_allowed"
    async with proxy_host.as_worker(SigningKey.generate()) as client:
        assert await reason_of(client.issue_nonce()) == "api.caller_not_allowed"


async def test_a_machine_that_paired_as_something_else_has_no_routes(world: RemoteWorld) -> None:
    desktop = await world.pair("desktop")
    async with desktop.as_itself() as itself:
        assert await reason_of(itself.rotate_certificate("x")) == "api.caller_not_allowed"
        await itself.is_accepted()  # health is for whoever is paired


async def test_a_proxy_enrols_the_key_it_paired_with_and_no_other(world: RemoteWorld) -> None:
    host = await world.pair("proxy")
    async with host.as_itself() as itself:
        stranger = SigningKey.generate().public_key
        assert await reason_of(itself.enrol_proxy("proxy-x", stranger)) == "api.other_device"
        await itself.enrol_proxy("proxy-x", host.key.public_key)
        await itself.enrol_proxy("proxy-x", host.key.public_key)
        again = itself.enrol_proxy("proxy-y", host.key.public_key)
        assert await reason_of(again) == "enrolment.conflict"


async def test_a_launcher_vouches_on_its_own_device_only(world: RemoteWorld) -> None:
    host, other = await world.worker_host(), await world.worker_host()
    _, proxy = await world.proxy_host()
    borrowed = world.register(other, WorkerPen(ulid(201)), proxy, launcher=host.key)
    assert await reason_of(borrowed) == "attestation.evidence_refused"
    local = world.register(other, WorkerPen(ulid(202)), proxy, launcher=world.fleet.launcher)
    assert await reason_of(local) == "attestation.evidence_refused"
    await world.register(host, WorkerPen(ulid(203)), proxy)


async def test_a_revocation_ends_streams_and_connections_at_once_and_takes_enrolments_with_it(
    world: RemoteWorld,
) -> None:
    host, (proxy_host, proxy) = await world.worker_host(), await world.proxy_host()
    worker = WorkerPen(ulid(201))
    await world.register(host, worker, proxy)
    await world.fleet.grant("run-1")
    lease = await world.fleet.ask(worker, "run-1")
    async with proxy_host.as_proxy() as client, aclosing(client.view()) as view:
        await anext(view)
        await world.identity.revoke_device(proxy_host.device_id, "stolen", "alice")
        with pytest.raises(FleetUnavailable):
            while True:
                await anext(view)
        assert await reason_of(client.evidence_chain()) == "node.certificate_revoked"
    async with world.operator() as operator:
        await world.service.reap()
        (taken,) = [one for one in await operator.enrolments("proxy") if one.device_id]
        assert taken.revoked_at_unix_ms is not None
        (seen,) = [one for one in await operator.workers() if one.worker_id == worker.worker_id]
        assert seen.lease_id is None and seen.attested_until_unix_ms <= world.clock()
    assert lease.worker_id == worker.worker_id


async def test_a_worker_waiting_for_orders_is_let_go_when_its_device_is_revoked(
    world: RemoteWorld,
) -> None:
    host, (_, proxy) = await world.worker_host(), await world.proxy_host()
    worker = WorkerPen(ulid(201))
    await world.register(host, worker, proxy)
    async with host.as_worker(worker.key) as client:
        asked = spawn(client.orders(0, 30_000), "orders")
        while not world.service._desk._waiting:
            await world.service.reap()
        await world.identity.revoke_device(host.device_id, "stolen", "alice")
        with pytest.raises((FleetUnavailable, FleetProblem)):
            await asked
        while world.service._desk._waiting:
            await world.service.reap()


async def test_a_lease_whose_answer_was_lost_is_given_once_and_told_again(
    world: RemoteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, (_, proxy) = await world.worker_host(), await world.proxy_host()
    worker = WorkerPen(ulid(201))
    await world.register(host, worker, proxy)
    await world.fleet.grant("run-1")
    real, lost = transport._read_bounded, []

    async def loses_the_first(response: object) -> bytes:
        raw = await real(response)  # type: ignore[arg-type]
        if not lost:
            lost.append(raw)
            raise FleetUnavailable("the answer was lost")
        return raw

    async with host.as_worker(worker.key) as client:
        monkeypatch.setattr(transport, "_read_bounded", loses_the_first)
        lease = await client.request_lease(
            LeaseRequest(
                session_epoch=worker.session_epoch,
                run_id="run-1",
                ttl_ms=60_000,
                workspace_scope=WorkspaceScopeModel(
                    workspace_root="/job/run", allowed_paths=("/job/run/in",)
                ),
            )
        )
    assert LeaseAnswer.model_validate_json(lost[0]) == lease
    assert len(await world.service.leases(10)) == 1


async def test_no_machine_takes_over_another_ones_worker(world: RemoteWorld) -> None:
    host, other = await world.worker_host(), await world.worker_host()
    _, proxy = await world.proxy_host()
    await world.register(host, WorkerPen(ulid(201)), proxy)
    await world.fleet.register(WorkerPen(ulid(202)))
    for taken in (201, 202):
        again = world.register(other, WorkerPen(ulid(taken)), proxy)
        assert await reason_of(again) == "worker.already_registered"
    await world.register(host, WorkerPen(ulid(201)), proxy)


async def test_a_revoked_machine_learns_nothing_not_even_which_routes_there_are(
    world: RemoteWorld,
) -> None:
    host = await world.pair("node")
    await world.identity.revoke_device(host.device_id, "stolen", "alice")
    async with host.as_itself() as itself:
        for target in ("/livez", "/v1/nothing", "/v1/workers"):
            assert await reason_of(itself.send("GET", target)) == "node.certificate_revoked"
        assert await reason_of(itself.send("PUT", "/livez")) == "node.certificate_revoked"
