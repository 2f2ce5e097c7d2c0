"""Every answer that the node protocol publishes, as a client reads it off the wire.

The tables repeat the publication, not our code: status and text for whatever a client can do wrong,
in pairing and afterwards, and the words of what goes well.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.identity.pairing import PairingSettings
from palyra_fleet.identity.records import CodeMethod
from palyra_fleet.nodes.capabilities import CapabilityLimits
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.ids import is_canonical_ulid
from palyra_fleet.wire.protobuf import common_pb2, node_pb2, node_pb2_grpc
from tests.fakes.identity_world import QUIET
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import (
    Node,
    NodeWorld,
    completion_message,
    forged,
    node_world,
    poll_message,
)
from tests.fakes.pairing_device import PairingDevice, csr_pem

INVALID, DENIED = "INVALID_ARGUMENT", "PERMISSION_DENIED"
FAILED, MISSING = "FAILED_PRECONDITION", "NOT_FOUND"
type Answer = tuple[str, str]


async def answer(call: Any) -> Answer:
    """Status and text."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


class Pairing:
    """A device that pairs over the enrolment listener, one call at a time."""

    def __init__(self, world: NodeWorld, calls: Any, device: PairingDevice) -> None:
        self.world = world
        self.calls = calls
        self.device = device

    async def begin(self, method: CodeMethod = CodeMethod.PIN) -> None:
        minted = await self.world.pairing.mint_code(method, "anna")
        self.code, self.code_hash = minted.code, minted.code_hash
        self.begun = await self.calls.BeginPairingSession(begin_message(method, minted.code))

    def completion(self) -> node_pb2.CompletePairingSessionRequest:
        return completion_message(self.device, self.begun, self.code)

    def poll(self) -> node_pb2.GetPairingRequestStatusRequest:
        return poll_message(self.device, self.begun.session_id)

    @property
    def approval_id(self) -> str:
        requests = self.world.pairing.requests()
        (mine,) = [r for r in requests if r.session_id == self.begun.session_id]
        return mine.approval_id


def begin_message(
    method: CodeMethod, code: str, kind: str = "node"
) -> node_pb2.BeginPairingSessionRequest:
    chosen = {"pin_code" if method is CodeMethod.PIN else "qr_token": code}
    return node_pb2.BeginPairingSessionRequest(
        v=1, client_kind=kind, method=node_pb2.PairingMethod(**chosen)
    )


NO_CODE = (FAILED, "pairing code is missing or expired")
BEGINNINGS: dict[str, tuple[node_pb2.BeginPairingSessionRequest, Answer]] = {
    "a kind of client that is none": (
        begin_message(CodeMethod.PIN, "123456", "Node"),
        (INVALID, "client_kind must be one of cli, desktop, node, proxy"),
    ),
    "no code": (
        node_pb2.BeginPairingSessionRequest(v=1, client_kind="node"),
        (INVALID, "method must be a pin_code or a qr_token"),
    ),
    "a PIN of five": (
        begin_message(CodeMethod.PIN, "12345"),
        (INVALID, "pin_code must be exactly 6 ASCII digits"),
    ),
    "a PIN of other digits": (
        begin_message(CodeMethod.PIN, "١٢٣٤٥٦"),
        (INVALID, "pin_code must be exactly 6 ASCII digits"),
    ),
    "a token of fifteen bytes": (
        begin_message(CodeMethod.QR, "x" * 15),
        (INVALID, "qr_token must be 16 to 128 bytes"),
    ),
    "a token of 129 bytes": (
        begin_message(CodeMethod.QR, "x" * 127 + "é"),
        (INVALID, "qr_token must be 16 to 128 bytes"),
    ),
    "a PIN that nobody minted": (begin_message(CodeMethod.PIN, "000000"), NO_CODE),
    "a token that nobody minted": (begin_message(CodeMethod.QR, "x" * 16), NO_CODE),
}
MALFORMED: dict[str, tuple[dict[str, Any], Answer]] = {
    "no session": ({"session_id": ""}, (INVALID, "session_id must not be empty")),
    "no device": (
        {"device_id": common_pb2.CanonicalId()},
        (INVALID, "device_id must be a canonical ULID"),
    ),
    "a device in lower case": (
        {"device_id": common_pb2.CanonicalId(ulid="01arz3ndektsv4rrffq69g5fav")},
        (INVALID, "device_id must be a canonical ULID"),
    ),
    "a kind that is none": (
        {"client_kind": "server"},
        (INVALID, "client_kind must be one of cli, desktop, node, proxy"),
    ),
    **{
        f"{field} of {size} bytes": (
            {field: bytes(size)},
            (INVALID, f"{field} must be {expected} bytes"),
        )
        for field, expected in (
            ("device_signing_public", 32),
            ("device_x25519_public", 32),
            ("challenge_signature", 64),
            ("transcript_mac", 32),
        )
        for size in (0, expected - 1, expected + 1)
    },
    "no certificate request": (
        {"certificate_signing_request_pem": ""},
        (INVALID, "certificate_signing_request_pem must not be empty"),
    ),
}
VERIFICATION = "pairing verification failed: "
UNVERIFIED: dict[str, tuple[dict[str, Any], str, bool]] = {
    "a session that is none": (
        {"session_id": ulid(99)},
        "pairing session was not found",
        False,
    ),
    "another version": ({"v": 2}, "protocol version does not match", False),
    "another kind": ({"client_kind": "proxy"}, "client kind does not match", False),
    "another proof": ({"proof": "999999x"}, "proof does not match", True),
    "another signature": (
        {"challenge_signature": bytes(64)},
        "challenge signature is not valid",
        True,
    ),
    "a key that shares zeros": (
        {"device_x25519_public": bytes(32)},
        "device X25519 key is not valid",
        True,
    ),
    "another MAC": ({"transcript_mac": bytes(32)}, "transcript MAC does not match", True),
}
"""Fields changed, what is answered, and whether it ends the session."""


def changed(
    message: node_pb2.CompletePairingSessionRequest, fields: dict[str, Any]
) -> node_pb2.CompletePairingSessionRequest:
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in fields.items():
        if isinstance(value, common_pb2.CanonicalId):
            getattr(copy, name).CopyFrom(value)
        else:
            setattr(copy, name, value)
    return copy


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    settings = IdentitySettings(reap_every_ms=QUIET, overlap_ms=0)
    limits = CapabilityLimits(timeout_ms=50)
    async with node_world(tmp_path / "fleet", identity=settings, capabilities=limits) as fresh:
        yield fresh


async def test_what_is_wrong_about_a_beginning(world: NodeWorld) -> None:
    async with world.channel(None, "enrolment") as channel:
        calls = node_pb2_grpc.NodeServiceStub(channel)
        found = {
            what: await answer(calls.BeginPairingSession(asked))
            for what, (asked, _) in BEGINNINGS.items()
        }
    assert found == {what: expected for what, (_, expected) in BEGINNINGS.items()}


@pytest.mark.parametrize("method", CodeMethod)
async def test_malformed_completions_are_told_and_spend_neither_code_nor_session(
    world: NodeWorld, method: CodeMethod
) -> None:
    async with world.channel(None, "enrolment") as channel:
        pairing = Pairing(world, node_pb2_grpc.NodeServiceStub(channel), PairingDevice(ulid(1)))
        await pairing.begin(method)
        complete = pairing.calls.CompletePairingSession
        found = {
            what: await answer(complete(changed(pairing.completion(), fields)))
            for what, (fields, _) in MALFORMED.items()
        }
        assert found == {what: expected for what, (_, expected) in MALFORMED.items()}
        said = await complete(pairing.completion())
        assert (said.v, said.paired, said.reason) == (1, False, "pending_approval")
        assert said.identity_fingerprint == pairing.device.fingerprint
        assert await answer(complete(pairing.completion())) == (
            FAILED,
            VERIFICATION + "pairing session was not found",
        )


async def test_what_does_not_verify_is_told_and_ends_the_session_where_it_must(
    world: NodeWorld,
) -> None:
    async with world.channel(None, "enrolment") as channel:
        calls = node_pb2_grpc.NodeServiceStub(channel)
        for what, (fields, why, ends) in UNVERIFIED.items():
            pairing = Pairing(world, calls, PairingDevice(ulid(1)))
            await pairing.begin(CodeMethod.QR)
            complete = calls.CompletePairingSession
            found = await answer(complete(changed(pairing.completion(), fields)))
            assert (what, found) == (what, (FAILED, VERIFICATION + why))
            after = await answer(complete(pairing.completion()))
            gone = (FAILED, VERIFICATION + "pairing session was not found")
            assert (what, after) == (what, gone if ends else ("OK", ""))


async def test_a_code_that_was_taken_back_is_not_reserved_any_more(world: NodeWorld) -> None:
    async with world.channel(None, "enrolment") as channel:
        pairing = Pairing(world, node_pb2_grpc.NodeServiceStub(channel), PairingDevice(ulid(1)))
        await pairing.begin()
        await world.pairing.withdraw_code(pairing.code_hash, "anna")
        assert await answer(pairing.calls.CompletePairingSession(pairing.completion())) == (
            FAILED,
            "pairing session does not have a reserved code",
        )


async def test_a_session_and_a_code_end_with_their_time(world: NodeWorld) -> None:
    async with world.channel(None, "enrolment") as channel:
        pairing = Pairing(world, node_pb2_grpc.NodeServiceStub(channel), PairingDevice(ulid(1)))
        await pairing.begin()
        world.clock.ahead_ms += PairingSettings().session_ms
        assert await answer(pairing.calls.CompletePairingSession(pairing.completion())) == (
            FAILED,
            VERIFICATION + "pairing session has expired",
        )
        world.clock.ahead_ms += PairingSettings().code_ms
        again = begin_message(CodeMethod.PIN, pairing.code)
        assert await answer(pairing.calls.BeginPairingSession(again)) == NO_CODE


async def test_what_a_poll_answers(world: NodeWorld) -> None:
    async with world.channel(None, "enrolment") as channel:
        calls = node_pb2_grpc.NodeServiceStub(channel)
        pairing = Pairing(world, calls, PairingDevice(ulid(1)))
        await pairing.begin()
        await calls.CompletePairingSession(pairing.completion())
        status = calls.GetPairingRequestStatus
        bad: dict[str, tuple[Callable[[Any], None], Answer]] = {
            "no session": (
                lambda m: m.ClearField("session_id"),
                (INVALID, "session_id must not be empty"),
            ),
            "no device": (
                lambda m: m.ClearField("device_id"),
                (INVALID, "device_id must be a canonical ULID"),
            ),
            "an unknown session": (
                lambda m: setattr(m, "session_id", ulid(99)),
                (MISSING, "pairing request was not found"),
            ),
            "another's session": (
                lambda m: setattr(m.device_id, "ulid", ulid(2)),
                (DENIED, "pairing request does not belong to the requested device_id"),
            ),
            "no signature": (
                lambda m: m.ClearField("device_signature"),
                (DENIED, "device_signature is missing or not valid"),
            ),
        }
        for what, (spoil, expected) in bad.items():
            asked = pairing.poll()
            spoil(asked)
            assert (what, await answer(status(asked))) == (what, expected)
        said = await status(pairing.poll())
        assert (said.v, said.status, said.paired) == (1, "pending_approval", False)
        await world.pairing.decide(pairing.approval_id, approve=True, decided_by="anna")
        said = await status(pairing.poll())
        assert (said.status, said.paired, bool(said.mtls_client_certificate_pem)) == (
            "completed",
            True,
            True,
        )
        for ending, word in ((_reject, "rejected"), (_expire, "expired")):
            other = Pairing(world, calls, PairingDevice(ulid(3)))
            await other.begin()
            await calls.CompletePairingSession(other.completion())
            await ending(other)
            said = await status(other.poll())
            assert (said.status, said.paired) == (word, False)
            assert said.mtls_client_certificate_pem == ""


async def _reject(pairing: Pairing) -> None:
    await pairing.world.pairing.decide(pairing.approval_id, approve=False, decided_by="anna")


async def _expire(pairing: Pairing) -> None:
    pairing.world.clock.ahead_ms += PairingSettings().request_ms


async def test_the_gates_four_rows_and_the_words_of_what_goes_well(world: NodeWorld) -> None:
    node = await world.pair(PairingDevice(ulid(1)))
    other = await world.pair(PairingDevice(ulid(2)))
    ask = node_pb2.ExecuteCapabilityRequest(v=1, device_id=node.id, capability="echo")
    async with node.calls() as calls:
        unregistered = "node must register before executing capabilities"
        assert await answer(calls.ExecuteCapability(ask)) == (FAILED, unregistered)
        said = await calls.RegisterNode(node.registration())
        assert (said.accepted, said.reason) == (True, "registered")
        assert await answer(calls.ExecuteCapability(ask)) == (
            "DEADLINE_EXCEEDED",
            "timed out waiting for node capability result",
        )
        assert await answer(calls.RegisterNode(other.registration())) == (
            DENIED,
            "node RPC request device_id does not match the authenticated client certificate",
        )
        stream = calls.StreamNodeEvents()
        await stream.write(node.event("node.started"))
        event = await stream.read()
        assert (event.accepted, event.reason) == (True, "accepted")
        assert is_canonical_ulid(event.event_id.ulid)
        await stream.write(node.event(payload_json=b"{"))
        assert (await answer(stream.read()))[0] == INVALID
        rotated = await calls.RotateDeviceCertificate(
            node_pb2.RotateDeviceCertificateRequest(
                device_id=node.id, certificate_signing_request_pem=csr_pem(node.device.tls)
            )
        )
        assert (rotated.v, rotated.rotated, rotated.reason) == (1, True, "rotated")
    async with other.calls() as calls:
        revoked = await calls.RevokeDevicePairing(
            node_pb2.RevokeDevicePairingRequest(v=3, device_id=other.id, reason="sold")
        )
        assert (revoked.v, revoked.revoked, revoked.reason) == (3, True, "revoked")
    assert await _registers(other) == (
        DENIED,
        "node RPC client certificate fingerprint is revoked",
    )
    unknown = Node(node.device, forged(world.authority, ulid(1)), world)
    assert await _registers(unknown) == (
        DENIED,
        "node RPC client certificate does not map to a paired device",
    )
    nameless = Node(node.device, forged(world.authority, ulid(1), uris=()), world)
    assert await _registers(nameless) == (
        "UNAUTHENTICATED",
        "node RPC request is missing a client certificate",
    )


def _registers(node: Node) -> Awaitable[Answer]:
    async def call() -> Answer:
        async with node.calls() as calls:
            return await answer(calls.RegisterNode(node.registration()))

    return call()
