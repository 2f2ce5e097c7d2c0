"""Takes a request of any listener through device, query, caller and body to its row's handler.

In this order: on the listener for other machines the certificate's device, asked of the identity
for every request, must be paired and within its rate, before there is a route, and of a kind that
may call it; then the query, the caller, the body. A worker's or proxy's key is good only on
connections of the device it belongs to. When all of it has been read, certificate and token are
looked at once more: nothing is done for a device or a principal that was revoked meanwhile. Long
calls are bounded per caller and end with the application.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, assert_never

from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler
from pydantic import BaseModel

from palyra_fleet.api.call import Call, parse_body, read_body, read_query
from palyra_fleet.api.call_rates import CallRates, Rate
from palyra_fleet.api.callers import NOBODY, Identity, ProofGate, SignedRequest, TokenGate, Who
from palyra_fleet.api.changes import Change, changed
from palyra_fleet.api.devices import DeviceGate
from palyra_fleet.api.long_calls import LongCalls
from palyra_fleet.api.once import HEADER as ONCE_HEADER
from palyra_fleet.api.once import OnceOnly
from palyra_fleet.api.owed_entries import OwedEntries
from palyra_fleet.api.problems import ApiReason, ApiRefusal, Headers
from palyra_fleet.api.protocol import FleetConnection, ends_with_connection
from palyra_fleet.api.routes import Row
from palyra_fleet.identity.messages import PairedDevice
from palyra_fleet.identity.records import ClientKind
from palyra_fleet.identity.refusals import NodeReason, NodeRefused, refuse
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.nodes.peer import Peer
from palyra_fleet.principals.desk import PrincipalDesk
from palyra_fleet.principals.roles import permits
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.service.origin import ORIGIN, REQUEST_ID, Origin
from palyra_fleet.traces.calls import traced
from palyra_fleet.wire.principal_models import Role
from palyra_fleet.wire.request_proof import HEADER as PROOF_HEADER

MAX_LONG_CALLS_PER_CALLER: Final = 4
MAX_LOG_READERS: Final = 8
"""How many calls of one principal wait for the log or stream it."""
MAX_LOG_READERS_IN_ALL: Final = 64
KEPT_FOR_ADMINS: Final = 16
"""Of all: so that no number of others keeps two admins from following the log."""
DEVICE_RATE: Final = Rate(per_s=500, burst=2_000)
"""Of everything one machine asks: a host with some hundred workers, or a proxy under attack."""
CALLER_RATES: Final = {
    Who.ANYBODY: None,
    Who.STRANGER: None,
    Who.OPERATOR: None,
    Who.DEVICE: Rate(per_s=1, burst=20),
    Who.KEY_IN_BODY: Rate(per_s=50, burst=500),
    Who.WORKER: Rate(per_s=30, burst=200),
    Who.PROXY: Rate(per_s=500, burst=2_000),
}
"""Of one caller by kind. KEY_IN_BODY is one machine: a key costs nothing to make."""
_KINDS: Final = {
    Who.ANYBODY: frozenset(ClientKind),
    Who.STRANGER: frozenset[ClientKind](),
    Who.KEY_IN_BODY: frozenset({ClientKind.NODE}),
    Who.WORKER: frozenset({ClientKind.NODE}),
    Who.PROXY: frozenset({ClientKind.PROXY}),
    Who.DEVICE: frozenset({ClientKind.NODE, ClientKind.PROXY}),
    Who.OPERATOR: frozenset[ClientKind](),
}
"""What a machine must have paired as, to call a route of this kind."""
THIS_ACCOUNT: Final = "operators' socket"
"""Where a call came from that came over no network."""
DEVICE: Final = web.RequestKey("palyra-device", PairedDevice)
_NOT_ONCE: Final = frozenset({Who.ANYBODY, Who.STRANGER, Who.KEY_IN_BODY})
"""Who has no idempotency keys: they could fill the memory of others, since a key costs nothing."""


@dataclass(frozen=True, slots=True)
class _Admitted:
    """Who calls, from which device, with what body; by which key (None: without a proof)."""

    identity: Identity
    body: bytes
    device: PairedDevice | None
    key_sha256: str | None = None


@dataclass(slots=True)
class Gatekeeper:
    """One per application. `devices` is there on the listener for other machines, and only there
    does a request need a device."""

    service: FleetService
    body_within_ms: int
    view_write_within_ms: int
    clock: Callable[[], int]
    tokens: TokenGate
    proofs: ProofGate
    nodes: NodeOperations | None
    principals: PrincipalDesk
    devices: DeviceGate | None = None
    rates: CallRates = field(default_factory=CallRates)
    once: OnceOnly = field(default_factory=OnceOnly)
    owed: OwedEntries = field(default_factory=OwedEntries)
    long_calls: LongCalls = field(default_factory=lambda: LongCalls(MAX_LONG_CALLS_PER_CALLER))
    log_readers: LongCalls = field(
        default_factory=lambda: LongCalls(MAX_LOG_READERS, MAX_LOG_READERS_IN_ALL, KEPT_FOR_ADMINS)
    )

    def serve(self, row: Row) -> AiohttpHandler:
        async def handler(request: web.Request) -> web.StreamResponse:
            device = self._device_of(row, request)
            query = read_query(request, row.query)
            admitted = await self._admit(row, request, device)
            if self.devices is not None:
                self.devices.still(_peer(request))
            call = Call(
                service=self.service,
                operations=self.nodes,
                principals=self.principals,
                identity=admitted.identity,
                request=request,
                query=query,
                body=admitted.body,
                write_timeout_ms=self.view_write_within_ms,
                still=lambda: self._still(row, request, admitted),
                log_readers=self.log_readers,
                device=device,
                devices=self.devices,
            )
            with traced(request, by_proxy=row.who is Who.PROXY, streams=row.streams):
                if row.streams:
                    is_reader = row.who is Who.OPERATOR
                    held = call.held() if is_reader else self.long_calls.held(call.identity)
                    with held, ends_with_connection(request):
                        return await row.handler(call)
                return await self._answer(row, call)

        return handler

    async def _answer(self, row: Row, call: Call) -> web.StreamResponse:
        async def work() -> web.StreamResponse:
            if not row.changes:
                return await row.handler(call)
            parts = call.request.match_info
            made = Change(row.handler, call.identity.id, parts, row.body, call.body)
            return await changed(self.service, lambda: row.handler(call), made, self.owed)

        given = only(call.request, ONCE_HEADER)
        if given is None or row.method != "POST" or row.who in _NOT_ONCE:
            return await work()
        request = SignedRequest(row.method, call.request.raw_path, call.body)
        return await self.once.answer(call.identity, given, request, work, self.clock())

    async def know_device(self, request: web.Request) -> None:
        """Note the paired machine behind the connection, whatever it asks for. On the listener for
        other machines this comes before there is a route. Raises NodeRefused or ApiRefusal."""
        if self.devices is not None:
            device = await self.devices.device(_peer(request))
            self._spend(f"machine {device.device_id}", DEVICE_RATE)
            request[DEVICE] = device

    def _device_of(self, row: Row, request: web.Request) -> PairedDevice | None:
        """The paired machine behind the connection, if it may call this route."""
        if self.devices is None:
            return None
        device = request[DEVICE]
        if device.client_kind not in _KINDS[row.who]:
            raise ApiRefusal(ApiReason.CALLER_NOT_ALLOWED)
        return device

    async def _admit(
        self, row: Row, request: web.Request, device: PairedDevice | None
    ) -> _Admitted:
        """Who calls, and the body. Operators are known before their body is read, and once more
        when it is here: a token that was taken back meanwhile moves nothing."""
        match row.who:
            case Who.ANYBODY | Who.STRANGER:
                return _Admitted(NOBODY, await self._body(row, request), device)
            case Who.OPERATOR:
                operator = self._operator(row, request)
                body = await self._body(row, request)
                if self._operator(row, request) != operator:
                    raise ApiRefusal(ApiReason.TOKEN_REFUSED)
                ORIGIN.set(origin_of(request))
                return _Admitted(operator, body, device)
            case Who.DEVICE:
                if device is None:
                    raise ApiRefusal(ApiReason.CALLER_NOT_ALLOWED)
                identity = Identity(Who.DEVICE, device.device_id)
                self._spend_as(identity)
                return _Admitted(identity, await self._body(row, request), device)
            case Who.WORKER | Who.PROXY | Who.KEY_IN_BODY:
                return await self._admit_by_proof(row, request, device)
            case _:
                assert_never(row.who)

    def _operator(self, row: Row, request: web.Request) -> Identity:
        """The principal whose token this is, if its roles permit the row."""
        operator = self.tokens.operator(
            only(request, "Authorization"), request.remote or "", self.clock()
        )
        if isinstance(row.allowed, Role) and not permits(operator.roles, row.allowed):
            raise ApiRefusal(ApiReason.ROLE_REFUSED, f"it takes the role {row.allowed}")
        return operator

    def _still(self, row: Row, request: web.Request, admitted: _Admitted) -> None:
        """Raise ApiRefusal unless the caller is who it was, and may still call the row: an operator
        by its token, a worker or proxy by the key that it called with."""
        if row.who in {Who.WORKER, Who.PROXY}:
            device_id = None if admitted.device is None else admitted.device.device_id
            self.proofs.still(admitted.key_sha256 or "", admitted.identity, device_id)
            return
        try:
            if row.who is not Who.OPERATOR or self._operator(row, request) == admitted.identity:
                return
        except ApiRefusal as refusal:
            raise ApiRefusal(ApiReason.TOKEN_REFUSED) from refusal
        raise ApiRefusal(ApiReason.TOKEN_REFUSED)

    async def _admit_by_proof(
        self, row: Row, request: web.Request, device: PairedDevice | None
    ) -> _Admitted:
        proof = self.proofs.well_formed(only(request, PROOF_HEADER))
        if row.who is Who.KEY_IN_BODY and device is not None:
            self._spend_as(Identity(row.who, device.device_id))
        body = await self._body(row, request)
        signed = SignedRequest(request.method, request.raw_path, body)
        if row.who is not Who.KEY_IN_BODY:
            device_id = None if device is None else device.device_id
            identity = self.proofs.known_caller(proof, signed, row.who, device_id, self.clock())
            self._spend_as(identity)
            return _Admitted(identity, body, device, proof.key_thumbprint)
        key = getattr(parse_body(row.body or BaseModel, body), "public_key", "")
        identity = self.proofs.holder_of(key, proof, signed, self.clock())
        return _Admitted(identity, body, device)

    def _spend_as(self, identity: Identity) -> None:
        rate = CALLER_RATES[identity.who]
        if rate is not None:
            self._spend(f"{identity.who} {identity.id}", rate)

    def _spend(self, caller: str, rate: Rate) -> None:
        wait_s = self.rates.take(caller, rate, self.clock())
        if wait_s is not None:
            raise ApiRefusal(ApiReason.TOO_FAST, headers=Headers({"Retry-After": str(wait_s)}))

    async def _body(self, row: Row, request: web.Request) -> bytes:
        return await read_body(request, wanted=row.body is not None, within_ms=self.body_within_ms)

    async def end_long_calls(self, application: web.Application) -> None:
        del application
        self.long_calls.cut()
        self.log_readers.ending = True
        self.service.wake_log_readers()


def only(request: web.BaseRequest, header: str) -> str | None:
    """A header that is there exactly once, else None."""
    values = request.headers.getall(header, [])
    return values[0] if len(values) == 1 else None


def origin_of(request: web.Request) -> Origin:
    """Where a principal's call came from, for the events that it causes."""
    return Origin(request.remote or THIS_ACCOUNT, request[REQUEST_ID])


def _peer(request: web.BaseRequest) -> Peer:
    """Who is at the other end of mutual TLS. Raises NodeRefused where nobody is."""
    connection = request.protocol
    peer = connection.peer if isinstance(connection, FleetConnection) else None
    if peer is None:
        raise NodeRefused(refuse(NodeReason.GATE_NO_CERTIFICATE))
    return peer
