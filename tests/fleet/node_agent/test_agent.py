"""The node agent against the real node service over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.identity.messages import PairedDevice
from palyra_fleet.identity.records import CodeMethod
from palyra_fleet.node_agent import agent as agent_module
from palyra_fleet.node_agent.agent import (
    AgentSettings,
    NodeAgent,
    NodeRefusedForGood,
    revoke_own_pairing,
)
from palyra_fleet.node_agent.enrolment import (
    EnrolmentSettings,
    PairingFailed,
    enrol,
    method_of,
)
from palyra_fleet.node_agent.keys import CertificateKey, CertificateRefused, merged_roots
from palyra_fleet.node_agent.material import (
    AgentHome,
    Certificate,
    MaterialUnusable,
    NodeMaterial,
    NotPaired,
)
from palyra_fleet.nodes.capabilities import CapabilityAsk
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.node_models import DeviceState, RotateDeviceRequest
from tests.fakes.identity_world import QUIET
from tests.fakes.node_world import NodeWorld, node_world
from tests.fakes.pairing_device import PairingDevice
from tests.fakes.until import until

AT_ONCE = IdentitySettings(reap_every_ms=QUIET, overlap_ms=0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    async with node_world(tmp_path / "fleet", identity=AT_ONCE) as fresh:
        yield fresh


@pytest.fixture
def home(tmp_path: Path) -> AgentHome:
    return AgentHome(tmp_path / "agent")


def enrolment(world: NodeWorld, **more: str) -> EnrolmentSettings:
    return replace(
        EnrolmentSettings(
            f"127.0.0.1:{world.port('enrolment')}",
            f"127.0.0.1:{world.port('node')}",
            world.authority.trust_bundle_pem,
        ),
        **more,
    )


async def decide(world: NodeWorld, *, approve: bool) -> str:
    """Wait for the one request and decide it, as an operator does."""
    while not (found := [r for r in world.pairing.requests() if r.decided_by is None]):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await world.pairing.decide(found[0].approval_id, approve=approve, decided_by="anna")
    return found[0].session_id


async def paired(
    world: NodeWorld, home: AgentHome, method: CodeMethod = CodeMethod.PIN
) -> NodeMaterial:
    minted = await world.pairing.mint_code(method, "anna")
    deciding = spawn(decide(world, approve=True), "operator")
    material = await enrol(enrolment(world), minted.code, lambda line: None)
    await deciding
    home.save(material)
    return material


@asynccontextmanager
async def running(home: AgentHome, **settings: object) -> AsyncIterator[NodeAgent]:
    said: list[str] = []
    agent = NodeAgent(home, AgentSettings(say=said.append, **settings))  # type: ignore[arg-type]
    task = spawn(agent.run(), "agent under test")
    try:
        async with asyncio.timeout(60):
            connected = spawn(agent.connected.wait(), "connected")
            await asyncio.wait({connected, task}, return_when=asyncio.FIRST_COMPLETED)
            connected.cancel()
        yield agent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# --- pairing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(CodeMethod))
async def test_an_approved_node_gets_a_certificate_and_both_sides_showed_the_same(
    world: NodeWorld, home: AgentHome, method: CodeMethod
) -> None:
    minted = await world.pairing.mint_code(method, "anna")
    shown: list[str] = []
    deciding = spawn(decide(world, approve=True), "operator")
    material = await enrol(enrolment(world), minted.code, shown.append)
    session = await deciding
    (request,) = [r for r in world.pairing.requests() if r.session_id == session]
    verified = request.verified_pairing
    assert verified is not None
    assert f"identity fingerprint  {verified.identity_fingerprint}" in shown
    assert f"transcript hash       {verified.transcript_hash_hex}" in shown
    found = world.identity.check(material.certificate.fingerprint, world.clock())
    assert isinstance(found, PairedDevice)
    assert found.device_id == material.device_id
    assert material.trusted_roots_pem == world.authority.trust_bundle_pem


async def test_a_rejected_node_hears_why_and_keeps_nothing(world: NodeWorld) -> None:
    minted = await world.pairing.mint_code(CodeMethod.PIN, "anna")
    deciding = spawn(decide(world, approve=False), "operator")
    with pytest.raises(PairingFailed, match="an operator rejected it"):
        await enrol(enrolment(world), minted.code, lambda line: None)
    await deciding


async def test_a_wrong_code_is_refused_in_the_published_words(world: NodeWorld) -> None:
    with pytest.raises(PairingFailed, match="pairing code is missing or expired"):
        await enrol(enrolment(world), "000000", lambda line: None)


async def test_a_fleet_with_another_root_is_not_spoken_to(world: NodeWorld, tmp_path: Path) -> None:
    minted = await world.pairing.mint_code(CodeMethod.PIN, "anna")
    async with node_world(tmp_path / "other", identity=AT_ONCE) as stranger:
        settings = enrolment(world, root_pem=stranger.authority.trust_bundle_pem)
        with pytest.raises(PairingFailed, match="is not the one we trust"):
            await enrol(settings, minted.code, lambda line: None)
    assert list(world.pairing.requests()) == []


@pytest.mark.parametrize(
    "code", ["", "12345", "1234567", "12345a", "short token", "é" * 20, "x" * 129]
)
def test_what_is_no_code_is_told_before_anything_is_sent(code: str) -> None:
    with pytest.raises(PairingFailed, match="that is no code"):
        method_of(code)


# --- what is kept -------------------------------------------------------------------------------


async def test_what_is_kept_is_sealed_and_comes_back(world: NodeWorld, home: AgentHome) -> None:
    material = await paired(world, home)
    assert home.load() == material
    stored = home.material_file.read_bytes()
    assert b"PRIVATE KEY" not in stored
    assert material.signing_seed_hex.encode() not in stored
    assert material.signing_seed_hex not in repr(material)
    assert "PRIVATE KEY" not in repr(material)
    modes = {file.name: file.stat().st_mode & 0o777 for file in home.directory.iterdir()}
    assert set(modes.values()) == {0o600}


async def test_a_damaged_file_is_told(world: NodeWorld, home: AgentHome) -> None:
    await paired(world, home)
    stored = bytearray(home.material_file.read_bytes())
    stored[-1] ^= 1
    home.material_file.write_bytes(bytes(stored))
    with pytest.raises(MaterialUnusable, match=r"material\.sealed: .*changed"):
        home.load()


def test_a_directory_without_a_pairing_is_told(home: AgentHome) -> None:
    with pytest.raises(NotPaired):
        home.load()


async def test_a_certificate_that_is_not_ours_is_not_taken(
    world: NodeWorld, home: AgentHome
) -> None:
    material = await paired(world, home)
    key = CertificateKey.make(material.device_id)
    roots, pem = material.trusted_roots_pem, material.certificate.certificate_pem
    with pytest.raises(CertificateRefused, match="another key"):
        key.certificate(pem, material.device_id, roots, 1)
    with pytest.raises(CertificateRefused, match="no certificate"):
        key.certificate("nonsense", material.device_id, roots, 1)
    issued = world.authority.sign_request(key.request_pem, "0" * 26, world.clock())
    assert issued is not None
    with pytest.raises(CertificateRefused, match="another device"):
        key.certificate(issued.certificate_pem, material.device_id, roots, 1)
    with pytest.raises(CertificateRefused, match="no trust root"):
        merged_roots(roots, "nonsense")
    assert merged_roots(roots, "") == roots


# --- a running node -----------------------------------------------------------------------------


async def test_it_registers_and_beats(world: NodeWorld, home: AgentHome) -> None:
    material = await paired(world, home)
    async with running(home, heartbeat_every_s=0.05):
        await until("the node has beaten", lambda: _last_event(world, material) == "node.heartbeat")
        record = world.state.nodes[material.device_id]
        assert [c.name for c in record.capabilities] == ["echo", "system.health", "system.identity"]
    await until("the node stops", lambda: _last_event(world, material) == "node.stopping")


def _last_event(world: NodeWorld, material: NodeMaterial) -> str | None:
    record = world.state.nodes.get(material.device_id)
    return None if record is None else record.last_event_name


@pytest.mark.parametrize("capability", ["echo", "system.health", "system.identity"])
async def test_it_answers_what_it_offers(
    world: NodeWorld, home: AgentHome, capability: str
) -> None:
    material = await paired(world, home)
    async with running(home, heartbeat_every_s=5.0):
        ask = CapabilityAsk(material.device_id, capability, b'{"text":"h\\u00e9"}', 4096, "anna")
        async with asyncio.timeout(60):
            result = await world.service.execute(ask)
    assert result.success, result
    output = json.loads(result.output_json)
    match capability:
        case "echo":
            assert output == {"text": "hé"}
        case "system.health":
            assert output["status"] == "ok"
        case _:
            assert output["device_id"] == material.device_id
            assert output["certificate_fingerprint"] == material.certificate.fingerprint


async def test_it_renews_at_half_life_and_the_old_certificate_ends_with_the_first_use(
    world: NodeWorld, home: AgentHome
) -> None:
    material = await paired(world, home)
    before = material.certificate
    shift = (before.expires_at_unix_ms - before.issued_at_unix_ms) // 2 + 1_000
    late = lambda: world.clock() + shift  # noqa: E731
    async with running(home, heartbeat_every_s=0.05, now_unix_ms=late) as agent:
        await until("the certificate was rotated", lambda: agent.rotations >= 1)
        await until(
            "the new certificate is in use",
            lambda: home.load().next_certificate is None and home.load().certificate != before,
        )
    after = home.load().certificate
    assert after.private_key_pem != before.private_key_pem
    refusal = world.identity.check(before.fingerprint, world.clock())
    assert "revoked" in str(refusal)


async def test_it_renews_with_a_new_key_when_an_operator_demands_it(
    world: NodeWorld, home: AgentHome
) -> None:
    before = (await paired(world, home)).certificate
    operations = NodeOperations(world.service)
    asked = RotateDeviceRequest(reason="the key may be in other hands")
    async with running(home, heartbeat_every_s=5.0) as agent:
        (device,) = operations.devices(9)
        demanded = await operations.rotate_device("anna", device.device_id, asked)
        assert demanded.state is DeviceState.ROTATING
        await until("the new certificate is in use", lambda: _is_renewed(home, before))
        assert agent.rotations == 1
    after = home.load().certificate
    assert after.private_key_pem != before.private_key_pem
    assert "revoked" in str(world.identity.check(before.fingerprint, world.clock()))
    (device,) = operations.devices(9)
    assert (device.state, device.rotation) == (DeviceState.PAIRED, None)


async def test_it_hears_of_a_demand_when_it_comes_back(world: NodeWorld, home: AgentHome) -> None:
    before = (await paired(world, home)).certificate
    asked = RotateDeviceRequest(reason="the key may be in other hands")
    device_id = home.load().device_id
    await NodeOperations(world.service).rotate_device("anna", device_id, asked)
    async with running(home, heartbeat_every_s=5.0):
        await until("the new certificate is in use", lambda: _is_renewed(home, before))
    assert "revoked" in str(world.identity.check(before.fingerprint, world.clock()))


def _is_renewed(home: AgentHome, before: Certificate) -> bool:
    material = home.load()
    return material.next_certificate is None and material.certificate != before


async def test_it_follows_a_change_of_the_authority_without_being_paired_again(
    world: NodeWorld, home: AgentHome
) -> None:
    material = await paired(world, home)
    old_root = material.trusted_roots_pem
    async with running(home, heartbeat_every_s=0.05) as agent:
        fresh = await world.identity.rotate_authority("it is time", "anna")
        await until("the certificate was rotated", lambda: agent.rotations == 1)
        await until("the new certificate is in use", lambda: home.load().next_certificate is None)
        await world.identity.settle()
        await world.identity.tidy()
    assert home.load().trusted_roots_pem.count("BEGIN CERTIFICATE") == 2
    assert [a.authority_id for a in world.identity.authorities()] == [fresh]
    assert world.identity.server_identity().authority_id == fresh
    async with running(home, heartbeat_every_s=0.05) as agent:
        assert agent.connected.is_set()
    # who missed it all knows only a root that is trusted no more
    home.save(replace(home.load(), trusted_roots_pem=old_root))
    late = NodeAgent(home, AgentSettings())
    with pytest.raises(grpc.aio.AioRpcError, match="CERTIFICATE_VERIFY_FAILED"):
        await late._connection(home.load())


async def test_it_comes_back_when_the_fleet_does(tmp_path: Path, home: AgentHome) -> None:
    async with node_world(tmp_path / "fleet", identity=AT_ONCE) as world:
        material = await paired(world, home)
        ports = world.port("enrolment"), world.port("node")
    settings = AgentSettings(heartbeat_every_s=0.05)
    agent = NodeAgent(home, settings)
    task = spawn(agent.run(), "agent under test")
    try:
        await until("its status is written", home.status_file.exists)
        assert not agent.connected.is_set()
        async with node_world(tmp_path / "fleet", identity=AT_ONCE, ports=ports) as again:
            async with asyncio.timeout(60):
                await agent.connected.wait()
            await until(
                "the node has beaten", lambda: _last_event(again, material) == "node.heartbeat"
            )
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_revoked_node_ends_and_says_what_to_do(world: NodeWorld, home: AgentHome) -> None:
    material = await paired(world, home)
    agent = NodeAgent(home, AgentSettings(heartbeat_every_s=0.05))
    task = spawn(agent.run(), "agent under test")
    async with asyncio.timeout(60):
        await agent.connected.wait()
        await world.identity.revoke_device(material.device_id, "lost", "anna")
        with pytest.raises(NodeRefusedForGood, match="pair it again"):
            await task


async def test_a_node_whose_certificate_expired_does_not_even_try(
    world: NodeWorld, home: AgentHome
) -> None:
    material = await paired(world, home)
    far = lambda: material.certificate.expires_at_unix_ms  # noqa: E731
    with pytest.raises(NodeRefusedForGood, match="expired"):
        await NodeAgent(home, AgentSettings(now_unix_ms=far)).run()


async def test_it_can_revoke_itself_and_twice_is_no_error(
    world: NodeWorld, home: AgentHome
) -> None:
    material = await paired(world, home)
    await revoke_own_pairing(material, "uninstalled")
    assert "revoked" in str(world.identity.check(material.certificate.fingerprint, world.clock()))
    await revoke_own_pairing(material, "uninstalled")


async def test_a_fleet_that_is_not_there_cannot_be_told(world: NodeWorld, home: AgentHome) -> None:
    material = replace(await paired(world, home), node_address="127.0.0.1:9")
    with pytest.raises(ConnectionError):
        await revoke_own_pairing(material, "uninstalled")


async def test_a_next_certificate_that_the_fleet_refuses_gives_way_to_the_one_before(
    world: NodeWorld, home: AgentHome
) -> None:
    material = await paired(world, home)
    stranger = await world.pair(PairingDevice("01BX5ZZKBKACTAV9WEVGEMMVRZ"))
    await world.identity.revoke_device(stranger.device.device_id, "lost", "anna")
    unusable = replace(
        material.certificate,
        certificate_pem=stranger.material.chain_pem.decode(),
        private_key_pem=stranger.material.key_pem.decode(),
    )
    home.save(replace(material, next_certificate=unusable))
    async with running(home, heartbeat_every_s=0.05):
        await until("the node has beaten", lambda: _last_event(world, material) == "node.heartbeat")


def test_the_waits_between_attempts_grow_and_end_somewhere() -> None:
    waits, wait = [], agent_module.FIRST_WAIT_S
    for _ in range(12):
        waits.append(wait)
        wait = min(wait * 2, agent_module.LONGEST_WAIT_S)
    assert waits[-1] == agent_module.LONGEST_WAIT_S == max(waits)
