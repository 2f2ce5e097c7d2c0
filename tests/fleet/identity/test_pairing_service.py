"""Pairing end to end: real transcripts and certificates; races, restarts, a store that fails."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.identity.messages import AskPairingStatus, PairedDevice, Replay
from palyra_fleet.identity.records import ClientKind, CodeMethod, RequestState
from palyra_fleet.identity.refusals import NodeReason, NodeRefused, NodeStatus
from tests.fakes.fleet_world import Clock
from tests.fakes.identity_world import (
    HERE,
    QUIET,
    IdentityWorld,
    MemoryPairingStore,
    asking,
    identity_world,
)
from tests.fakes.ledger_world import ulid
from tests.fakes.pairing_device import PairingDevice


@pytest.mark.parametrize("kind", ClientKind)
@pytest.mark.parametrize("method", CodeMethod)
async def test_a_device_pairs(world: IdentityWorld, kind: ClientKind, method: CodeMethod) -> None:
    device = PairingDevice(ulid(1), kind.value)
    session_id, approval_id = await world.begin_and_complete(device, method)
    pending = await world.pairing.status(device.poll(session_id))
    assert (pending.state, pending.reason, pending.paired) == (
        RequestState.PENDING, "pending_approval", False,
    )  # fmt: skip
    assert pending.identity_fingerprint == device.fingerprint
    assert not pending.mtls_client_certificate_pem

    await world.pairing.decide(approval_id, approve=True, decided_by="anna")
    done = await world.pairing.status(device.poll(session_id))
    assert (done.state, done.paired) == (RequestState.COMPLETED, True)
    assert done.mtls_client_private_key_pem == ""
    certificate = x509.load_pem_x509_certificate(done.mtls_client_certificate_pem.encode())
    assert certificate.public_key() == device.tls.public_key()
    found = await world.admit(done.mtls_client_certificate_pem, device.device_id)
    assert isinstance(found, PairedDevice)
    assert (found.device_id, found.client_kind) == (device.device_id, kind)
    assert found.signing_public_key == device.signing_public
    again = await world.pairing.status(device.poll(session_id))
    assert again == done


async def test_sixty_four_polls_at_once_issue_one_certificate(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    session_id, approval_id = await world.begin_and_complete(device)
    await world.pairing.decide(approval_id, approve=True, decided_by="anna")
    answers = await asyncio.gather(
        *(world.pairing.status(device.poll(session_id)) for _ in range(64))
    )
    assert len({a.mtls_client_certificate_pem for a in answers}) == 1
    assert len(world.identity.history(device.device_id)) == 1


async def test_of_sixty_four_who_begin_with_one_code_one_does(world: IdentityWorld) -> None:
    minted = await world.pairing.mint_code(CodeMethod.QR, "operator")
    asked = asking("node", CodeMethod.QR, minted.code)

    async def begin(number: int) -> bool:
        try:
            await world.pairing.begin(asked, f"ipv4:192.0.2.{number}:1")
        except NodeRefused as refused:
            assert refused.refusal.reason is NodeReason.CODE_MISSING
            return False
        return True

    assert sum(await asyncio.gather(*(begin(n) for n in range(64)))) == 1


async def test_of_sixty_four_completions_of_one_session_one_counts(world: IdentityWorld) -> None:
    minted = await world.pairing.mint_code(CodeMethod.PIN, "operator")
    begun = await world.pairing.begin(asking("node", CodeMethod.PIN, minted.code), HERE)

    async def complete(number: int) -> bool:
        device = PairingDevice(ulid(number))
        try:
            await world.pairing.complete(device.completion(begun, minted.code), HERE)
        except NodeRefused as refused:
            assert "session was not found" in refused.refusal.text
            return False
        return True

    assert sum(await asyncio.gather(*(complete(n) for n in range(64)))) == 1
    assert len(world.pairing.requests()) == 1


async def test_of_sixty_four_decisions_one_is_made(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    _, approval_id = await world.begin_and_complete(device)

    async def decide(number: int) -> RequestState | None:
        try:
            decided = await world.pairing.decide(
                approval_id, approve=number % 2 == 0, decided_by=f"operator {number}"
            )
        except NodeRefused as refused:
            assert refused.refusal.reason is NodeReason.ALREADY_DECIDED
            return None
        return decided.state

    made = [state for state in await asyncio.gather(*(decide(n) for n in range(64))) if state]
    assert len(made) == 1
    assert world.pairing.requests()[0].state is made[0]


async def test_a_rejected_request_stays_rejected(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    session_id, approval_id = await world.begin_and_complete(device)
    await world.pairing.decide(approval_id, approve=False, decided_by="anna", reason="not ours")
    with pytest.raises(NodeRefused, match="already rejected"):
        await world.pairing.decide(approval_id, approve=True, decided_by="bert")
    status = await world.pairing.status(device.poll(session_id))
    assert (status.state, status.reason) == (RequestState.REJECTED, "not ours")
    assert world.identity.device(device.device_id) is None


async def test_an_undecided_request_expires_for_good(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    session_id, approval_id = await world.begin_and_complete(device)
    world.clock.forward(60 * 60 * 1000)
    with pytest.raises(NodeRefused, match="already expired"):
        await world.pairing.decide(approval_id, approve=True, decided_by="anna")
    world.clock.forward(-30 * 60 * 1000)
    status = await world.pairing.status(device.poll(session_id))
    assert (status.state, status.paired) == (RequestState.EXPIRED, False)
    with pytest.raises(NodeRefused, match="already expired"):
        await world.pairing.decide(approval_id, approve=True, decided_by="anna")


async def test_an_approval_at_the_last_moment_leaves_time_to_collect(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    session_id, approval_id = await world.begin_and_complete(device)
    world.clock.forward(60 * 60 * 1000 - 1)
    await world.pairing.decide(approval_id, approve=True, decided_by="anna")
    world.clock.forward(60 * 1000)
    assert (await world.pairing.status(device.poll(session_id))).paired


async def test_only_the_device_that_paired_may_ask(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    session_id, _ = await world.begin_and_complete(device)
    poll = device.poll(session_id)
    thief = PairingDevice(device.device_id)
    cases = [
        (AskPairingStatus(session_id, device.device_id), NodeStatus.PERMISSION_DENIED),
        (thief.poll(session_id), NodeStatus.PERMISSION_DENIED),
        (replace(poll, device_id=ulid(2)), NodeStatus.PERMISSION_DENIED),
        (replace(poll, session_id=ulid(3)), NodeStatus.NOT_FOUND),
        (replace(poll, session_id=""), NodeStatus.INVALID_ARGUMENT),
        (replace(poll, device_id="x"), NodeStatus.INVALID_ARGUMENT),
    ]
    for asked, status in cases:
        with pytest.raises(NodeRefused) as refused:
            await world.pairing.status(asked)
        assert refused.value.refusal.status is status


async def test_after_a_crash_between_both_stores_the_same_certificate_is_given(
    tmp_path: Path,
) -> None:
    store, clock, device = MemoryPairingStore(), Clock(), PairingDevice(ulid(1))
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        session_id, approval_id = await world.begin_and_complete(device)
        await world.pairing.decide(approval_id, approve=True, decided_by="anna")
        store.fail = True
        with pytest.raises(NodeRefused) as refused:
            await world.pairing.status(device.poll(session_id))
        assert refused.value.refusal.status is NodeStatus.UNAVAILABLE
        issued = world.identity.history(device.device_id)
        assert len(issued) == 1
    store.fail = False
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        done = await world.pairing.status(device.poll(session_id))
        assert done.mtls_client_certificate_pem == issued[0].certificate_pem
        assert len(world.identity.history(device.device_id)) == 1


async def test_a_code_outlives_a_restart_and_its_session_does_not(tmp_path: Path) -> None:
    store, clock, device = MemoryPairingStore(), Clock(), PairingDevice(ulid(1))
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        minted = await world.pairing.mint_code(CodeMethod.PIN, "operator")
        asked = asking("node", CodeMethod.PIN, minted.code)
        lost = await world.pairing.begin(asked, HERE)
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        with pytest.raises(NodeRefused, match="session was not found"):
            await world.pairing.complete(device.completion(lost, minted.code), HERE)
        begun = await world.pairing.begin(asked, HERE)
        await world.pairing.complete(device.completion(begun, minted.code), HERE)
        with pytest.raises(NodeRefused, match="missing or expired"):
            await world.pairing.begin(asked, HERE)


async def test_what_cannot_be_written_is_told_to_nobody(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    minted = await world.pairing.mint_code(CodeMethod.PIN, "operator")
    begun = await world.pairing.begin(asking("node", CodeMethod.PIN, minted.code), HERE)
    world.store.fail = True
    for attempt in (
        world.pairing.mint_code(CodeMethod.PIN, "operator"),
        world.pairing.complete(device.completion(begun, minted.code), HERE),
        world.pairing.withdraw_code(minted.code_hash, "operator"),
    ):
        with pytest.raises(NodeRefused) as refused:
            await attempt
        assert refused.value.refusal.reason is NodeReason.STORE_UNAVAILABLE
    assert world.pairing.requests() == ()
    world.store.fail = False
    await world.pairing.complete(device.completion(begun, minted.code), HERE)


async def test_no_code_is_stored_or_shown(world: IdentityWorld) -> None:
    minted = await world.pairing.mint_code(CodeMethod.QR, "operator")
    begin = asking("node", CodeMethod.QR, minted.code)
    begun = await world.pairing.begin(begin, HERE)
    completion = PairingDevice(ulid(1)).completion(begun, minted.code)
    shown = repr((world.store, minted, begin, completion, world.pairing._ledger))
    assert minted.code not in shown
    assert world.identity.pairing_pepper.hex() not in shown
    assert repr(world.identity.pairing_pepper) not in shown


async def test_a_withdrawn_code_ends_its_session(world: IdentityWorld) -> None:
    minted = await world.pairing.mint_code(CodeMethod.PIN, "operator")
    begun = await world.pairing.begin(asking("node", CodeMethod.PIN, minted.code), HERE)
    await world.pairing.withdraw_code(minted.code_hash, "anna")
    device = PairingDevice(ulid(1))
    with pytest.raises(NodeRefused, match="does not have a reserved code"):
        await world.pairing.complete(device.completion(begun, minted.code), HERE)
    assert world.pairing.codes() == ()


async def test_a_replayed_begin_is_refused(world: IdentityWorld) -> None:
    minted = await world.pairing.mint_code(CodeMethod.PIN, "operator")
    asked = replace(
        asking("node", CodeMethod.PIN, minted.code), replay=Replay("nonce", world.clock())
    )
    await world.pairing.begin(asked, HERE)
    with pytest.raises(NodeRefused) as refused:
        await world.pairing.begin(asked, HERE)
    assert refused.value.refusal.reason is NodeReason.REPLAY_SEEN
    stale = replace(asked, replay=Replay("other", world.clock() - 300_001))
    with pytest.raises(NodeRefused) as refused:
        await world.pairing.begin(stale, HERE)
    assert refused.value.refusal.reason is NodeReason.REPLAY_STALE


async def test_taking_over_a_paired_device_id_takes_saying_so(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    first = await world.pair(device)
    other = PairingDevice(device.device_id)
    session_id, approval_id = await world.begin_and_complete(other)
    with pytest.raises(NodeRefused) as refused:
        await world.pairing.decide(approval_id, approve=True, decided_by="anna")
    assert refused.value.refusal.reason is NodeReason.REPLACES_IDENTITY
    await world.pairing.decide(approval_id, approve=True, decided_by="anna", replace_identity=True)
    second = await world.pairing.status(other.poll(session_id))
    assert second.paired
    gone = await world.admit(first.mtls_client_certificate_pem)
    assert not isinstance(gone, PairedDevice)
    assert gone.reason is NodeReason.GATE_REVOKED


async def test_two_identities_approved_for_one_device_take_saying_so(
    world: IdentityWorld,
) -> None:
    one, other = PairingDevice(ulid(1)), PairingDevice(ulid(1))
    _, first = await world.begin_and_complete(one)
    _, second = await world.begin_and_complete(other)
    await world.pairing.decide(first, approve=True, decided_by="anna")
    with pytest.raises(NodeRefused) as refused:
        await world.pairing.decide(second, approve=True, decided_by="bert")
    assert refused.value.refusal.reason is NodeReason.REPLACES_IDENTITY


async def test_a_revoked_device_cannot_pair_until_it_is_removed(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    await world.pair(device)
    session_id, approval_id = await world.begin_and_complete(device)
    await world.identity.revoke_device(device.device_id, "stolen", "anna")
    with pytest.raises(NodeRefused, match="device is revoked"):
        await world.pairing.decide(approval_id, approve=True, decided_by="anna")
    minted = await world.pairing.mint_code(CodeMethod.PIN, "operator")
    begun = await world.pairing.begin(asking("node", CodeMethod.PIN, minted.code), HERE)
    completion = device.completion(begun, minted.code)
    with pytest.raises(NodeRefused, match="pairing verification failed: device is revoked"):
        await world.pairing.complete(completion, HERE)
    await world.identity.remove_device(device.device_id, "found again", "anna")
    await world.pairing.complete(completion, HERE)  # the code was not spent
    assert not (await world.pairing.status(device.poll(session_id))).paired


async def test_a_device_revoked_after_its_approval_gets_no_certificate(
    world: IdentityWorld,
) -> None:
    device = PairingDevice(ulid(1))
    await world.pair(device)
    session_id, approval_id = await world.begin_and_complete(device)
    await world.pairing.decide(approval_id, approve=True, decided_by="anna")
    await world.identity.revoke_device(device.device_id, "stolen", "anna")
    status = await world.pairing.status(device.poll(session_id))
    assert (status.state, status.reason) == (RequestState.REJECTED, "device is revoked")
    assert all(c.revoked for c in world.identity.history(device.device_id))


async def test_without_a_request_no_key_is_made_unless_switched_on(world: IdentityWorld) -> None:
    minted = await world.pairing.mint_code(CodeMethod.PIN, "operator")
    begun = await world.pairing.begin(asking("node", CodeMethod.PIN, minted.code), HERE)
    device = PairingDevice(ulid(1))
    bare = device.completion(begun, minted.code, certificate_signing_request_pem="")
    with pytest.raises(NodeRefused) as refused:
        await world.pairing.complete(bare, HERE)
    assert refused.value.refusal.reason is NodeReason.CSR_MISSING
    await world.pairing.complete(device.completion(begun, minted.code), HERE)


async def test_a_key_made_for_a_client_is_given_once_and_kept_nowhere(tmp_path: Path) -> None:
    settings = IdentitySettings(allow_server_generated_keys=True, reap_every_ms=QUIET)
    async with identity_world(tmp_path / "state", identity=settings) as world:
        minted = await world.pairing.mint_code(CodeMethod.PIN, "operator")
        begun = await world.pairing.begin(asking("node", CodeMethod.PIN, minted.code), HERE)
        device = PairingDevice(ulid(1))
        bare = device.completion(begun, minted.code, certificate_signing_request_pem="")
        done = await world.pairing.complete(bare, HERE)
        await world.pairing.decide(done.approval_id, approve=True, decided_by="anna")
        ask = AskPairingStatus(begun.session_id, device.device_id)
        answers = await asyncio.gather(*(world.pairing.status(ask) for _ in range(8)))
        keys = [a.mtls_client_private_key_pem for a in answers if a.mtls_client_private_key_pem]
        assert len(keys) == 1
        assert len({a.mtls_client_certificate_pem for a in answers}) == 1
        assert not (await world.pairing.status(ask)).mtls_client_private_key_pem
        secret = keys[0].splitlines()[1]
        assert secret not in repr(world.store) + repr(answers) + repr(
            world.identity.history(device.device_id)
        )
        for path in (tmp_path / "state").rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes()
        with pytest.raises(NodeRefused):  # a signature that is sent must be good
            await world.pairing.status(replace(ask, device_signature=bytes(64)))


async def test_expired_and_finished_records_are_swept(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    await world.pair(device)
    await world.pairing.mint_code(CodeMethod.PIN, "operator")
    _, _ = await world.begin_and_complete(PairingDevice(ulid(2)))
    world.clock.forward(60 * 60 * 1000)
    await world.pairing.sweep()
    assert world.store.codes == {}
    states = {request.device_id: request.state for request in world.store.requests.values()}
    assert states == {ulid(1): RequestState.COMPLETED, ulid(2): RequestState.EXPIRED}
    world.clock.forward(7 * 24 * 60 * 60 * 1000)
    await world.pairing.sweep()
    assert world.store.requests == {}
    assert world.pairing.requests() == ()
