"""Every route against every kind of caller: the table is what happens, and nothing else."""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel
from ulid import ULID

from palyra_fleet.api.callers import Who
from palyra_fleet.api.routes import ROUTES, Listener, Row
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire import device_models as device_wire
from palyra_fleet.wire import enrolment_models as enrolment_wire
from palyra_fleet.wire import models as wire
from palyra_fleet.wire import node_models as node_wire
from palyra_fleet.wire import placement_models as placement_wire
from palyra_fleet.wire.dsse import ATTESTATION_TYPE, DsseEnvelope, seal
from palyra_fleet.wire.freeze_models import FreezeRequest, UnfreezeRequest
from palyra_fleet.wire.join_models import MintJoinToken
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.policy_models import (
    CheckRequest,
    Explained,
    ExplainRequest,
    PolicyPoll,
    PolicyStanding,
    PolicyText,
    ProxyAnswer,
)
from palyra_fleet.wire.principal_models import CreatePrincipal, Role
from palyra_fleet.wire.reattest_models import ReattestRequest
from palyra_fleet.wire.request_proof import HEADER, WINDOW_MS, prove
from palyra_fleet.wire.snapshot_models import SaveSnapshot
from palyra_fleet.wire.traffic_models import TrafficReport
from tests.fakes.raw_http import RawAnswer, ask, ask_until
from tests.fakes.served_fleet import TOKEN, TOKENS, ServedFleet

CALLERS = (
    "nobody",
    "wrong token",
    *Role,
    "first principal",
    "worker",
    "proxy",
    "foreign key",
    "replayed proof",
    "late proof",
    "proof of another path",
    "proof of another body",
    "proof of another method",
    "proof signed by another key",
    "two proofs",
)
ALLOWED = {
    Who.ANYBODY: set(CALLERS),
    Who.STRANGER: set(CALLERS),
    Who.KEY_IN_BODY: {"worker", "proxy", "foreign key"},
    Who.WORKER: {"worker"},
    Who.PROXY: {"proxy"},
    Role.VIEWER: {*Role, "first principal"},
    Role.OPERATOR: {Role.OPERATOR, Role.ADMIN, "first principal"},
    Role.APPROVER: {Role.APPROVER, Role.ADMIN, "first principal"},
    Role.ADMIN: {Role.ADMIN, "first principal"},
}
STANDING = PolicyStanding(
    policy_digest="0" * 64, name="egress", mode="enforce", loaded_at_unix_ms=1, rules=0
)
PRINCIPALS = {*Role, "first principal"}
ROWS = tuple(
    pytest.param(row, listener, id=f"{listener} {row.method} {row.path}")
    for row in ROUTES
    for listener in sorted(row.listeners - {Listener.REMOTE})
)


def path_of(row: Row) -> str:
    with_ids = re.sub(r"\{\w+_id:.*?\{25\}\}", lambda _: str(ULID()), row.path)
    return re.sub(r"\{name:.*?\{0,63\}\}", "somebody", with_ids)


def body_of(row: Row, key: SigningKey) -> bytes:
    """A body that fits the row's model."""
    if row.body is None:
        return b""
    public_key = base64.b64encode(key.public_key).decode()
    envelope = seal(key, ATTESTATION_TYPE, b"{}")
    bodies: dict[type[BaseModel], BaseModel] = {
        wire.NonceRequest: wire.NonceRequest(public_key=public_key, purpose="register"),
        wire.RegisterRequest: wire.RegisterRequest(
            public_key=public_key, evidence=envelope, receipt=envelope
        ),
        wire.HeartbeatRequest: wire.HeartbeatRequest(session_epoch=1, seq=1),
        wire.LeaseRequest: wire.LeaseRequest(
            session_epoch=1,
            run_id="run-1",
            ttl_ms=1000,
            workspace_scope=wire.WorkspaceScopeModel(workspace_root="/w", allowed_paths=()),
        ),
        wire.LeaseCommand: wire.LeaseCommand(session_epoch=1, fence=1),
        wire.CompleteRequest: wire.CompleteRequest(
            session_epoch=1,
            fence=1,
            cleanup=wire.CleanupReport(
                workspace_removed=True, processes_ended=True, secrets_removed=True
            ),
        ),
        wire.GrantRequest: wire.GrantRequest(
            run_id="run-1", tool_name="t", principal="p", egress_profile="e", ttl_ms=1000
        ),
        placement_wire.PlaceRequest: placement_wire.PlaceRequest(run_id="run-1", ttl_ms=1000),
        placement_wire.DeclineRequest: placement_wire.DeclineRequest(
            session_epoch=1, reason="because"
        ),
        wire.ReasonRequest: wire.ReasonRequest(reason="because"),
        wire.DrainRequest: wire.DrainRequest(reason="because", deadline_ms=1000),
        wire.EnrolKeyRequest: wire.EnrolKeyRequest(name="new", public_key=public_key),
        wire.ReferenceValues: wire.ReferenceValues(),
        enrolment_wire.EnrolDeviceKeyRequest: enrolment_wire.EnrolDeviceKeyRequest(
            name="new", device_id=str(ULID())
        ),
        enrolment_wire.WithdrawReferences: enrolment_wire.WithdrawReferences(
            values=wire.ReferenceValues(), reason="because"
        ),
        device_wire.RotateCertificateRequest: device_wire.RotateCertificateRequest(
            certificate_signing_request_pem="no request"
        ),
        device_wire.EnrolDeviceRequest: device_wire.EnrolDeviceRequest(
            name="new", public_key=public_key
        ),
        DsseEnvelope: envelope,
        wire.ProxyBeat: wire.ProxyBeat(spooled_seq=0, policy_digest="policy"),
        TrafficReport: TrafficReport(since_unix_ms=0),
        PolicyPoll: PolicyPoll(standing=STANDING),
        ProxyAnswer: ProxyAnswer(
            question_id=str(ULID()),
            policy_digest=STANDING.policy_digest,
            answer=Explained(allowed=False),
        ),
        ExplainRequest: ExplainRequest(profile="api", url="https://api.example/"),
        CheckRequest: CheckRequest(files=(PolicyText(name="egress.yaml", text="version: 1"),)),
        FreezeRequest: FreezeRequest(reason="because"),
        SaveSnapshot: SaveSnapshot(reason="because"),
        UnfreezeRequest: UnfreezeRequest(reason="because"),
        MintJoinToken: MintJoinToken(identity="dev-1", reason="because"),
        CreatePrincipal: CreatePrincipal(name="new", roles=(Role.VIEWER,), reason="because"),
        node_wire.PairingCodeRequest: node_wire.PairingCodeRequest(),
        node_wire.ApproveDevice: node_wire.ApproveDevice(reason="because"),
        LabelRequest: LabelRequest(reason="because"),
        ReattestRequest: ReattestRequest(reason="because"),
        node_wire.RotateDeviceRequest: node_wire.RotateDeviceRequest(reason="because"),
        node_wire.InvokeRequest: node_wire.InvokeRequest(capability="echo"),
    }
    return bodies[row.body].model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class Matrix:
    fleet: ServedFleet
    row: Row
    listener: Listener

    @property
    def where(self) -> Path | str:
        return self.fleet.socket_path if self.listener is Listener.SOCKET else self.fleet.admin_url

    async def call(self, caller: str) -> RawAnswer:
        path = path_of(self.row)
        keys = {"proxy": self.fleet.proxy_key, "foreign key": SigningKey.generate()}
        key = keys.get(caller, self.fleet.worker_key)
        if self.row.who is Who.PROXY and caller not in keys | {"worker": 0}:
            key = self.fleet.proxy_key
        body = body_of(self.row, key)
        headers = self.headers(caller, key, path, body)
        if body:
            headers["Content-Type"] = "application/json"
        if caller == "replayed proof":
            await ask(self.where, self.row.method, path, body, headers)
        if self.row.path == "/v1/events/stream" and caller in PRINCIPALS:
            return await ask_until(
                self.where, path, headers, b": here"
            )  # it does not end by itself
        return await ask(self.where, self.row.method, path, body, headers)

    def headers(self, caller: str, key: SigningKey, path: str, body: bytes) -> dict[str, str]:
        method, now = self.row.method, now_unix_ms()
        match caller:
            case "nobody":
                return {}
            case "wrong token":
                return {"Authorization": f"Bearer {TOKEN[:-1]}x"}
            case "first principal":
                return {"Authorization": f"Bearer {TOKEN}"}
            case Role():
                return {"Authorization": f"Bearer {TOKENS[caller]}"}
            case "late proof":
                return {HEADER: prove(key, method, path, body, now - WINDOW_MS - 5_000)}
            case "proof of another path":
                return {HEADER: prove(key, method, path + "x", body, now)}
            case "proof of another body":
                return {HEADER: prove(key, method, path, body + b" ", now)}
            case "proof of another method":
                return {HEADER: prove(key, "PUT", path, body, now)}
            case "proof signed by another key":
                forged = prove(SigningKey.generate(), method, path, body, now)
                return {HEADER: f"v1 {key.thumbprint}{forged[67:]}"}
            case "two proofs":
                proof = prove(key, method, path, body, now)
                return {HEADER: proof, HEADER.upper(): proof}
            case _:
                return {HEADER: prove(key, method, path, body, now)}


def refusals_of(row: Row, caller: str) -> set[str]:
    """What the answer may say to a caller whom the row does not allow."""
    if row.who is not Who.OPERATOR:
        return {"api.proof_refused", "api.caller_not_allowed"}
    if caller in PRINCIPALS:
        return {"api.role_refused"}
    return {"api.token_refused", "api.too_many_attempts"}


def was_let_in(row: Row, answer: RawAnswer) -> bool:
    """Past the gate: whatever the fleet itself then said."""
    return not (answer.status in {401, 403, 429} and answer.reason.startswith("api."))


@pytest.mark.parametrize(("row", "listener"), ROWS)
async def test_a_route_lets_in_exactly_the_callers_of_its_row(
    fleet: ServedFleet, row: Row, listener: Listener
) -> None:
    for caller in CALLERS:
        await fleet.service.view_messages.put(None)  # a view that is let in ends by itself
        await fleet.service.view_messages.put(None)
        fleet.service.calls.clear()
        answer = await Matrix(fleet, row, listener).call(caller)
        if caller in ALLOWED[row.allowed]:
            assert was_let_in(row, answer), caller
            continue
        assert not was_let_in(row, answer), caller
        assert answer.reason in refusals_of(row, caller), caller
        if caller != "replayed proof":  # it was let in the first time
            assert fleet.service.calls == [], caller


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: f"{row.method} {row.path}")
async def test_a_route_is_not_found_on_the_other_listener(fleet: ServedFleet, row: Row) -> None:
    if row.who is Who.ANYBODY:
        return
    other = Listener.ADMIN if Listener.SOCKET in row.listeners else Listener.SOCKET
    caller = "first principal" if other is Listener.ADMIN else "worker"
    answer = await Matrix(fleet, row, other).call(caller)
    assert (answer.status, answer.reason) == (404, "api.not_found")
