"""THE table of routes: method, path, who may call it, what handles it, what it takes.

Nothing is reachable without a row here, and the listener a row is served on follows from who may
call it: principals on the admin listener; workers and proxies on the Unix socket and, over mutual
TLS, from other machines, which have routes of their own there as well; health everywhere.
A row of principals names the role it takes. `refuse_strays` is asked at every start. Ids in paths
are ULIDs by the pattern, so that a path is either exactly a known resource or not found.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aiohttp import web
from pydantic import BaseModel

from palyra_fleet.api import (
    describe_calls,
    device_calls,
    enrolment_calls,
    event_calls,
    health_calls,
    join_token_calls,
    metric_calls,
    node_calls,
    operator_calls,
    operators_device_calls,
    placement_calls,
    policy_calls,
    principal_calls,
    proxy_calls,
    release_calls,
    snapshot_calls,
    worker_calls,
)
from palyra_fleet.api.callers import Who
from palyra_fleet.api.changes import is_change
from palyra_fleet.api.operator_calls import Handler
from palyra_fleet.api.operator_calls import worker_change as _change
from palyra_fleet.wire import device_models as device_wire
from palyra_fleet.wire import enrolment_models as enrolment_wire
from palyra_fleet.wire import models as wire
from palyra_fleet.wire import node_models as node_wire
from palyra_fleet.wire import placement_models as placement_wire
from palyra_fleet.wire.dsse import DsseEnvelope
from palyra_fleet.wire.freeze_models import FreezeRequest, UnfreezeRequest
from palyra_fleet.wire.ids import NAME_PATTERN, ULID_PATTERN
from palyra_fleet.wire.join_models import MintJoinToken
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.policy_models import (
    CheckRequest,
    ExplainRequest,
    PolicyPoll,
    ProxyAnswer,
)
from palyra_fleet.wire.principal_models import CreatePrincipal, Role
from palyra_fleet.wire.reattest_models import ReattestRequest
from palyra_fleet.wire.snapshot_models import SaveSnapshot
from palyra_fleet.wire.traffic_models import TrafficReport


class Listener(StrEnum):
    """Where a route is served."""

    SOCKET = "socket"
    ADMIN = "admin"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Row:
    """One route. `who` is a kind of caller, or the role that a principal must hold; `body` is the
    model its body must fit, None when it takes no body; `headers` are those it reads besides;
    what only `draws` a picture changes nothing."""

    method: str
    path: str
    allowed: Who | Role
    handler: Handler
    body: type[BaseModel] | None = None
    query: tuple[str, ...] = ()
    streams: bool = False
    headers: tuple[str, ...] = ()
    draws: bool = False

    @property
    def who(self) -> Who:
        """The kind of caller."""
        return Who.OPERATOR if isinstance(self.allowed, Role) else self.allowed

    @property
    def changes(self) -> bool:
        """Whether a principal changes something: the answer then says how far the log has come."""
        if not isinstance(self.allowed, Role) or self.draws:
            return False
        return is_change(self.method, self.allowed)

    @property
    def listeners(self) -> frozenset[Listener]:
        return _LISTENERS[self.who]


_LISTENERS: Final = {
    Who.ANYBODY: frozenset(Listener),
    Who.KEY_IN_BODY: frozenset({Listener.SOCKET, Listener.REMOTE}),
    Who.WORKER: frozenset({Listener.SOCKET, Listener.REMOTE}),
    Who.PROXY: frozenset({Listener.SOCKET, Listener.REMOTE}),
    Who.DEVICE: frozenset({Listener.REMOTE}),
    Who.STRANGER: frozenset({Listener.ADMIN}),
    Who.OPERATOR: frozenset({Listener.ADMIN}),
}

_LEASE: Final = f"/v1/leases/{{lease_id:{ULID_PATTERN}}}"
_OWN_LEASE: Final = f"/v1/worker/leases/{{lease_id:{ULID_PATTERN}}}"
_WORKER: Final = f"/v1/workers/{{worker_id:{ULID_PATTERN}}}"
_RELEASE: Final = f"/v1/release-requests/{{release_id:{ULID_PATTERN}}}"
_OFFER: Final = f"/v1/offers/{{offer_id:{ULID_PATTERN}}}"
_OWN_OFFER: Final = f"/v1/worker/offers/{{offer_id:{ULID_PATTERN}}}"
_GRANT: Final = f"/v1/grants/{{grant_id:{ULID_PATTERN}}}"
_NODE: Final = f"/v1/nodes/{{device_id:{ULID_PATTERN}}}"
_DEVICE: Final = f"/v1/devices/{{device_id:{ULID_PATTERN}}}"
_PAIRING: Final = f"/v1/pairing/requests/{{approval_id:{ULID_PATTERN}}}"
_ASKED: Final = f"/v1/capability-requests/{{request_id:{ULID_PATTERN}}}"
_NAME: Final = f"{{name:{NAME_PATTERN}}}"
_PRINCIPAL: Final = f"/v1/principals/{_NAME}"
_JOIN_TOKEN: Final = f"/v1/join-tokens/{{token_id:{ULID_PATTERN}}}"
_PAGE: Final = ("after_seq", "limit")
_PART: Final = ("limit", "cursor")
_LEASES: Final = ("state", "limit", "cursor")
_NARROWER: Final = ("state", "eligibility", "attestor", "capability", "waits", "demanded", "label")
_WORKERS: Final = (*_PART, *_NARROWER)
_OF_WORKER: Final = ("worker_id", "limit", "cursor")
_DEVICES: Final = (*_PART, "state", "kind")
_CERTIFICATES: Final = (*_DEVICES, "device_id", "expires_within_ms")

_W, _P, _O, _N = worker_calls, proxy_calls, operator_calls, node_calls
_D, _E, _PR, _R = device_calls, enrolment_calls, principal_calls, release_calls
_PL, _PO, _OD, _EV = placement_calls, policy_calls, operators_device_calls, event_calls
_KEY, _WORK, _PROXY, _DEV = Who.KEY_IN_BODY, Who.WORKER, Who.PROXY, Who.DEVICE
_LOOK, _STOP, _LET_IN, _TRUST = Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN
_REASON: Final = wire.ReasonRequest
_CSR: Final = device_wire.RotateCertificateRequest
_DEVICE_KEY: Final = enrolment_wire.EnrolDeviceKeyRequest
_WITHDRAW: Final = enrolment_wire.WithdrawReferences

ROUTES: Final = (
    Row("GET", "/livez", Who.ANYBODY, health_calls.live),
    Row("GET", "/readyz", Who.ANYBODY, health_calls.ready),
    Row("GET", "/metrics", _LOOK, metric_calls.show),
    Row("GET", "/openapi.json", Who.STRANGER, describe_calls.describe),
    # anybody who proves to hold the key in the body
    Row("POST", "/v1/attestation/nonce", _KEY, _W.issue_nonce, wire.NonceRequest),
    Row("POST", "/v1/workers:register", _KEY, _W.register, wire.RegisterRequest),
    # workers
    Row("POST", "/v1/worker/heartbeat", _WORK, _W.heartbeat, wire.HeartbeatRequest),
    Row("POST", "/v1/worker/leases", _WORK, _W.request_lease, wire.LeaseRequest),
    Row("POST", f"{_OWN_LEASE}:start", _WORK, _W.start_lease, wire.LeaseCommand),
    Row("POST", f"{_OWN_LEASE}:renew", _WORK, _W.renew_lease, wire.LeaseCommand),
    Row("POST", f"{_OWN_LEASE}:complete", _WORK, _W.complete_lease, wire.CompleteRequest),
    Row("POST", f"{_OWN_OFFER}:decline", _WORK, _PL.decline, placement_wire.DeclineRequest),
    Row("GET", "/v1/worker/orders", _WORK, _W.orders, query=("after_seq", "wait_ms"), streams=True),
    # proxies
    Row("GET", "/v1/proxy/view", _PROXY, _P.view, query=("epoch", "after_seq"), streams=True),
    Row("POST", "/v1/proxy/heartbeat", _PROXY, _P.beat, wire.ProxyBeat),
    Row("POST", "/v1/proxy/traffic", _PROXY, _P.report_traffic, TrafficReport),
    Row("POST", "/v1/proxy/violations", _PROXY, _P.accept_violation, DsseEnvelope),
    Row("GET", "/v1/proxy/chain", _PROXY, _P.evidence_chain),
    Row("POST", "/v1/proxy/policy-questions", _PROXY, _P.next_question, PolicyPoll, streams=True),
    Row("POST", "/v1/proxy/policy-answers", _PROXY, _P.answer_question, ProxyAnswer),
    # paired machines
    Row("GET", "/v1/device/certificate", _DEV, _D.show_certificate),
    Row("POST", "/v1/device/certificate:rotate", _DEV, _D.rotate_certificate, _CSR),
    Row("POST", "/v1/device/proxy", _DEV, _D.enrol_proxy, device_wire.EnrolDeviceRequest),
    # principals
    Row("GET", "/v1/grants", _LOOK, _O.list_grants, query=_PART),
    Row("GET", "/v1/approval-rules", _LOOK, _O.list_approval_rules),
    Row("POST", "/v1/grants", _LET_IN, _O.create_grant, wire.GrantRequest),
    Row("POST", f"{_GRANT}:withdraw", _LET_IN, _O.withdraw_grant, _REASON),
    Row("GET", "/v1/workers", _LOOK, _O.list_workers, query=_WORKERS),
    Row("GET", _WORKER, _LOOK, _O.show_worker),
    Row("POST", f"{_WORKER}:quarantine", _STOP, _change(lambda fleet: fleet.quarantine), _REASON),
    Row("POST", f"{_WORKER}:release", _LET_IN, _change(lambda fleet: fleet.release), _REASON),
    Row("POST", f"{_WORKER}:reverify", _LET_IN, _change(lambda fleet: fleet.reverify), _REASON),
    Row("POST", f"{_WORKER}:cordon", _STOP, _change(lambda fleet: fleet.cordon), _REASON),
    Row("POST", f"{_WORKER}:uncordon", _STOP, _change(lambda fleet: fleet.uncordon), _REASON),
    Row("POST", f"{_WORKER}:ban", _TRUST, _change(lambda fleet: fleet.ban), _REASON),
    Row("POST", f"{_WORKER}:evict", _TRUST, _change(lambda fleet: fleet.evict), _REASON),
    Row("POST", f"{_WORKER}:label", _STOP, _O.label, LabelRequest),
    Row("POST", f"{_WORKER}:drain", _STOP, _O.drain, wire.DrainRequest),
    Row("POST", f"{_WORKER}:reattest", _STOP, _O.reattest, ReattestRequest),
    Row("POST", f"{_WORKER}:request-release", _STOP, _R.request_release, _REASON),
    Row("GET", "/v1/release-requests", _LOOK, _R.list_requests),
    Row("POST", f"{_RELEASE}:approve", _LET_IN, _R.approve, _REASON),
    Row("POST", f"{_RELEASE}:withdraw", _STOP, _R.withdraw, _REASON),
    Row("POST", "/v1/offers", _STOP, _PL.place, placement_wire.PlaceRequest),
    Row("GET", "/v1/offers", _LOOK, _PL.list_offers),
    Row("GET", _OFFER, _LOOK, _PL.show_offer),
    Row("GET", "/v1/leases", _LOOK, _O.list_leases, query=_LEASES),
    Row("POST", f"{_LEASE}:revoke", _STOP, _O.revoke_lease, _REASON),
    Row("GET", "/v1/fleet/freeze", _LOOK, _O.show_freeze),
    Row("POST", "/v1/fleet:freeze", _STOP, _O.freeze, FreezeRequest),
    Row("POST", "/v1/fleet:unfreeze", _LET_IN, _O.unfreeze, UnfreezeRequest),
    Row("GET", "/v1/traffic", _LOOK, _O.show_traffic),
    Row("GET", "/v1/violations", _LOOK, _O.list_violations, query=_OF_WORKER),
    Row("GET", "/v1/events", _LOOK, _EV.list_events, query=(*_PAGE, "wait")),
    Row(
        *("GET", "/v1/events/stream", _LOOK, _EV.stream_events),
        query=("after_seq",),
        headers=(event_calls.LAST_EVENT_ID,),
        streams=True,
    ),
    Row("POST", "/v1/events:verify", _LOOK, _EV.verify_events),
    Row("GET", "/v1/snapshot", _LOOK, snapshot_calls.list_snapshots),
    Row("POST", "/v1/snapshot", _TRUST, snapshot_calls.save, SaveSnapshot),
    # principals, about egress policies
    Row("GET", "/v1/policies", _LOOK, _PO.list_policies),
    Row("GET", f"/v1/policies/{_NAME}", _LOOK, _PO.show_rules),
    Row("POST", "/v1/policies:explain", _LOOK, _PO.explain, ExplainRequest),
    Row("POST", "/v1/policies:check", _LOOK, _PO.check, CheckRequest),
    # principals, about what is trusted besides workers
    Row("GET", "/v1/launchers", _LOOK, _E.listing("launcher")),
    Row("POST", "/v1/launchers", _TRUST, _E.enrol_launcher, wire.EnrolKeyRequest),
    Row("POST", "/v1/launchers:enrol-device", _TRUST, _E.enrol_device("launcher"), _DEVICE_KEY),
    Row("POST", f"/v1/launchers/{_NAME}:revoke", _STOP, _E.take_back("launcher"), _REASON),
    Row("GET", "/v1/proxies", _LOOK, _E.listing("proxy")),
    Row("POST", "/v1/proxies", _TRUST, _E.enrol_proxy, wire.EnrolKeyRequest),
    Row("POST", "/v1/proxies:enrol-device", _TRUST, _E.enrol_device("proxy"), _DEVICE_KEY),
    Row("POST", f"/v1/proxies/{_NAME}:revoke", _STOP, _E.take_back("proxy"), _REASON),
    Row("GET", "/v1/reference-values", _LOOK, _E.list_reference_values),
    Row("POST", "/v1/reference-values", _TRUST, _E.add_reference_values, wire.ReferenceValues),
    Row("POST", "/v1/reference-values:withdraw", _STOP, _E.withdraw_references, _WITHDRAW),
    # principals, about join tokens
    Row("GET", "/v1/join-tokens", _LOOK, join_token_calls.list_tokens),
    Row("POST", "/v1/join-tokens", _LET_IN, join_token_calls.mint, MintJoinToken),
    Row("POST", f"{_JOIN_TOKEN}:revoke", _STOP, join_token_calls.revoke, _REASON),
    # principals, about themselves and each other
    Row("GET", "/v1/whoami", _LOOK, _PR.who_am_i),
    Row("GET", "/v1/principals", _TRUST, _PR.list_principals),
    Row("POST", "/v1/principals", _TRUST, _PR.create, CreatePrincipal),
    Row("POST", f"{_PRINCIPAL}:revoke", _TRUST, _PR.revoke, _REASON),
    Row("POST", f"{_PRINCIPAL}:rotate", _TRUST, _PR.rotate, _REASON),
    # principals, about nodes
    Row("POST", "/v1/pairing/codes", _STOP, _N.mint_code, node_wire.PairingCodeRequest),
    Row("GET", "/v1/pairing/requests", _LOOK, _N.list_pairing_requests, query=_PART),
    Row("POST", f"{_PAIRING}:approve", _LET_IN, _N.approve_device, node_wire.ApproveDevice),
    Row("POST", f"{_PAIRING}:reject", _LET_IN, _N.reject_device, _REASON),
    Row("GET", "/v1/devices", _LOOK, _OD.list_devices, query=_DEVICES),
    Row("GET", _DEVICE, _LOOK, _OD.show_device),
    Row("POST", f"{_DEVICE}:rotate", _STOP, _OD.rotate_device, node_wire.RotateDeviceRequest),
    Row("POST", f"{_DEVICE}:revoke", _STOP, _OD.revoke_device, _REASON),
    Row("POST", f"{_DEVICE}:remove", _TRUST, _OD.remove_device, _REASON),
    Row("GET", "/v1/certificates", _LOOK, _OD.list_certificates, query=_CERTIFICATES),
    Row("GET", "/v1/authorities", _LOOK, _OD.list_authorities),
    Row("POST", "/v1/authorities:rotate", _TRUST, _OD.rotate_authority, _REASON),
    Row("GET", "/v1/nodes", _LOOK, _N.list_nodes, query=_PART),
    Row("GET", _NODE, _LOOK, _N.show_node),
    Row("POST", f"{_NODE}:invoke", _STOP, _N.invoke, node_wire.InvokeRequest),
    Row("GET", "/v1/capability-requests", _LOOK, _N.list_capability_requests, query=_PART),
    Row("POST", f"{_ASKED}:approve", _LET_IN, _N.approve_capability, _REASON),
    Row("POST", f"{_ASKED}:reject", _LET_IN, _N.reject_capability, _REASON),
)


class RouteTableError(Exception):
    """The table and what is served differ; the program must not start."""


def rows_of(listener: Listener, table: Iterable[Row] = ROUTES) -> tuple[Row, ...]:
    return tuple(row for row in table if listener in row.listeners)


def refuse_strays(application: web.Application, rows: Iterable[Row]) -> None:
    """Raise RouteTableError unless the application serves exactly these rows, each once, and every
    row of principals names a role."""
    rows = tuple(rows)
    if roleless := [row.path for row in rows if row.allowed is Who.OPERATOR]:
        raise RouteTableError(f"routes of principals without a role: {roleless}")
    expected = sorted((row.method, shape(row.path)) for row in rows)
    served = sorted(
        (route.method, route.resource.canonical if route.resource is not None else "?")
        for route in application.router.routes()
    )
    if served != expected or len(set(expected)) != len(expected):
        strays = sorted(set(served) ^ set(expected)) or "a row stands twice"
        raise RouteTableError(f"routes and table differ: {strays}")


def shape(path: str) -> str:
    """The path as aiohttp names it: variable parts without their pattern."""
    return path.replace(f":{ULID_PATTERN}}}", "}").replace(f":{NAME_PATTERN}}}", "}")
